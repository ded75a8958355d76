/* CSV in and out, without the page: every record keeps its own text, so that what a user wrote
   goes out byte for byte and only the new columns are ours. Records with a cell that a spreadsheet
   would run are the exception. */

import { FileError } from "./file_error.js";

export const RANKS = ["second", "third", "fourth", "fifth"]; // of the choices after the first
export const CHOICES = RANKS.flatMap((rank) => [`${rank}_prdtypecode`, `${rank}_confidence`]); // their columns
export const ADDED = ["prdtypecode", "label", "confidence", ...CHOICES, "needs_review", "model_version", "error"];

// First bytes of files that are no text -> a key of texts.js. Command line: rakuten/data/text_files.py.
const KINDS = [
  [[0xd0, 0xcf, 0x11, 0xe0], "csv_is_workbook"],
  [[0x1f, 0x8b], "csv_is_archive"],
  [[0x50, 0x41, 0x52, 0x31], "csv_is_parquet"],
];
const HEAD_BYTES = 65536;

/** Bytes to text, from UTF-8 or UTF-16. The mark that Excel sets at the start (BOM) stays in the text. */
export function decode(bytes) {
  const head = new Uint8Array(bytes, 0, Math.min(bytes.byteLength, HEAD_BYTES));
  const kind = KINDS.find(([first]) => first.every((byte, at) => head[at] === byte))?.[1];
  if (kind) throw new FileError(kind);
  const encoding = encodingOf(head);
  try {
    return new TextDecoder(encoding, { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new FileError(encoding === "utf-8" ? "csv_not_utf8" : "csv_broken");
  }
}

function encodingOf(head) {
  if (head[0] === 0xff && head[1] === 0xfe) return "utf-16le";
  if (head[0] === 0xfe && head[1] === 0xff) return "utf-16be";
  // Latin letters in UTF-16 have a zero in every other byte; a text in UTF-8 has none at all.
  const zeros = [0, 0];
  head.forEach((byte, at) => {
    if (byte === 0) zeros[at % 2] += 1;
  });
  if (zeros[1] > head.length / 4) return "utf-16le";
  return zeros[0] > head.length / 4 ? "utf-16be" : "utf-8";
}

/** The separator of the first record: whichever stands in it most often outside quotes. */
export function separatorOf(text) {
  const count = { ",": 0, ";": 0, "\t": 0 };
  let quoted = false;
  for (const char of text) {
    if (char === '"') quoted = !quoted;
    else if (!quoted && (char === "\n" || char === "\r")) break;
    else if (!quoted && char in count) count[char] += 1;
  }
  return Object.keys(count).reduce((best, one) => (count[one] > count[best] ? one : best));
}

/** Records of a text, each {fields, raw, end, line}: cells, text as written, line ending, number of the first line. */
export function records(text, separator) {
  const found = [];
  let at = 0;
  let line = 1;
  while (at < text.length) {
    const record = recordAt(text, at, separator, line);
    found.push(record);
    at += record.raw.length + record.end.length;
    line += newlines(record.raw) + 1;
  }
  return found;
}

function recordAt(text, start, separator, line) {
  const fields = [];
  let at = start;
  for (;;) {
    let cell = "";
    if (text[at] === '"') {
      // A quote opens a quoted cell only at the cell's start: 12" screen is a title like another.
      for (at += 1; ; at += 1) {
        const close = text.indexOf('"', at);
        if (close < 0) throw new FileError("csv_unclosed", { line });
        cell += text.slice(at, close);
        at = close + 1;
        if (text[at] !== '"') break;
        cell += '"';
      }
    }
    let end = at;
    while (end < text.length && text[end] !== separator && text[end] !== "\n" && text[end] !== "\r") end += 1;
    fields.push(cell + text.slice(at, end));
    at = end;
    if (text[at] !== separator) break;
    at += 1;
  }
  const end = text.startsWith("\r\n", at) ? "\r\n" : text.slice(at, at + 1);
  return { fields, raw: text.slice(start, at), end, line };
}

function newlines(raw) {
  return (raw.match(/\r\n|\r|\n/g) ?? []).length;
}

/** A file's bytes as {separator, mark, header, rows}: its records, the first of which is the header. */
export function csvTable(bytes) {
  const text = decode(bytes);
  const mark = text.startsWith("\ufeff") ? "\ufeff" : "";
  const body = text.slice(mark.length);
  const separator = separatorOf(body);
  const [header, ...rows] = records(body, separator);
  if (!header) throw new FileError("csv_empty");
  return { separator, mark, header, rows };
}

// A cell that begins so is a formula to a spreadsheet, which may send what other cells hold to anybody.
const FORMULA = /^[=+\-@\t\r]/;
const NUMBER = /^[+-]?\d{1,20}(?:[.,]\d{1,20})?$/;

function isFormula(text) {
  return FORMULA.test(text) && !NUMBER.test(text);
}

/** A value as a cell of CSV, in quotes where it needs them. */
export function cell(value, separator) {
  const text = String(value ?? "");
  return /["\r\n]/.test(text) || text.includes(separator) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The names of the added columns, `predicted_` before those that a file has already. */
export function addedNames(header, added) {
  const taken = new Set(header.fields.map((name) => name.trim()));
  return added.map((name) => (taken.has(name) ? `predicted_${name}` : name));
}

/**
 * The catalogue with the added columns: {text, defused}. `results` has one object by names of `added` for each row, or
 * null. An apostrophe is put before what a spreadsheet would run; `defused` is the number of such cells.
 */
export function withResults({ separator, mark, header, rows }, results, added = ADDED) {
  let defused = 0;
  const harmless = (text) => {
    if (!isFormula(text)) return text;
    defused += 1;
    return `'${text}`;
  };
  const newline = header.end || "\n";
  const join = (record, cells) => {
    // A row that is short of cells is filled up, or the new ones would stand under the wrong names.
    const missing = Math.max(0, header.fields.length - record.fields.length);
    const own = record.fields.some(isFormula)
      ? record.fields.map((one) => cell(harmless(one), separator)).join(separator)
      : record.raw;
    return [own + separator.repeat(missing), ...cells.map((one) => cell(one, separator))].join(separator);
  };
  const parts = [mark, join(header, addedNames(header, added)), newline];
  rows.forEach((record, at) => {
    const result = results[at];
    const blank = record.raw === "";
    parts.push(blank ? "" : join(record, added.map((name) => result?.[name])), record.end);
  });
  return { text: parts.join(""), defused };
}
