/* One product: the form, the answer, and why. */

import { call } from "./api.js";
import { $, bar, french, h, table, takeFiles } from "./dom.js";
import { has, megabytes, onLanguage, percent, problemLine, say, signed, t } from "./language.js";

const TOP = 5;
const TRIES = 4;

let model = null; // what /model said
let picture = null; // a File
let answer = null; // what /explain said
let busy = null; // AbortController of the question under way

export function useModel(told) {
  model = told;
  render();
}

function setPicture(file) {
  const problem = !file
    ? null
    : !file.type.startsWith("image/")
      ? () => t("error_not_picture")
      : file.size > model.limits.picture_bytes
        ? () => t("error_picture_too_large", { most: megabytes(model.limits.picture_bytes) })
        : null;
  say($("product-error"), problem);
  if (problem) return;
  const preview = $("preview");
  URL.revokeObjectURL(preview.src);
  picture = file;
  $("picture-shown").hidden = !file;
  say($("picture-name"), file && (() => file.name));
  preview.hidden = false;
  if (file) preview.src = URL.createObjectURL(file);
  else preview.removeAttribute("src");
  onPictureText();
}

function onPictureText() {
  if (picture) $("preview").alt = t("picture_alt", { name: picture.name });
}

async function ask(event) {
  event.preventDefault();
  if (busy) return;
  const form = new FormData();
  form.set("designation", $("title").value.trim());
  form.set("description", $("description").value);
  form.set("top_k", String(TOP));
  if (picture) form.set("picture", picture, picture.name);
  if (!form.get("designation") && !form.get("description").trim() && !picture) {
    say($("product-error"), () => t("error_nothing"));
    $("title").focus();
    return;
  }
  busy = new AbortController();
  say($("product-error"));
  working(true);
  try {
    answer = await call("explain", {
      body: form,
      signal: busy.signal,
      tries: TRIES,
      onWait: (seconds) => say($("product-status"), () => t("waiting", { time: waitText(seconds) })),
    });
    render();
    $("answer-heading").focus();
  } catch (problem) {
    if (problem.name !== "AbortError") failed(problem);
  } finally {
    busy = null;
    working(false);
  }
}
