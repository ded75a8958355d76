/* A file of products, with or without their pictures: read here, scored part by part, handed back with the codes. */

import { call } from "./api.js";
import { kindOf, readCatalogue } from "./catalogue.js";
import { $, download, h } from "./dom.js";
import { takeFilesAndFolders } from "./dropped.js";
import { FileError } from "./file_error.js";
import { duration, number, onLanguage, problemLine, say, t } from "./language.js";
import { modelOf } from "./model.js";
import { isHidden, isPicture, matchPictures, pictureOfEntry, pictureOfFile } from "./pictures.js";
import { openProduct } from "./product.js";
import { csvResult, FITS_WORKBOOK, workbookResult } from "./results.js";
import { setRows, start as startRows } from "./rows.js";
import { scoreRows } from "./scoring.js";
import { offerReview, start as startReview } from "./to_review.js";
import { readEntry } from "./zip.js";

const ERRORS_SHOWN = 20;
const NAMES_SHOWN = 5; // of pictures that match nothing
const TABLE = /\.(?:csv|tsv|txt|xlsx)$/i;
const ARCHIVE = /\.zip$/i;
const TABLE_BYTES = 200_000_000; // of one in an archive, unpacked

let name = "";
let read = null; // the catalogue
let pictures = []; // given beside it
let match = null; // which row each of them belongs to
let results = []; // of each row: a prediction, {text} where it has none and why, null until it is scored
let ran = false;
let running = null; // AbortController
let began = null; // {at, done}: when and where this run started
let announced = 0; // tenths of the file that were told

const rowsToScore = () => read.products.flatMap((product, at) => (product && !results[at] ? [at] : []));
const all = () => read.products.filter(Boolean).length;
const done = () => results.filter(Boolean).length;

/** Take files as they were chosen or dropped: {file, path}, with a table, pictures, archives and folders of them. */
async function take(listing) {
  if (running) return;
  say($("file-error"));
  let given = [];
  try {
    given = await listing;
    const { table, found } = await sortFiles(given.filter(({ path }) => !isHidden(path)));
    if (found.length > 0) pictures = [...pictures, ...found];
    if (table) {
      read = null;
      read = await readCatalogue(table.file, table.kind);
      name = table.file.name;
    } else if (found.length === 0) throw new FileError("file_nothing");
    startAgain();
  } catch (error) {
    say($("file-error"), () => (error instanceof FileError ? t(error.reason, error.values) : String(error)));
    // Nobody must take the table that was there before for the one that cannot be read.
    if (!given.every(({ path }) => isPicture(path) || ARCHIVE.test(path))) read = null;
    if (!read) say($("file-status"));
  }
  render();
}

/** What the files are: {table, found}, the last table with its kind, and pictures. */
async function sortFiles(given) {
  let table = null;
  const found = [];
  for (const { file, path } of given) {
    const inFolder = path.includes("/");
    if (isPicture(path)) found.push(pictureOfFile(path, file));
    else if (!inFolder || TABLE.test(path)) {
      const { kind, entries } = await kindOf(file);
      if (kind !== "archive") table = { file, kind };
      else table = (await openArchive(file, entries, found)) ?? table;
    }
  }
  return { table, found };
}

/** The table in an archive, if it has just one; its pictures are added to `found`. */
async function openArchive(archive, entries, found) {
  const seen = entries.filter(({ name: path }) => !isHidden(path));
  const inside = seen.filter((entry) => isPicture(entry.name));
  for (const entry of inside) found.push(pictureOfEntry(archive, entry));
  const tables = seen.filter((entry) => TABLE.test(entry.name));
  if (tables.length > 1) throw new FileError("zip_tables", { n: tables.length });
  if (tables.length === 0) {
    if (inside.length === 0) throw new FileError("zip_nothing");
    return null;
  }
  const file = new File([await readEntry(archive, tables[0], TABLE_BYTES)], tables[0].name.split("/").at(-1));
  const { kind } = await kindOf(file);
  if (kind === "archive") throw new FileError("zip_broken");
  return { file, kind };
}

/** No row has an answer, those aside that cannot be read: there is another table, or there are other pictures. */
function startAgain() {
  ran = false;
  match = read && matchPictures(read, pictures);
  results = read ? read.products.map((one) => (one?.error ? { text: () => t(one.error, one.values) } : null)) : [];
  say($("file-status"), () =>
    read ? t("file_read", { name, n: all() }) : t("pictures_alone", { n: pictures.length }),
  );
}

function removePictures() {
  pictures = [];
  startAgain();
  if (!read) say($("file-status"));
  render();
  $("file").focus(); // the button that had the focus is gone
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
    await scoreRows({
      rows: rowsToScore(),
      products: read.products,
      pictures: match.ofRow,
      limits,
      signal: running.signal,
      onResult: (at, result) => {
        results[at] = result;
      },
      onProgress: progress,
      onWait: (seconds) => {
        say($("file-status"), () => t("waiting", { time: duration(seconds) }));
        announced = -1; // what is said next takes its place
      },
    });
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
  for (const id of ["file", "folder"]) $(id).disabled = Boolean(running);
  for (const id of ["file-drop", "folder-choose"]) $(id).classList.toggle("off", Boolean(running));
  $("file-start").hidden = !read || Boolean(running) || left === 0;
  $("file-start").textContent = t(scored && left < all() ? "file_resume" : "file_start");
  $("file-running").hidden = !running;
  $("file-result").hidden = !scored;
  renderPictures();
  if (running) progress();
  if (scored) renderResult(left);
  else setRows([]);
}

/** How the pictures and the rows match. */
function renderPictures() {
  $("file-pictures").hidden = pictures.length === 0 || Boolean(running) || !read;
  if ($("file-pictures").hidden) return;
  const { ofRow, column, unmatched } = match;
  const withOne = ofRow.filter(Boolean).length;
  const names = unmatched.slice(0, NAMES_SHOWN).map(({ path }) => path.split("/").at(-1));
  const more = unmatched.length > NAMES_SHOWN ? ", …" : "";
  const by = column ? t("pictures_by_column", { column }) : t("pictures_by_ids");
  const lines = [withOne > 0 ? t("pictures_matched", { n: withOne, all: all(), by }) : t("pictures_none")];
  if (unmatched.length > 0)
    lines.push(t("pictures_unmatched", { n: unmatched.length, names: names.join(", ") + more }));
  $("file-pictures-lines").replaceChildren(...lines.map((text) => h("p", { class: "note" }, text)));
}

function renderResult(left) {
  const codes = results.filter((result) => result && !result.text);
  const errors = results.flatMap((result, at) => (result?.text ? [{ ...result, at }] : []));
  const review = codes.filter((result) => result.needs_review).length;
  const figures = [
    ["decided", codes.length - review],
    ["review", review],
    ["errors", errors.length],
  ];
  $("file-figures").replaceChildren(
    ...figures.map(([key, count]) => h("div", {}, h("dt", {}, t(`file_${key}`)), h("dd", {}, number(count)))),
  );
  $("file-errors").replaceChildren(...errorLines(errors));
  $("file-download").textContent = t(left > 0 ? "file_download_part" : "file_download");
  $("file-download-xlsx").hidden = read.rows.length > FITS_WORKBOOK;
  say($("file-defused"));
  setRows(
    results.flatMap((result, at) => {
      if (!result) return [];
      const title = read.products[at].designation ?? read.rows[at].fields.join(" ");
      return [{ at, line: read.rows[at].line, title, result, picture: match.ofRow[at] }];
    }),
  );
}

function errorLines(errors) {
  if (errors.length === 0) return [];
  const lines = errors
    .slice(0, ERRORS_SHOWN)
    .map(({ at, text }) => h("li", {}, t("file_error_line", { line: read.rows[at].line, text: text() })));
  const more = errors.length - lines.length;
  if (more > 0) lines.push(h("li", {}, t("file_errors_more", { n: more })));
  return [h("h3", {}, t("file_errors_title")), h("ul", {}, lines)];
}

function stem() {
  return name.replace(TABLE, "");
}

function handOutCsv() {
  const { text, defused } = csvResult(read, results, pictures.length > 0);
  say($("file-defused"), defused > 0 ? () => t("file_defused", { n: defused }) : null);
  download(new Blob([text], { type: "text/csv;charset=utf-8" }), `${stem()}_prdtypecode.csv`);
}

async function handOutWorkbook() {
  const { blob, cut } = await workbookResult(read, results, pictures.length > 0);
  say($("file-defused"), cut > 0 ? () => t("file_cut", { n: cut }) : null);
  download(blob, `${stem()}_prdtypecode.xlsx`);
}

/** Show a row's product with its explanation. */
async function openRow(at) {
  const { designation, description } = read.products[at];
  const picture = match.ofRow[at];
  let file = null;
  try {
    const { limits } = await modelOf();
    if (picture) file = new File([await picture.read(limits.picture_bytes)], picture.path.split("/").at(-1));
  } catch {
    // Too large, damaged or gone, as the row says where it was scored with pictures.
  }
  $("tab-product").click();
  openProduct({ title: designation ?? "", description: description ?? "", picture: file });
}

export function start() {
  takeFilesAndFolders($("file"), $("file-drop"), take);
  takeFilesAndFolders($("folder"), $("folder-choose"), take);
  startRows(openRow, (rows) => offerReview(rows, read, stem()));
  startReview();
  $("file-start").addEventListener("click", run);
  $("file-cancel").addEventListener("click", () => running?.abort());
  $("file-pictures-remove").addEventListener("click", removePictures);
  $("file-download").addEventListener("click", handOutCsv);
  $("file-download-xlsx").addEventListener("click", handOutWorkbook);
  window.addEventListener("beforeunload", (event) => {
    if (running) event.preventDefault(); // the browser asks first
  });
  onLanguage(render);
}
