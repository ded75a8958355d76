/* Single keys, and the list of them. They can be switched off: somebody may dictate, or touch keys by accident. */

import { $, h } from "../dom.js";
import { onLanguage, t } from "../language.js";
import { keep, kept } from "./storage.js";

const KEPT = "review-single-keys";
const LIST = [
  ["1 – 5", "keys_codes"], ["C", "keys_search"], ["N", "keys_none"], ["S", "keys_skip"], ["U", "keys_undo"],
  ["E", "keys_why"], ["?", "keys_help"], ["Esc", "keys_escape"],
];
const TYPED = "input:not([type=checkbox]), textarea, select, dialog";

/**
 * @param {(at: number) => void} choose one of the likeliest codes, from 0
 * @param {{[key: string]: Function}} deeds what a key does, by its letter or mark
 * @param {() => boolean} isActive whether there is a product to decide
 */
export function startShortcuts(choose, deeds, isActive) {
  const showKeys = () => $("keys").showModal();
  $("keys-button").addEventListener("click", showKeys);
  $("keys-single").checked = kept(KEPT, true);
  const mark = () => document.body.classList.toggle("keyless", !$("keys-single").checked);
  $("keys-single").addEventListener("change", () => {
    keep(KEPT, $("keys-single").checked);
    mark();
  });
  mark();
  onLanguage(() => $("keys-table").replaceChildren(keysTable()));
  document.addEventListener("keydown", (event) => {
    if (!isPlain(event) || !$("keys-single").checked || !isActive()) return;
    const at = digitOf(event);
    const deed = event.key === "?" ? showKeys : deeds[event.key.toLowerCase()];
    if (at === null && !deed) return;
    event.preventDefault();
    if (at === null) deed();
    else choose(at);
  });
}

function isPlain(event) {
  const isHeld = event.repeat || event.ctrlKey || event.metaKey || event.altKey;
  return !isHeld && !event.isComposing && !event.defaultPrevented && !event.target.closest?.(TYPED);
}

/** By the place of the key: on a French keyboard its digits need Shift. */
function digitOf({ code, key, shiftKey }) {
  const digit = /^(?:Digit|Numpad)([1-5])$/.exec(code)?.[1];
  const isMeant = key === digit || (digit && !shiftKey && key.length === 1); // not Numpad as arrows, not "!"
  return isMeant ? Number(digit) - 1 : null;
}

function keysTable() {
  const row = ([key, does]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, t(does)));
  return h(
    "table",
    {},
    h("thead", { class: "unseen" }, h("tr", {}, h("th", { scope: "col" }, t("keys_column")), h("th", { scope: "col" }, t("keys_does")))),
    h("tbody", {}, LIST.map(row)),
  );
}
