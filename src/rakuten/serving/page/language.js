/* The language that is spoken: texts, numbers, dates, and saying things again when it changes. */

import { TEXTS } from "./texts.js";

const LANGUAGES = ["fr", "en"];
const KEPT = "language";
const said = new Map(); // element -> () => text, to be said again in another language
const listeners = [];
const namesOfCodes = new Map(); // prdtypecode -> {fr, en}
let language = chosen();

function chosen() {
  let kept = null;
  try {
    kept = localStorage.getItem(KEPT);
  } catch {
    // A browser that keeps nothing: its own language then.
  }
  if (LANGUAGES.includes(kept)) return kept;
  return navigator.language.toLowerCase().startsWith("fr") ? "fr" : "en";
}

/** A region's habits, where the browser is set to one of this language. */
function locale() {
  return navigator.language.startsWith(language) ? navigator.language : { fr: "fr-FR", en: "en-GB" }[language];
}

/** The language that is spoken: fr or en. */
export function spoken() {
  return language;
}

/** Keep the names of the codes, of what /model says. */
export function learnNames(classes) {
  for (const { prdtypecode, names } of classes) if (names) namesOfCodes.set(prdtypecode, names);
}

/** The name of a code as {text, lang}: in the language that is spoken, or as the API labelled it. */
export function nameOf({ prdtypecode, label }) {
  const names = namesOfCodes.get(prdtypecode);
  return names?.[language] ? { text: names[language], lang: language } : { text: label ?? "", lang: "fr" };
}

/** "a, b and c" */
export function listOf(texts) {
  return new Intl.ListFormat(language, { type: "conjunction" }).format(texts);
}

export function has(key) {
  return Object.hasOwn(TEXTS, key);
}

export function t(key, values = {}) {
  const text = TEXTS[key][LANGUAGES.indexOf(language)].replace(/\{(\w+)\}/g, (_, name) => {
    if (name === "s") return new Intl.PluralRules(language).select(values.n) === "one" ? "" : "s";
    return typeof values[name] === "number" ? number(values[name]) : values[name];
  });
  // French sets a space before these marks, and no line may break there.
  return language === "fr" ? text.replace(/ ([:;?!»%])/g, "\u00a0$1").replace(/« /g, "«\u00a0") : text;
}

export function number(value, options = {}) {
  return new Intl.NumberFormat(locale(), options).format(value);
}

export function percent(value, digits = 1) {
  return number(value, { style: "percent", maximumFractionDigits: digits });
}

/** A probability: neither nothing nor certain where it only rounds to it. */
export function chance(value) {
  const [least, most] = [0.001, 0.999];
  if (value > 0 && value < least) return `< ${percent(least)}`;
  return value > most && value < 1 ? `> ${percent(most)}` : percent(value);
}

export function duration(seconds) {
  const [value, unit] = seconds < 90 ? [Math.ceil(seconds), "second"] : [Math.round(seconds / 60), "minute"];
  return number(value, { style: "unit", unit, unitDisplay: "long" });
}

export function megabytes(bytes) {
  return number(bytes / 1e6, { style: "unit", unit: "megabyte", maximumFractionDigits: 1 });
}

export function date(iso) {
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium" }).format(new Date(iso));
}

/** Put a text into an element, now and in each language to come; without one the element is emptied. */
export function say(element, text = null) {
  if (text) said.set(element, text);
  else said.delete(element);
  element.textContent = text ? text() : "";
}

/** Call `render` now and at each change of language. */
export function onLanguage(render) {
  listeners.push(render);
  render();
}

function speak() {
  document.documentElement.lang = language;
  document.title = t("page_title");
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
  }
  for (const [element, text] of said) element.textContent = text();
  for (const render of listeners) render();
}

/** Fill the page, and let a button change the language. */
export function start(button) {
  button.addEventListener("click", () => {
    language = LANGUAGES[1 - LANGUAGES.indexOf(language)];
    try {
      localStorage.setItem(KEPT, language);
    } catch {
      // It then holds until the page is left.
    }
    show();
  });
  const show = () => {
    speak();
    button.lang = LANGUAGES[1 - LANGUAGES.indexOf(language)]; // it names the other one in its own words
  };
  show();
}

/** An error of the API as one line. */
export function problemLine(problem) {
  const known = has(`error_${problem.code}`);
  const parts = [t(known ? `error_${problem.code}` : "error_unknown", { status: problem.status })];
  if (problem.detail && (!known || problem.code === "invalid_request")) parts.push(problem.detail);
  if (problem.requestId) parts.push(`(${t("request_id", { id: problem.requestId })})`);
  return parts.join(" ");
}
