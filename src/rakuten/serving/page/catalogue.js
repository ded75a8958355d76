/* A catalogue from a CSV file or a workbook: its records, and the products in them. */

import { cell, csvTable } from "./csv.js";
import { FileError } from "./file_error.js";
import { sheetsOf } from "./xlsx.js";
import { entriesOf } from "./zip.js";

const SEPARATOR = ","; // of a workbook's rows, where they are written as CSV
const MARK = "\ufeff"; // by which Excel reads it as UTF-8

/** What a file is: {kind: "table"}, {kind: "workbook"} or {kind: "archive", entries}. */
export async function kindOf(file) {
  const start = new TextDecoder("latin1").decode(await file.slice(0, 4).arrayBuffer());
  if (start !== "PK\x03\x04" && start !== "PK\x05\x06") return { kind: "table" };
  const entries = await entriesOf(file);
  const names = new Set(entries.map(({ name }) => name));
  if (names.has("xl/workbook.xml")) return { kind: "workbook" };
  if (names.has("[Content_Types].xml") || names.has("mimetype")) throw new FileError("csv_is_workbook");
  return { kind: "archive", entries };
}

/**
 * A catalogue from a file: {separator, mark, header, rows, products, isWorkbook}. `products` has {designation,
 * description} or {error, values} for each row, and null for a blank line.
 * @param {Blob} file
 * @param {"table"|"workbook"} kind
 */
export async function readCatalogue(file, kind) {
  if (kind === "table") return withProducts(csvTable(await file.arrayBuffer()), false);
  let first = null;
  for await (const sheet of sheetsOf(file)) {
    const table = sheetTable(sheet);
    if (namesOf(table).includes("designation")) return withProducts(table, true);
    first ??= table;
  }
  if (!first) throw new FileError("csv_empty");
  return withProducts(first, true); // which says that it has no such column
}

function namesOf({ header }) {
  return header.fields.map((name) => name.trim().toLowerCase());
}

function withProducts(table, isWorkbook) {
  const names = namesOf(table);
  const [title, text] = [names.indexOf("designation"), names.indexOf("description")];
  if (title < 0) throw new FileError("csv_no_title", { columns: table.header.fields.join(", ") });
  const products = table.rows.map(({ fields, raw, failed }) => {
    if (raw === "") return null;
    if (fields.length !== names.length) {
      return { error: "row_cells", values: { n: fields.length, wanted: names.length } };
    }
    if (failed?.some((at) => at === title || at === text)) return { error: "row_failed", values: {} };
    return { designation: fields[title], description: (text < 0 ? "" : fields[text]) || null };
  });
  if (!products.some(Boolean)) throw new FileError("csv_empty");
  return { ...table, products, isWorkbook };
}

/** A sheet as the records of a CSV file, its rows filled up to the header's width. */
function sheetTable([first, ...rows]) {
  const width = first.cells.length;
  const record = ({ cells, line, failed }) => {
    const fields = [...cells, ...Array(Math.max(0, width - cells.length)).fill("")];
    while (fields.length > width && fields.at(-1) === "") fields.pop();
    return { fields, raw: fields.map((one) => cell(one, SEPARATOR)).join(SEPARATOR), end: "\r\n", line, failed };
  };
  return { separator: SEPARATOR, mark: MARK, header: record(first), rows: rows.map(record) };
}
