/* A CSV file: read here, scored part by part, and handed back with the codes. */

import { call } from "./api.js";
import { catalogue, CsvError, withResults } from "./csv.js";
import { $, download, french, h, table, takeFiles } from "./dom.js";
import { duration, number, onLanguage, percent, problemLine, say, t } from "./language.js";
import { modelOf } from "./model.js";

const TRIES = 8; // of one part, while the service says it is busy
const ERRORS_SHOWN = 20;
const UNSURE_SHOWN = 5;
const CHARACTERS = 1_000_000; // of one part, about: long before a request is too large to be read
// Answers that may be the fault of one product in a part: the part is then halved until that one is found.
const OF_A_PRODUCT = new Set([413, 422]);

let name = "";
let read = null; // the catalogue
let results = []; // of each row: a prediction, {text} where it has none and why, null until it is scored
let ran = false;
let running = null; // AbortController
let began = null; // {at, done}: when and where this run started
let announced = 0; // tenths of the file that were told

const rowsToScore = () => read.products.flatMap((product, at) => (product && !results[at] ? [at] : []));
const all = () => read.products.filter(Boolean).length;
const done = () => results.filter(Boolean).length;

async function open(file) {
  if (running) return;
  read = null;
  ran = false;
  say($("file-error"));
  try {
    read = catalogue(await file.arrayBuffer());
    name = file.name;
    results = read.products.map((one) => (one?.error ? { text: () => t(one.error, one.values) } : null));
    const n = all();
    say($("file-status"), () => t("file_read", { name, n }));
  } catch (error) {
    say($("file-status"));
    say($("file-error"), () => (error instanceof CsvError ? t(error.reason, error.values) : String(error)));
  }
  render();
}

async function run() {
  running = new AbortController();
  ran = true;
  began = { at: performance.now(), done: done() };
  say($("file-error"));
  render();
  $("file-cancel").focus();
  let [stopped, next] = [false, "file-result-heading"];
  try {
    const { limits } = await modelOf();
    for (const part of parts(rowsToScore(), limits.batch)) await score(part, limits);
  } catch (problem) {
    [stopped, next] = [true, problem.status === 401 ? "key" : "file-start"];
    if (problem.name !== "AbortError") say($("file-error"), () => problemLine(problem));
  }
  running = null;
  const [scored, n] = [done(), all()];
  say($("file-status"), () =>
    stopped ? t("file_stopped", { name, done: scored, all: n }) : t("file_finished", { name, n }),
  );
  render();
  $(next).focus();
}

/** Rows in parts that are small enough for one request. */
function parts(places, most) {
  const found = [];
  let size = Infinity;
  for (const at of places) {
    const { designation, description } = read.products[at];
    const length = designation.length + (description ?? "").length;
    if (size + length > CHARACTERS || found.at(-1).length === most) {
      found.push([]);
      size = 0;
    }
    found.at(-1).push(at);
    size += length;
  }
  return found;
}

async function score(places, { text_characters: most }) {
  const fit = places.filter((at) => {
    const { designation, description } = read.products[at];
    const fits = designation.length <= most && (description ?? "").length <= most;
    if (!fits) results[at] = { text: () => t("row_long", { most }) };
    return fits;
  });
  if (fit.length > 0) await scoreTogether(fit);
  progress();
}

async function scoreTogether(places) {
  const products = places.map((at) => ({ ...read.products[at], top_k: 1 }));
  try {
    const { predictions, model_version } = await call("predict/batch", {
      body: { products },
      signal: running.signal,
      tries: TRIES,
      onWait: (seconds) => {
        say($("file-status"), () => t("waiting", { time: duration(seconds) }));
        announced = -1; // what is said next takes its place
      },
    });
    places.forEach((at, index) => {
      results[at] = { ...predictions[index], model_version };
    });
  } catch (problem) {
    if (!OF_A_PRODUCT.has(problem.status)) throw problem;
    if (places.length === 1) {
      results[places[0]] = { text: () => problemLine(problem) };
      return;
    }
    const half = places.length >> 1;
    await scoreTogether(places.slice(0, half));
    await scoreTogether(places.slice(half));
  }
}

function progress() {
  const [now, of] = [done(), all()];
  $("file-progress").value = now / of;
  const rate = (now - began.done) / (performance.now() - began.at);
  const left = rate > 0 ? (of - now) / rate / 1000 : 0;
  const remaining = () => (left > 3 ? ` – ${t("file_left", { time: duration(left) })}` : "");
  say($("file-count"), () => t("file_done", { done: now, all: of }) + remaining());
  const tenth = Math.floor((10 * now) / of);
  // Seldom: it is read out.
  if (tenth !== announced) say($("file-status"), () => t("file_done", { done: now, all: of }));
  announced = tenth;
}

function render() {
  const left = read ? rowsToScore().length : 0;
  const scored = Boolean(read) && !running && (ran || left === 0);
  $("file").disabled = Boolean(running);
  $("file-drop").classList.toggle("off", Boolean(running));
  $("file-start").hidden = !read || Boolean(running) || left === 0;
  $("file-start").textContent = t(scored && left < all() ? "file_resume" : "file_start");
  $("file-running").hidden = !running;
  $("file-result").hidden = !scored;
  if (running) progress();
  if (scored) renderResult(left);
}

function renderResult(left) {
  const codes = results.flatMap((result, at) => (result && !result.text ? [{ ...result, at }] : []));
  const errors = results.flatMap((result, at) => (result?.text ? [{ ...result, at }] : []));
  const review = codes.filter((result) => result.needs_review).length;
  const figures = [["decided", codes.length - review], ["review", review], ["errors", errors.length]];
  $("file-figures").replaceChildren(
    ...figures.map(([key, count]) => h("div", {}, h("dt", {}, t(`file_${key}`)), h("dd", {}, number(count)))),
  );
  $("file-errors").replaceChildren(...errorLines(errors));
  $("file-unsure").replaceChildren(...unsure(codes));
  const link = $("file-download");
  link.textContent = t(left > 0 ? "file_download_part" : "file_download");
  const rows = results.map((one) => one && { ...one, error: one.text?.(), confidence: one.confidence?.toFixed(4) });
  const { text, defused } = withResults(read, rows);
  $("file-defused").hidden = defused === 0;
  $("file-defused").textContent = t("file_defused", { n: defused });
  download(link, text, `${name.replace(/\.(csv|tsv|txt)$/i, "")}_prdtypecode.csv`);
}

function errorLines(errors) {
  if (errors.length === 0) return [];
  const lines = errors
    .slice(0, ERRORS_SHOWN)
    .map(({ at, text }) => h("li", {}, t("file_error_line", { line: read.rows[at].line, text: text() })));
  const more = errors.length - lines.length;
  if (more > 0) lines.push(h("li", {}, t("file_errors_more", { n: more })));
  return [h("h4", {}, t("file_errors_title")), h("ul", {}, lines)];
}

function unsure(codes) {
  const rows = codes
    .sort((a, b) => a.confidence - b.confidence)
    .slice(0, UNSURE_SHOWN)
    .map(({ at, prdtypecode, label, confidence }) => [
      read.products[at].designation,
      h("span", {}, h("span", { class: "code" }, String(prdtypecode)), " ", french(label)),
      percent(confidence, 0),
    ]);
  return rows.length > 0 ? [table(t("file_unsure"), [t("title"), t("alike_type"), t("confidence")], rows, [2])] : [];
}

export function start() {
  takeFiles($("file"), $("file-drop"), open);
  $("file-start").addEventListener("click", run);
  $("file-cancel").addEventListener("click", () => running?.abort());
  window.addEventListener("beforeunload", (event) => {
    if (running) event.preventDefault(); // the browser asks first
  });
  onLanguage(render);
}
