/* One product as a person sees it: picture, texts, the likeliest codes. */

import { bar, $, h } from "../dom.js";
import { has, percent, t } from "../language.js";
import { nameOf } from "./names.js";

const CHOICES = 5;
const ENTITY = /&(#\d|#x|[a-z])/i;
const TAG = /(<[^<>]*>)/; // of the seller's HTML, which is shown as text

const orRaw = (key, value) => (has(key) ? t(key) : value);
export const sourceName = (source) => orRaw(`source_${source}`, source);
export const languageName = (language) => orRaw(`language_${language}`, language);

/** A code with its name in the page's language. */
export function codeName(code, label = "") {
  return `${code} ${nameOf(code, label)}`.trim();
}

export function answerText({ answer, prdtypecode, note }) {
  const said = answer === "code" ? codeName(prdtypecode) : t(answer === "skip" ? "skipped" : "said_none");
  return note ? `${said} (${note})` : said;
}

export function titleOf(product) {
  return product.designation.trim() || t("product_untitled");
}

/** Make the buttons once: they stay, with the focus, from one product to the next. */
export function startChoices(choose) {
  const button = (at) => {
    const one = h("button", { class: "choice", type: "button", "aria-keyshortcuts": String(at + 1) });
    one.addEventListener("click", (event) => event.detail < 2 && choose(at)); // a double click decides one product
    return h("li", {}, one);
  };
  $("codes").replaceChildren(...Array.from({ length: CHOICES }, (_, at) => button(at)));
}

export function renderProduct(item) {
  const { product } = item;
  $("facts").textContent = [sourceName(product.source), languageName(product.language)].join(" · ");
  $("title").textContent = titleOf(product);
  const text = product.description.trim();
  $("description").classList.toggle("note", !text);
  $("description").replaceChildren(...(text ? withTags(text) : [t("description_none")]));
  renderLabel(product);
  renderSaid(product.decisions ?? []);
  renderChoices(product);
  renderPicture(item);
}

function renderLabel({ prdtypecode }) {
  $("label-now").hidden = prdtypecode === null;
  $("label-now").textContent = prdtypecode === null ? "" : t("label_now", { code: codeName(prdtypecode) });
}

function renderSaid(decisions) {
  $("said").hidden = decisions.length === 0;
  $("said").replaceChildren(h("h3", {}, t("said")), saidList(decisions));
}

export function saidList(decisions) {
  const line = (decision) => h("li", {}, h("strong", {}, decision.person), ` ${answerText(decision)}`);
  return h("ul", { class: "said" }, decisions.map(line));
}

/** The text, its tags marked: they are read past. */
function withTags(text) {
  return text.split(TAG).map((part, at) => (at % 2 ? h("span", { class: "tag" }, part) : decoded(part)));
}

/** "R&eacute;f" as "Réf". What is parsed has no tags and stays outside the page; its text is all that is taken. */
function decoded(text) {
  if (!ENTITY.test(text)) return text;
  const parsed = new DOMParser().parseFromString(`<p>${text.replaceAll("<", "&lt;")}`, "text/html");
  return parsed.body.textContent;
}

function renderChoices({ top, prdtypecode: now }) {
  $("codes").classList.toggle("even", top.length % 2 === 0); // the search then has a row of its own
  [...$("codes").children].forEach((line, at) => {
    const choice = top[at];
    line.hidden = !choice;
    if (!choice) return;
    const { prdtypecode: code, label, confidence } = choice;
    line.firstChild.replaceChildren(
      h("kbd", { "aria-hidden": "true" }, String(at + 1)),
      h("span", { class: "code" }, String(code)),
      h("span", { class: "name" }, nameOf(code, label)),
      ...(code === now ? [h("span", { class: "now" }, t("code_now"))] : []),
      h("span", { class: "number" }, shareText(confidence)),
      bar(confidence),
    );
  });
}

/** Whole percents are read faster; none and all only where it is so. */
function shareText(confidence) {
  if (confidence > 0 && confidence < 0.01) return t("share_least", { share: percent(0.01, 0) });
  if (confidence > 0.99 && confidence < 1) return t("share_most", { share: percent(0.99, 0) });
  return percent(confidence, 0);
}

export function renderPicture(item) {
  const place = $("picture");
  const { image, isLost, product } = item;
  place.classList.toggle("without", !product.has_picture || isLost);
  place.setAttribute("aria-busy", product.has_picture && !image && !isLost);
  if (image) {
    image.alt = t("product_picture");
    if (place.firstChild !== image) place.replaceChildren(image);
  } else if (product.has_picture && !isLost) place.replaceChildren();
  else place.replaceChildren(h("p", { class: "note" }, t(isLost ? "picture_lost" : "picture_missing")));
}
