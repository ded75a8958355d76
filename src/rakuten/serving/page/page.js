/* The page: language, tabs, the key, and which model answers. */

import { keepKey, onRefused } from "./api.js";
import { $, h, startTabs } from "./dom.js";
import { start as startFile } from "./file.js";
import { date, onLanguage, percent, problemLine, say, start as speak, t } from "./language.js";
import { modelOf, onModel } from "./model.js";
import { start as startProduct } from "./product.js";

const TRIES = 20; // of a service that is starting
const AGAIN = 5000; // milliseconds, where no service is

let model = null;

function startKey() {
  onRefused(() => {
    $("key-form").hidden = false;
    $("key").focus();
  });
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    keepKey($("key").value.trim());
    $("key").value = "";
    $("key-form").hidden = true;
    loadModel();
  });
}

async function loadModel() {
  try {
    await modelOf(undefined, { tries: TRIES, onWait: () => say($("page-error"), () => t("error_not_ready")) });
    say($("page-error"));
  } catch (problem) {
    say($("page-error"), () => problemLine(problem));
    if (problem.code === "network") setTimeout(loadModel, AGAIN);
  }
}

function renderModel() {
  if (!model) return;
  $("model").hidden = false;
  $("synthetic").hidden = !model.synthetic;
  $("model-facts").replaceChildren(
    ...facts().map(([key, value, note]) =>
      h("div", {}, h("dt", {}, t(key)), h("dd", {}, value, note ? h("span", { class: "note" }, ` ${note}`) : null)),
    ),
  );
}

function facts() {
  const { scores } = model;
  const interval = scores.weighted_f1_low !== undefined && {
    low: percent(scores.weighted_f1_low),
    high: percent(scores.weighted_f1_high),
    level: percent(0.95),
  };
  const scored = ["weighted_f1", "macro_f1", "calibration_error"].filter((name) => Number.isFinite(scores[name]));
  const number = model.registry_version && t("model_registry", { n: model.registry_version });
  return [
    ["model_version", model.model_version, number],
    ...(model.trained_at ? [["model_trained", date(model.trained_at)]] : []),
    ...(model.synthetic === null ? [] : [["model_data", t(model.synthetic ? "model_synthetic" : "model_real")]]),
    ...scored.map((name) => [
      `model_${name}`,
      percent(scores[name]),
      name === "weighted_f1" && interval && t("model_interval", interval),
    ]),
    ...(model.live_precision ? [livePrecision(model.live_precision)] : []),
    ["model_threshold", percent(model.threshold), t("model_target", { precision: percent(model.target_precision) })],
  ];
}

/** How many of the automatic answers were right, of those that people have checked. */
function livePrecision({ precision, low, high, labels, promised }) {
  const note = t("model_live_note", {
    low: percent(low),
    high: percent(high),
    n: labels,
    promised: percent(promised),
  });
  return ["model_live_precision", percent(precision), note];
}

// A file that misses its place must not replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

speak($("language"));
startTabs([$("tab-product"), $("tab-file")]);
startKey();
startProduct();
startFile();
onModel((told) => {
  model = told;
  renderModel();
});
onLanguage(renderModel);
loadModel();
