/* One product: the form, and asking. */

import { render as renderAnswer } from "./answer.js";
import { call } from "./api.js";
import { $, h, takeFiles } from "./dom.js";
import { duration, megabytes, onLanguage, problemLine, say, t } from "./language.js";
import { modelOf, onModel } from "./model.js";

const TOP = 5; // codes shown
const TRIES = 4;
const EXAMPLES = ["pool", "book", "gamepad"]; // static/example-NAME.jpg, example_NAME_title and _description

let model = null; // what /model says, once it is known
let picture = null; // a File
let refused = null; // why the last file that was chosen is not the picture: () => text
let answer = null; // what /explain says
let withoutPicture = null; // `refused` as it was when that was asked
let asking = false;

function render() {
  if (picture) $("preview").alt = t("picture_alt", { name: picture.name });
  $("empty").hidden = Boolean(answer);
  renderAnswer($("answer"), answer, model, withoutPicture && t("picture_refused", { why: withoutPicture() }));
}

function refusal(file) {
  const most = model?.limits.picture_bytes ?? Infinity;
  const values = { name: file.name };
  if (file.type && !file.type.startsWith("image/")) return () => t("error_not_picture", values);
  return file.size > most ? () => t("error_picture_most", { ...values, most: megabytes(most) }) : null;
}

function addPicture(file) {
  refused = refusal(file);
  say($("picture-error"), refused);
  if (refused) return;
  showPicture(file);
  say($("product-status"), () => t("picture_added", { name: file.name }));
}

function showPicture(file) {
  const preview = $("preview");
  if (picture) URL.revokeObjectURL(preview.src);
  picture = file;
  $("picture-shown").hidden = !file;
  preview.hidden = !file;
  say($("picture-name"), file && (() => file.name));
  if (file) preview.src = URL.createObjectURL(file);
  render();
}

function removePicture() {
  refused = null;
  say($("picture-error"));
  showPicture(null);
  say($("product-status"), () => t("picture_removed"));
  $("picture").focus(); // the button that had the focus is gone
}

async function ask(event) {
  event.preventDefault();
  if (asking) return;
  const [designation, description] = [$("title").value.trim(), $("description").value];
  if (!designation && !description.trim() && !picture) {
    say($("product-error"), () => t("error_nothing"));
    return;
  }
  const form = new FormData();
  form.set("designation", designation);
  form.set("description", description);
  form.set("top_k", String(TOP));
  if (picture) form.set("picture", picture, picture.name);
  working(true);
  try {
    const onWait = (seconds) => say($("product-status"), () => t("waiting", { time: duration(seconds) }));
    const told = await call("explain", { body: form, tries: TRIES, onWait });
    model = await modelOf(told.prediction.model_version);
    answer = told;
    withoutPicture = picture ? null : refused;
    render();
    $("answer-heading").focus();
  } catch (problem) {
    answer = null; // the one that stood there was another product's
    render();
    say($("product-error"), () => problemLine(problem));
  } finally {
    working(false);
  }
}

function working(now) {
  asking = now;
  $("classify").setAttribute("aria-disabled", now); // not disabled: that would take the focus away
  $("answer").setAttribute("aria-busy", now);
  if (now) say($("product-error"));
  say($("product-status"), now ? () => t("working") : null);
}

function clear() {
  answer = null;
  refused = null;
  say($("picture-error"));
  say($("product-error"));
  say($("product-status"));
  showPicture(null);
  $("title").focus();
}

/** Classify this product: {title, description, picture}, the last a File or null. */
export function openProduct({ title, description, picture: file }) {
  if (asking) return;
  clear();
  $("title").value = title;
  $("description").value = description;
  if (file) addPicture(file);
  $("product-form").requestSubmit();
}

function renderExamples() {
  const button = (name) =>
    h(
      "button",
      { type: "button", class: "example", "data-example": name },
      h("img", { src: `static/example-${name}.jpg`, alt: "", width: "160", height: "160" }),
      h("span", {}, t(`example_${name}_title`)),
    );
  $("examples").replaceChildren(...EXAMPLES.map((name) => h("li", {}, button(name))));
}

async function openExample(name) {
  const response = await fetch(`static/example-${name}.jpg`).catch(() => null);
  const picture = response?.ok ? new File([await response.blob()], `${name}.jpg`, { type: "image/jpeg" }) : null;
  openProduct({ title: t(`example_${name}_title`), description: t(`example_${name}_description`), picture });
}

export function start() {
  $("product-form").addEventListener("submit", ask);
  $("product-form").addEventListener("reset", clear);
  $("picture-remove").addEventListener("click", removePicture);
  $("examples").addEventListener("click", ({ target }) => {
    const button = target.closest("[data-example]");
    if (button) openExample(button.dataset.example);
  });
  $("preview").addEventListener("error", () => {
    if (!picture) return;
    $("preview").hidden = true; // whether it can be used the API says
    say($("picture-name"), () => `${picture.name} – ${t("picture_no_preview")}`);
  });
  takeFiles($("picture"), $("picture-drop"), addPicture);
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    // A spreadsheet's cells come as text and as a picture of it: they are meant as text.
    if (!file || event.clipboardData.getData("text/plain") || $("product").hidden) return;
    event.preventDefault();
    addPicture(file);
  });
  onModel((told) => {
    model = told;
  });
  onLanguage(() => {
    renderExamples();
    render();
  });
}
