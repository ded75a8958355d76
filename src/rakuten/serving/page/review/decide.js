/* Deciding: the product shown, what is done with it, and the next one. */

import { $, h } from "../dom.js";
import { number, onLanguage, problemLine, say, t } from "../language.js";
import { startCombobox } from "./combobox.js";
import { closeWhy, startWhy, toggleWhy } from "./explanation.js";
import { findCodes, nameOf, proposed } from "./names.js";
import { closeNote, openNote, startNote } from "./note.js";
import { putDecision, send, startOutbox, takeDecision, waitingProducts } from "./outbox.js";
import { codeName, renderPicture, renderProduct, startChoices, titleOf } from "./product.js";
import * as queue from "./queue.js";
import { undoLast } from "./requests.js";
import { startShortcuts } from "./shortcuts.js";
import { countToday, today } from "./today.js";

const [AGAIN, LOOK] = [3000, 30_000]; // milliseconds: until the service is asked again, and for products where none are
const LONGEST = 3600; // seconds that a person looks at one product
const PAST = 10; // decided products that are kept here, so that undoing shows them at once
const OPTIONS = 8; // codes that a search lists

let shown = null; // the item
let since = 0; // of performance.now(), when it came into sight
let past = []; // {item, name, counted}: decided here, the last one at the end; name of its decision in the outbox
let unsent = 0;
let isAway = false; // whether the outbox finds no service
let isCut = false; // whether the queue finds none
let isLoading = false;
let askAgain = false;
let timer = 0;
let person = "";
let role = "review";
let hasFilter = () => false;
let clearSearch = () => {};
let onStopped = () => {};

/** Begin, once the person is known. */
export function begin(given, stopped) {
  ({ person, role } = given);
  onStopped = stopped;
  past = [];
  startOutbox(person, {
    changed: (n, away) => {
      const wasCut = isAway && !away;
      [unsent, isAway] = [n, away];
      renderConnection();
      if (wasCut) topUp();
    },
    sent: topUp,
    refused,
    stopped,
  });
}

/** Take products by another filter. */
export function refilter(filter) {
  queue.restart(filter);
  show();
  topUp();
}

/** Decide a product of a list next. */
export function decideNow(product) {
  queue.putFirst(queue.itemOf(product));
  show();
  announceProduct();
  $("title").focus();
}

export function startDecide(given) {
  hasFilter = given.hasFilter;
  queue.onPicture((item) => item === shown && renderPicture(item));
  startChoices(choose);
  startNote((answer, code, note) => decide(answer, code, note));
  startWhy(() => queue.currentItem()?.product.id);
  clearSearch = startCombobox($("search"), $("search-list"), { find: optionsFor, leave: focusTitle });
  const deeds = {
    c: () => $("search").focus(),
    "/": () => $("search").focus(),
    n: () => openNote("none"),
    s: () => decide("skip"),
    u: undo,
    e: toggleWhy,
  };
  $("none").addEventListener("click", deeds.n);
  $("skip").addEventListener("click", (event) => event.detail < 2 && deeds.s());
  $("undo").addEventListener("click", (event) => event.detail < 2 && undo());
  $("why-button").addEventListener("click", toggleWhy);
  $("look-again").addEventListener("click", topUp);
  startShortcuts(choose, deeds, () => !$("desk").hidden && !$("decide").hidden);
  window.addEventListener("online", topUp);
  window.addEventListener("offline", () => {
    isCut = true;
    renderConnection();
  });
  onLanguage(() => {
    $("search").placeholder = t("search_hint");
    render();
  });
}

function choose(at) {
  const choice = queue.currentItem()?.product.top[at];
  if (choice) decide("code", choice.prdtypecode);
}

function optionsFor(text) {
  const product = queue.currentItem()?.product;
  if (!product) return [];
  const options = findCodes(text, product.top.map(({ prdtypecode }) => prdtypecode))
    .slice(0, OPTIONS)
    .map((code) => ({ content: [codeName(code)], act: () => decide("code", code) }));
  const fresh = proposed(text);
  if (fresh) options.push({ content: [t("search_propose", { code: String(fresh) })], act: () => openNote("code", fresh) });
  return options.length > 0 ? options : [{ content: [t("search_none")], act: null }];
}

function decide(answer, code = null, note = "") {
  const item = queue.currentItem();
  if (!item) return;
  const body = {
    product_id: item.product.id,
    answer,
    prdtypecode: code,
    note,
    seconds: secondsSince(),
    decided_at: new Date().toISOString(),
  };
  queue.shiftItem();
  const counted = answer === "skip" ? 0 : 1;
  past.push({ item, name: putDecision(body, { title: titleOf(item.product) }), counted });
  if (past.length > PAST) queue.release(past.shift().item);
  countToday(person, counted);
  const name = code === null ? "" : nameOf(code, note || labelIn(item.product, code));
  const told = () => t(`decided_${answer}`, { code: String(code), name });
  say($("decide-error"));
  say($("last"), told);
  moveOn(told);
  topUp();
}

/** Seconds since the product came into sight; null where nobody can have looked at it all that time. */
function secondsSince() {
  const seconds = Math.round((performance.now() - since) / 100) / 10;
  return seconds < LONGEST ? seconds : null;
}

const labelIn = ({ top }, code) => top.find(({ prdtypecode }) => prdtypecode === code)?.label ?? "";

async function undo() {
  say($("decide-error"));
  const last = past.at(-1);
  const isTaken = () => last && takeDecision(last.name) && comeBack(last);
  if (isTaken()) return;
  try {
    await send();
    if (isTaken()) return; // the service did not take it: what it has from before is to stay
    const { product } = await undoLast();
    if (!product) {
      say($("last"), () => t("undo_nothing"));
      say($("live"), () => t("undo_nothing"));
      return;
    }
    comeBack(past.findLast(({ item }) => item.product.id === product.id) ?? { item: queue.itemOf(product), counted: 1 });
  } catch (problem) {
    say($("decide-error"), () => problemLine(problem));
  }
}

/** Show a product again whose decision was taken back. */
function comeBack(entry) {
  past = past.filter((one) => one !== entry);
  queue.putFirst(entry.item);
  countToday(person, -entry.counted);
  say($("last"), () => t("undone"));
  moveOn(() => t("undone"));
  return true;
}

function refused(entry, problem) {
  past = past.filter(({ item }) => item.product.id !== entry.body.product_id);
  countToday(person, -1);
  const key = problem.status === 404 ? "decision_gone" : "decision_refused";
  const reason = problem.detail || problem.code;
  say($("decide-error"), () => t(key, { title: entry.about.title, reason }));
  render();
}

/** Show what is first in the queue, say so, and leave the focus where it is if that is still there. */
function moveOn(told) {
  show();
  announceProduct(told);
  const focused = document.activeElement;
  if (focused === document.body || !focused.checkVisibility() || focused.id === "search") focusTitle();
  const place = $("product").getBoundingClientRect();
  if (place.top < 0 && shown) $("product").scrollIntoView();
}

function focusTitle() {
  (shown ? $("title") : $("message-title")).focus({ preventScroll: true });
}

function announceProduct(told = () => "") {
  const text = () => {
    if (!shown) return `${told()}. ${$("message-title").textContent}`;
    const { product } = shown;
    const codes = product.top.map(({ prdtypecode, label }, at) =>
      t("next_code", { key: String(at + 1), name: nameOf(prdtypecode, label) }),
    );
    const next = t("next_product", { title: titleOf(product), codes: codes.join("; ") });
    return [told(), next].filter(Boolean).join(". ");
  };
  say($("live"), text);
}

/** Ask for more products, now and whenever there is room. */
async function topUp() {
  clearTimeout(timer);
  if (!person) return;
  isLoading = true;
  askAgain = false;
  render();
  try {
    const wasEmpty = !shown;
    if (!(await queue.refill(waitingProducts()))) {
      askAgain = true; // another call asks; what was decided meanwhile makes room for more
      return;
    }
    isCut = false;
    isLoading = false;
    show();
    if (wasEmpty && shown) announceProduct();
    if (!shown) timer = setTimeout(topUp, LOOK);
    else if (askAgain) topUp();
  } catch (problem) {
    isLoading = false;
    if (problem.name === "AbortError") return;
    if (problem.status === 401 || problem.status === 403) onStopped(problem);
    else {
      isCut = problem.code === "network" || problem.passing;
      if (!isCut) say($("decide-error"), () => problemLine(problem));
      timer = setTimeout(topUp, AGAIN);
    }
  } finally {
    render();
  }
}

function show() {
  const item = queue.currentItem();
  if (item !== shown) {
    shown = item;
    since = performance.now();
    closeNote();
    closeWhy();
    clearSearch();
    $("description").scrollTop = 0;
  }
  render();
}

function render() {
  $("product").hidden = !shown;
  $("message").hidden = Boolean(shown);
  if (shown) renderProduct(shown);
  else renderMessage();
  renderConnection();
  const { waiting } = queue;
  const counts = [h("span", {}, t("count_waiting", { n: waiting ?? 0 })), h("span", {}, ` · ${t("count_today", { n: today(person) })}`)];
  $("count").replaceChildren(...(waiting === null ? [] : counts));
}

function renderMessage() {
  const [title, text] = messageTexts();
  $("message-title").textContent = title;
  $("message-text").textContent = text;
  $("look-again").hidden = isLoading || isAway || isCut;
}

function messageTexts() {
  if (isAway || isCut) return ["", t("away_empty")];
  if (isLoading || queue.waiting === null) return ["", t("loading")];
  if (queue.waiting > 0) return [t("queue_empty_title"), t("queue_others", { n: number(queue.waiting) })];
  if (hasFilter()) return [t("queue_filtered_title"), t("queue_filtered")];
  return [t("queue_empty_title"), t(role === "administer" ? "queue_empty" : "queue_empty_review")];
}

function renderConnection() {
  const key = !(isAway || isCut) ? null : unsent > 0 ? "away_kept" : "away";
  const text = key && t(key, { n: unsent });
  if ($("connection").textContent !== (text ?? "")) say($("connection"), text && (() => t(key, { n: unsent })));
}
