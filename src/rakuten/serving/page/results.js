/* A scored catalogue as a file: CSV or workbook, and what the review desk takes. */

import { ADDED, addedNames, cell, CHOICES, RANKS, withResults } from "./csv.js";
import { nameOf } from "./language.js";
import { MOST_ROWS, workbookOf } from "./xlsx.js";

export const FITS_WORKBOOK = MOST_ROWS - 1; // rows beside the header
const LONGEST_NUMBER = 11; // digits; Excel shows longer ones, such as an EAN, as 3.7E+12

/** {text, defused}, see `withResults`; with a column `picture` where pictures were given. */
export function csvResult(catalogue, results, withPictures) {
  const rows = results.map((result) => values(result, (confidence) => confidence.toFixed(4)));
  return withResults(catalogue, rows, added(withPictures));
}

/** {blob, cut}, see `workbookOf`. */
export function workbookResult(catalogue, results, withPictures) {
  const { header, rows } = catalogue;
  const names = added(withPictures);
  const width = header.fields.length;
  const body = rows.flatMap(({ fields, raw }, at) => {
    if (raw === "") return [];
    const own = Array.from({ length: Math.max(width, fields.length) }, (_, column) => typed(fields[column] ?? ""));
    const result = values(results[at], (confidence) => confidence);
    return [[...own, ...names.map((name) => result?.[name])]];
  });
  return workbookOf([[...header.fields, ...addedNames(header, names)], ...body]);
}

function added(withPictures) {
  return withPictures ? [...ADDED, "picture"] : ADDED;
}

/** A result as the added columns have it, each confidence as `written`; null where there is none. */
function values(result, written) {
  if (!result) return null;
  if (result.text) return { error: result.text() };
  const next = nextChoices(result).flatMap((choice) => [choice?.prdtypecode, choice && written(choice.confidence)]);
  const choices = Object.fromEntries(CHOICES.map((name, at) => [name, next[at]]));
  return { ...result, ...choices, label: nameOf(result).text, confidence: written(result.confidence) };
}

/** The choices after the first, one for each of RANKS; undefined where a model has fewer codes. */
function nextChoices({ top }) {
  return RANKS.map((_, rank) => top?.[rank + 1]);
}

/** A number where a text is one as a spreadsheet would write it: 007 and an EAN stay texts. */
function typed(text) {
  const isNumber =
    text.length <= LONGEST_NUMBER && text !== "" && String(Number(text)) === text && Number.isFinite(Number(text));
  return isNumber ? Number(text) : text;
}

const KEPT = ["designation", "description", "productid", "imageid"];

/** The rows that have a code, as a file that the review desk takes. */
export function reviewCsv({ header, rows }, shown) {
  const names = header.fields.map((name) => name.trim().toLowerCase());
  const kept = KEPT.filter((name) => names.includes(name));
  const head = [...kept, "predicted_prdtypecode", "confidence", ...CHOICES];
  const lines = shown.map(({ at, result }) => {
    const own = kept.map((name) => rows[at].fields[names.indexOf(name)]);
    const next = nextChoices(result).flatMap((choice) => [choice?.prdtypecode, choice?.confidence]);
    return [...own, result.prdtypecode, result.confidence, ...next, result.needs_review, result.model_version];
  });
  return [[...head, "needs_review", "model_version"], ...lines]
    .map((line) => `${line.map((one) => cell(one, ",")).join(",")}\n`)
    .join("");
}
