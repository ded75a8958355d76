/* What administrators do: fill the queue, give the decisions back, exchange files. */

import { $, takeFiles } from "../dom.js";
import { problemLine, say, t } from "../language.js";
import * as requests from "./requests.js";

let working = false;

/** @param {() => void} filled called when products or decisions came in */
export function startTools(filled) {
  const add = (button, from) => {
    button.addEventListener("click", () => run(() => requests.addFrom(from), added(button.textContent), filled));
  };
  add($("tools-predictions"), "predictions");
  add($("tools-issues"), "label-issues");
  takeFiles($("upload"), $("upload-drop"), (file) => {
    run(() => requests.upload("review/products", file), added(file.name), filled);
  });
  $("tools-export").addEventListener("click", () => {
    run(requests.writeCorrections, ({ corrections, path }) => t("tools_exported", { n: corrections, path }));
  });
  const fetched = (name) => (data) => {
    offer(data instanceof Blob ? data : new Blob([JSON.stringify(data, null, 1)], { type: "application/json" }), name);
    return t("tools_downloaded", { name });
  };
  $("tools-decisions").addEventListener("click", () => run(requests.fetchDecisions, fetched("decisions.csv")));
  $("tools-tasks").addEventListener("click", () => run(requests.fetchTasks, fetched("tasks.json")));
  $("tools-tasks-xml").addEventListener("click", () => run(requests.fetchTasksConfig, fetched("tasks.xml")));
  takeFiles($("import"), $("import-drop"), (file) => {
    const path = file.name.toLowerCase().endsWith(".json") ? "review/annotations" : "review/decisions.csv";
    run(() => requests.upload(path, file), () => t("tools_imported", { name: file.name }), filled);
  });
}

const added = (name) => (told) =>
  t("tools_added", { name, added: told.new, updated: told.updated, decided: told.decided });

/** Do one thing at a time and say what came of it. */
async function run(work, line, after = () => {}) {
  if (working) return;
  working = true;
  say($("tools-error"));
  say($("tools-status"), () => t("tools_working"));
  try {
    const told = await work();
    const text = line(told);
    say($("tools-status"), () => text);
    after();
  } catch (problem) {
    say($("tools-status"));
    say($("tools-error"), () => problemLine(problem));
  } finally {
    working = false;
  }
}

function offer(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
