/* The table of a file's rows: filtered, sorted, in pages, so that it is as quick with 10,000 rows as with ten. */

import { $, bar, className, h } from "./dom.js";
import { chance, number, t } from "./language.js";

const PER_PAGE = 25;
const SHOWN_CHARACTERS = 300; // of a title; two lines of it are seen
const THUMBNAIL_BYTES = 10_000_000;

let rows = []; // {at, line, title, result, picture}; result: a prediction or {text}
let open = () => {};
const wanted = { state: "", code: "", search: "", sort: "line", descending: false, page: 0 };
let shownUrls = []; // of the thumbnails of this page
let changed = () => {};

const COLUMNS = [
  { key: "line", style: "place", value: (row) => row.line },
  { key: "title", style: "title", value: (row) => row.title.toLowerCase() },
  { key: "type", style: "type", value: (row) => row.result.prdtypecode ?? Infinity },
  { key: "confidence", style: "sureness", value: (row) => row.result.confidence ?? -1 },
];

/** The state of a row's result: review, decided or errors. */
export function stateOf(result) {
  if (result.text) return "errors";
  return result.needs_review ? "review" : "decided";
}

/** The rows that the filters leave, in the order that was chosen. */
export function shownRows() {
  const words = wanted.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = rows.filter(
    ({ title, result }) =>
      (!wanted.state || stateOf(result) === wanted.state) &&
      (!wanted.code || String(result.prdtypecode) === wanted.code) &&
      words.every((word) => title.toLowerCase().includes(word)),
  );
  const { value } = COLUMNS.find(({ key }) => key === wanted.sort);
  const sign = wanted.descending ? -1 : 1;
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return found.sort((a, b) => sign * compare(value(a), value(b)) || a.line - b.line);
}

/** Show these rows; the filters stay where they still fit. */
export function setRows(given) {
  if (given.length !== rows.length) wanted.page = 0;
  rows = given;
  if (!rows.some(({ result }) => String(result.prdtypecode) === wanted.code)) wanted.code = "";
  $("rows").hidden = rows.length === 0;
  if (rows.length === 0) {
    $("rows-table").replaceChildren();
    return;
  }
  renderFilters();
  renderTable();
}

function renderFilters() {
  const counts = new Map();
  for (const { result } of rows) {
    if (result.text) continue;
    const known = counts.get(result.prdtypecode) ?? { choice: result, n: 0 };
    counts.set(result.prdtypecode, { ...known, n: known.n + 1 });
  }
  const option = (value, text) => h("option", { value }, text);
  const codes = [...counts.values()]
    .sort((a, b) => a.choice.prdtypecode - b.choice.prdtypecode)
    .map(({ choice, n }) => {
      const { textContent } = className(choice);
      return option(String(choice.prdtypecode), `${choice.prdtypecode} ${textContent} (${number(n)})`);
    });
  $("rows-code").replaceChildren(option("", t("rows_any_code")), ...codes);
  $("rows-code").value = wanted.code;
  const states = ["review", "decided", "errors"].map((state) => {
    const n = rows.filter(({ result }) => stateOf(result) === state).length;
    return option(state, `${t(`file_${state}`)} (${number(n)})`);
  });
  $("rows-state").replaceChildren(option("", `${t("rows_any_state")} (${number(rows.length)})`), ...states);
  $("rows-state").value = wanted.state;
}

function renderTable() {
  const found = shownRows();
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  wanted.page = Math.min(wanted.page, pages - 1);
  const first = wanted.page * PER_PAGE;
  const shown = found.slice(first, first + PER_PAGE);
  for (const url of shownUrls) URL.revokeObjectURL(url);
  shownUrls = [];
  const withPictures = rows.some(({ picture }) => picture);
  $("rows-table").replaceChildren(
    h(
      "table",
      { class: withPictures ? "rows pictured" : "rows" },
      h(
        "thead",
        {},
        h("tr", {}, withPictures && h("th", { scope: "col" }, t("picture")), COLUMNS.map(head), stateHead()),
      ),
      h(
        "tbody",
        {},
        shown.map((row) => line(row, withPictures)),
      ),
    ),
  );
  const last = Math.min(found.length, first + PER_PAGE);
  $("rows-place").textContent =
    found.length === 0 ? t("rows_none") : t("rows_place", { first: first + 1, last, n: found.length });
  for (const [id, stop] of [
    ["rows-before", wanted.page === 0],
    ["rows-next", wanted.page >= pages - 1],
  ]) {
    $(id).setAttribute("aria-disabled", stop);
  }
  $("rows-pager").hidden = pages === 1;
  changed(found);
}

function head({ key, style }) {
  const isSorted = wanted.sort === key;
  const order = isSorted ? (wanted.descending ? "descending" : "ascending") : "none";
  const button = h(
    "button",
    { type: "button", class: "sort", "data-sort": key },
    t(key === "line" ? "rows_line" : key),
  );
  return h("th", { scope: "col", "aria-sort": order, class: style }, button);
}

function stateHead() {
  return h("th", { scope: "col", class: "state-of" }, t("rows_state"));
}

function line(row, withPictures) {
  const { result } = row;
  const state = stateOf(result);
  const title = h(
    "button",
    { type: "button", class: "row-open", "data-row": String(row.at) },
    row.title.slice(0, SHOWN_CHARACTERS) || t("rows_untitled"),
  );
  return h(
    "tr",
    { class: `row for-${state}` },
    withPictures && h("td", { class: "picture" }, row.picture && thumbnail(row.picture)),
    h("td", { class: "place" }, number(row.line, { useGrouping: false })),
    h("td", { class: "title" }, title),
    h(
      "td",
      { class: "type" },
      !result.text && [h("span", { class: "code" }, String(result.prdtypecode)), " ", className(result)],
    ),
    h("td", { class: "sureness" }, !result.text && [chance(result.confidence), bar(result.confidence)]),
    h("td", { class: "state-of" }, h("span", { class: `state ${state}` }, result.text ? result.text() : t(state))),
  );
}

function thumbnail(picture) {
  const image = h("img", { alt: "", class: "thumbnail" });
  picture.read(THUMBNAIL_BYTES).then(
    (blob) => {
      if (!image.isConnected) return; // another page is shown by now
      image.src = URL.createObjectURL(blob);
      shownUrls.push(image.src);
    },
    () => image.remove(),
  );
  image.addEventListener("error", () => image.remove()); // it is no picture, as the row's answer says
  return image;
}

function sortBy(key) {
  wanted.descending = wanted.sort === key && !wanted.descending;
  wanted.sort = key;
  wanted.page = 0;
  renderTable();
  $("rows-table").querySelector(`[data-sort="${key}"]`).focus(); // the one that had it is gone
}

function turn(step) {
  const button = $(step < 0 ? "rows-before" : "rows-next");
  if (button.getAttribute("aria-disabled") === "true") return;
  wanted.page += step;
  renderTable();
  $("rows-table").scrollIntoView({ block: "nearest" });
}

/**
 * @param {(at: number) => void} onOpen with the row that was clicked.
 * @param {(rows: object[]) => void} onChange with the rows that the filters leave.
 */
export function start(onOpen, onChange) {
  [open, changed] = [onOpen, onChange];
  for (const [id, key, event] of [
    ["rows-state", "state", "change"],
    ["rows-code", "code", "change"],
    ["rows-search", "search", "input"],
  ]) {
    $(id).addEventListener(event, () => {
      wanted[key] = $(id).value;
      wanted.page = 0;
      renderTable();
    });
  }
  $("rows-before").addEventListener("click", () => turn(-1));
  $("rows-next").addEventListener("click", () => turn(1));
  $("rows-table").addEventListener("click", ({ target }) => {
    const [sort, row] = [target.closest("[data-sort]"), target.closest("[data-row]")];
    if (sort) sortBy(sort.dataset.sort);
    if (row) open(Number(row.dataset.row));
  });
}
