/* Pictures that are given beside a file: which row each belongs to. None is read before it is needed. */

import { readEntry } from "./zip.js";

const PICTURE = /\.(?:jpe?g|png|gif|webp)$/i;
const TYPES = { jpg: "image/jpeg", jpeg: "image/jpeg", png: "image/png", gif: "image/gif", webp: "image/webp" };

export function isPicture(path) {
  return PICTURE.test(path) && !isHidden(path);
}

/** Whether a file is the system's own, such as .DS_Store, __MACOSX/._a.jpg or Thumbs.db. */
export function isHidden(path) {
  return /(?:^|\/)(?:\.|__MACOSX\/)/.test(path) || /(?:^|\/)(?:Thumbs\.db|desktop\.ini)$/i.test(path);
}

export function pictureOfFile(path, file) {
  return { path, size: file.size, read: async () => file };
}

export function pictureOfEntry(archive, entry) {
  const type = TYPES[entry.name.split(".").at(-1).toLowerCase()];
  const read = async (most) => new Blob([await readEntry(archive, entry, most)], { type });
  return { path: entry.name, size: entry.size, read };
}

/**
 * Which picture each row has: {ofRow, column, unmatched}. `ofRow` has a picture or null for each row; `column` is the
 * header's name for the column that names the files, null where they are named by the ids; `unmatched` are the pictures
 * that no row has.
 * @param {{header: {fields: string[]}, rows: {fields: string[]}[]}} catalogue
 * @param {{path: string}[]} pictures
 */
export function matchPictures({ header, rows }, pictures) {
  if (pictures.length === 0) return { ofRow: rows.map(() => null), column: null, unmatched: [] };
  const index = indexOf(pictures);
  const byIds = idsOf(header);
  const column = columnOfNames(header, rows, index);
  const ofRow = rows.map(({ fields }) => {
    const named = byIds && index.names.get(byIds(fields));
    return named ?? (column ? column.find(fields[column.at]) : null) ?? null;
  });
  const used = new Set(ofRow);
  return {
    ofRow,
    column: column ? header.fields[column.at] : null,
    unmatched: pictures.filter((picture) => !used.has(picture)),
  };
}

/** Pictures by path, by name, and by name without its ending; of several with one name the first in path order. */
function indexOf(pictures) {
  const [names, stems] = [new Map(), new Map()];
  const keep = (map, key, picture) => {
    if (!map.has(key)) map.set(key, picture);
  };
  const sorted = [...pictures].sort((a, b) => (a.path < b.path ? -1 : 1));
  for (const picture of sorted) keep(names, picture.path.toLowerCase(), picture);
  for (const picture of sorted) {
    const name = nameOf(picture.path);
    keep(names, name, picture);
    keep(stems, name.replace(PICTURE, ""), picture);
  }
  return { names, stems };
}

function nameOf(path) {
  return path.split(/[\\/]/).at(-1).trim().toLowerCase();
}

/** A function from a row's cells to the name that the challenge gives its picture; null without the two columns. */
function idsOf(header) {
  const names = header.fields.map((name) => name.trim().toLowerCase());
  const [imageid, productid] = [names.indexOf("imageid"), names.indexOf("productid")];
  if (imageid < 0 || productid < 0) return null;
  const id = (text) => (text ?? "").trim().replace(/\.0$/, ""); // as spreadsheets write whole numbers
  return (fields) => `image_${id(fields[imageid])}_product_${id(fields[productid])}.jpg`;
}

/** The column that names the most pictures: {at, find}; by whole names, or else without their endings. */
function columnOfNames(header, rows, { names, stems }) {
  const ways = [
    (text) => names.get((text ?? "").trim().toLowerCase()) ?? names.get(nameOf(text ?? "")),
    (text) => stems.get((text ?? "").trim().toLowerCase()),
  ];
  for (const find of ways) {
    const counts = header.fields.map((_, at) => rows.filter(({ fields }) => find(fields[at])).length);
    const most = Math.max(...counts);
    if (most > 0) return { at: counts.indexOf(most), find };
  }
  return null;
}
