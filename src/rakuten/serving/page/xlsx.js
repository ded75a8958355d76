/* Excel workbooks (.xlsx) in and out: an archive of XML files, which the browser itself unpacks and parses. */

import { FileError } from "./file_error.js";
import { entriesOf, readEntry, zip } from "./zip.js";

export const XLSX_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
export const MOST_ROWS = 1_048_576; // of a sheet
const MOST_BYTES = 50_000_000; // of one file in the archive, unpacked
const MOST_COLUMNS = 1000;
const MOST_SHEETS = 50; // that are looked into
const LONGEST_CELL = 32_767; // characters that Excel allows
const MS_PER_DAY = 86_400_000;
const DATE_FORMATS = [
  [14, 22],
  [27, 36],
  [45, 47],
  [50, 58],
]; // numbers of Excel's own

/**
 * The sheets of a workbook that have rows, one after the other, hidden ones left out: each a list of
 * {cells, line, failed}, without empty rows. `cells` are texts; `failed` the columns without a value to read, such as a
 * formula's error.
 * @param {Blob} blob
 */
export async function* sheetsOf(blob) {
  const entries = new Map((await entriesOf(blob)).map((entry) => [entry.name, entry]));
  const parse = async (name, isNeeded = true) => {
    const entry = entries.get(name);
    if (!entry && !isNeeded) return null;
    if (!entry) throw new FileError("xlsx_broken");
    return parseXml(new TextDecoder().decode(await readEntry(blob, entry, MOST_BYTES)));
  };
  const workbook = await parse("xl/workbook.xml");
  const links = await parse("xl/_rels/workbook.xml.rels");
  const targets = new Map(
    all(links, "Relationship").map((link) => [link.getAttribute("Id"), link.getAttribute("Target")]),
  );
  const context = {
    strings: stringsOf(await parse("xl/sharedStrings.xml", false)),
    isDate: dateStyles(await parse("xl/styles.xml", false)),
    from1904: ["1", "true"].includes(all(workbook, "workbookPr")[0]?.getAttribute("date1904")),
  };
  const visible = all(workbook, "sheet").filter((sheet) => !sheet.getAttribute("state")?.match(/hidden/i));
  for (const sheet of visible.slice(0, MOST_SHEETS)) {
    const id = [...sheet.attributes].find(({ localName, prefix }) => localName === "id" && prefix)?.value;
    const target = targets.get(id) ?? "";
    const name = target.startsWith("/") ? target.slice(1) : `xl/${target}`;
    if (!entries.has(name)) continue; // a chart has a sheet of its own kind
    const rows = rowsOf(await parse(name), context);
    if (rows.length > 0) yield rows;
  }
}

function parseXml(text) {
  if (text.includes("<!DOCTYPE") || text.includes("<!ENTITY")) throw new FileError("xlsx_broken"); // none has one
  const parsed = new DOMParser().parseFromString(text, "application/xml");
  if (parsed.getElementsByTagName("parsererror").length > 0) throw new FileError("xlsx_broken");
  return parsed;
}

function all(node, name) {
  return [...node.getElementsByTagNameNS("*", name)];
}

function stringsOf(parsed) {
  return parsed ? all(parsed, "si").map(textOf) : [];
}

/** The text of a cell or shared string, in however many pieces of different looks; not how it is pronounced. */
function textOf(node) {
  const pieces = all(node, "t").filter((piece) => piece.parentNode.localName !== "rPh");
  const text = pieces.map((piece) => piece.textContent).join("");
  return text.replace(/_x([0-9A-Fa-f]{4})_/g, (_, code) => String.fromCharCode(parseInt(code, 16)));
}

/** For each style of cells whether it shows a number as a date. */
function dateStyles(parsed) {
  if (!parsed) return [];
  const own = new Map(
    all(parsed, "numFmt").map((one) => [one.getAttribute("numFmtId"), one.getAttribute("formatCode")]),
  );
  const isDate = (id) => {
    const format = own.get(id);
    if (format === undefined) return DATE_FORMATS.some(([first, last]) => Number(id) >= first && Number(id) <= last);
    return /[dmyhs]/i.test(format.replace(/"[^"]{0,99}"|\[[^\]]{0,99}\]|\\./g, "")); // without colours and texts
  };
  const [styles] = all(parsed, "cellXfs");
  return styles ? all(styles, "xf").map((style) => isDate(style.getAttribute("numFmtId"))) : [];
}

function rowsOf(parsed, context) {
  const rows = [];
  let line = 0;
  for (const row of all(parsed, "row")) {
    line = Number(row.getAttribute("r")) || line + 1;
    const [cells, failed] = [[], []];
    for (const cell of row.children) {
      if (cell.localName !== "c") continue;
      const at = columnOf(cell.getAttribute("r")) ?? cells.length;
      if (at >= MOST_COLUMNS) throw new FileError("xlsx_wide", { most: MOST_COLUMNS });
      const value = valueOf(cell, context);
      if (value === null) failed.push(at);
      while (cells.length < at) cells.push("");
      cells[at] = value ?? "";
    }
    if (failed.length > 0 || cells.some((text) => text !== "")) rows.push({ cells, line, failed });
  }
  return rows;
}

/** The column of a cell's place, from 0: of "C7" it is 2. */
function columnOf(place) {
  const letters = place?.match(/^[A-Z]{1,3}/)?.[0];
  if (!letters) return null;
  return [...letters].reduce((sum, letter) => 26 * sum + letter.charCodeAt(0) - 64, 0) - 1;
}

/** A cell's value as text; null where a formula has none or an error. */
function valueOf(cell, { strings, isDate, from1904 }) {
  const child = (name) => [...cell.children].find((one) => one.localName === name);
  const kind = cell.getAttribute("t") ?? "n";
  if (kind === "inlineStr") return child("is") ? textOf(child("is")) : "";
  const value = child("v")?.textContent;
  if (value === undefined || value === "") return child("f") && kind !== "str" ? null : "";
  if (kind === "s") return strings[Number(value)] ?? null;
  if (kind === "str" || kind === "d") return value;
  if (kind === "e") return null;
  if (kind === "b") return value === "1" ? "TRUE" : "FALSE";
  const number = Number(value);
  if (!Number.isFinite(number)) return value;
  return isDate[Number(cell.getAttribute("s"))] ? dateText(number, from1904) : String(number);
}

/** A day's number as 2026-11-28, with the time where it has one; a time of day alone as 13:45:00. */
function dateText(number, from1904) {
  // Excel counts a 29 February 1900 that never was.
  const days = from1904 ? number + 1462 : number < 60 ? number + 1 : number;
  const date = new Date(Math.round(days * 86_400) * 1000 + Date.UTC(1899, 11, 30));
  if (Number.isNaN(date.getTime())) return String(number);
  const [day, time] = date.toISOString().split(/[T.]/);
  if (number < 1 && !from1904) return time;
  return date.getTime() % MS_PER_DAY === 0 ? day : `${day} ${time}`;
}

/**
 * A workbook of one sheet as {blob, cut}: the first of `rows` is its header. Texts are never formulas; those longer
 * than Excel allows are cut, `cut` counts them.
 * @param {(string|number|boolean|null|undefined)[][]} rows
 */
export async function workbookOf(rows) {
  let cut = 0;
  const cell = (value, at, line) => {
    if (value === null || value === undefined || value === "") return "";
    const place = `r="${lettersOf(at)}${line}"`;
    if (typeof value === "number") return `<c ${place}><v>${value}</v></c>`;
    if (typeof value === "boolean") return `<c ${place} t="b"><v>${Number(value)}</v></c>`;
    if (value.length > LONGEST_CELL) cut += 1;
    const text = xmlText(value.slice(0, LONGEST_CELL));
    return `<c ${place} t="inlineStr"><is><t xml:space="preserve">${text}</t></is></c>`;
  };
  const lines = rows.map(
    (row, at) => `<row r="${at + 1}">${row.map((value, column) => cell(value, column, at + 1)).join("")}</row>`,
  );
  const office = "http://schemas.openxmlformats.org";
  const links = `${office}/officeDocument/2006/relationships`;
  const head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n';
  const main = `${office}/spreadsheetml/2006/main`;
  const kind = "application/vnd.openxmlformats-officedocument.spreadsheetml";
  const link = (id, type, target) => `<Relationship Id="${id}" Type="${links}/${type}" Target="${target}"/>`;
  const relations = (inner) =>
    `${head}<Relationships xmlns="${office}/package/2006/relationships">${inner}</Relationships>`;
  const files = {
    "[Content_Types].xml":
      `${head}<Types xmlns="${office}/package/2006/content-types">` +
      '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>' +
      `<Override PartName="/xl/workbook.xml" ContentType="${kind}.sheet.main+xml"/>` +
      `<Override PartName="/xl/worksheets/sheet1.xml" ContentType="${kind}.worksheet+xml"/></Types>`,
    "_rels/.rels": relations(link("rId1", "officeDocument", "xl/workbook.xml")),
    "xl/workbook.xml":
      `${head}<workbook xmlns="${main}" xmlns:r="${links}"><sheets>` +
      '<sheet name="prdtypecode" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": relations(link("rId1", "worksheet", "worksheets/sheet1.xml")),
    "xl/worksheets/sheet1.xml":
      `${head}<worksheet xmlns="${main}"><sheetViews><sheetView workbookViewId="0">` +
      '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews>' +
      `<sheetData>${lines.join("")}</sheetData></worksheet>`,
  };
  return { blob: await zip(files, XLSX_TYPE), cut };
}

function lettersOf(column) {
  const letter = String.fromCharCode(65 + (column % 26));
  return column < 26 ? letter : lettersOf(Math.floor(column / 26) - 1) + letter;
}

const ESCAPED = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };

/** A text in XML; what XML cannot hold is written as Excel does. */
function xmlText(text) {
  const hex = (char) => `_x${char.charCodeAt(0).toString(16).padStart(4, "0").toUpperCase()}_`;
  return text
    .toWellFormed()
    .replace(/_(?=x[0-9A-Fa-f]{4}_)/g, "_x005F_")
    .replace(/[\u0000-\u0008\u000b\u000c\u000d\u000e-\u001f\ufffe\uffff]/g, hex)
    .replace(/[&<>]/g, (char) => ESCAPED[char]);
}
