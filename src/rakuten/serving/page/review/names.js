/* The codes: their names in the page's language, and finding one by a few letters of its number or name. */

const PROPOSAL = /^[1-9]\d{1,8}$/; // a number that could be a code

let classes = []; // of /model

export function setClasses(given) {
  classes = given;
}

export const allCodes = () => classes.map(({ prdtypecode }) => prdtypecode);

/** A code's name in the page's language; `otherwise` for a code that the model does not know. */
export function nameOf(code, otherwise = "") {
  const known = classes.find(({ prdtypecode }) => prdtypecode === code);
  return known?.names?.[document.documentElement.lang] ?? known?.label ?? otherwise;
}

/** Text as it is compared: without case and accents. */
export function folded(text) {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}

/**
 * The codes that a text names, the best first: by the start of the number, then by starts of words of the French or
 * the English name, then by any part of one. `likely` are codes that come first among equals.
 */
export function findCodes(text, likely = []) {
  const words = folded(text).split(/\s+/).filter(Boolean);
  const found = [];
  for (const { prdtypecode, label, names } of classes) {
    const name = folded([label, ...Object.values(names ?? {})].join(" "));
    const rank = Math.max(0, ...words.map((word) => rankOf(word, String(prdtypecode), name)));
    const place = likely.indexOf(prdtypecode);
    if (rank < Infinity) found.push({ code: prdtypecode, order: [rank, place < 0 ? likely.length : place, prdtypecode] });
  }
  found.sort((one, other) => {
    const at = one.order.findIndex((value, index) => value !== other.order[index]);
    return at < 0 ? 0 : one.order[at] - other.order[at];
  });
  return found.map(({ code }) => code);
}

function rankOf(word, number, name) {
  if (number === word) return 0;
  if (number.startsWith(word)) return 1;
  if (name.split(/[^\p{L}\p{N}]+/u).some((part) => part.startsWith(word))) return 2;
  return name.includes(word) ? 3 : Infinity;
}

/** The number that a text proposes as a new code; null if it is none, or a code already. */
export function proposed(text) {
  const number = text.trim();
  return PROPOSAL.test(number) && !allCodes().includes(Number(number)) ? Number(number) : null;
}
