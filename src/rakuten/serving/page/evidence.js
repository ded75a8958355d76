/* What of an explanation is worth saying: views and terms by their share of the whole, without the page. */

export const VISIBLE = 0.02; // share of all contributions, below which a term is not shown
const MOST_TERMS = 6; // on each side
const MAIN = 0.6; // share of the contributions from which one view alone decided
const PIECES = 4; // pieces of words that are named in one line
const NAMED = 3; // terms that the sentence names

/** Views as {view, share, supports}, the largest first; `share` is of the absolute contributions of all. */
export function weighViews(views) {
  const total = views.reduce((sum, { contribution }) => sum + Math.abs(contribution), 0) || 1;
  return views
    .map(({ view, contribution }) => ({ view, share: Math.abs(contribution) / total, supports: contribution > 0 }))
    .sort((a, b) => b.share - a.share);
}

/**
 * Terms as {term, pieces, columns, style, share}, the largest first: a term stands once, whichever fields it is in, and
 * pieces of words are counted to the word that they are of. Those below VISIBLE are left out.
 * @param {object[]} terms of one side, as the API gives them.
 * @param {object[]} views of the explanation: a share is of the absolute contributions of all of them.
 */
export function weighTerms(terms, views) {
  const total = views.reduce((sum, { contribution }) => sum + Math.abs(contribution), 0) || 1;
  return mergeTerms(terms)
    .map(({ contribution, columns, ...more }) => ({
      ...more,
      columns: [...columns].sort().reverse(), // the title before the description
      share: Math.abs(contribution) / total,
    }))
    .filter(({ share }) => share >= VISIBLE)
    .sort((a, b) => b.share - a.share)
    .slice(0, MOST_TERMS);
}

function mergeTerms(terms) {
  const merged = new Map(); // what is shown once -> {term, columns, contribution}
  const add = (key, shown, { columns, contribution }) => {
    const one = merged.get(key) ?? { ...shown, columns: new Set(), contribution: 0 };
    for (const column of columns.split(/\s+/)) one.columns.add(column);
    one.contribution += contribution;
    merged.set(key, one);
    return one;
  };
  const isWord = ({ analyzer }) => analyzer === "word" || analyzer === "left out";
  for (const one of terms.filter(isWord)) {
    const style = one.columns === "style";
    add(`${style ? "style" : "word"} ${one.term.toLowerCase()}`, { term: one.term, style }, one);
  }
  const words = [...merged.values()].filter(({ style }) => !style);
  for (const one of terms.filter((term) => !isWord(term))) {
    const word = words.find(({ term }) => ` ${term.toLowerCase()} `.includes(one.term.toLowerCase()));
    if (word) {
      for (const column of one.columns.split(/\s+/)) word.columns.add(column);
      word.contribution += one.contribution;
    } else {
      const rest = add("pieces", { pieces: [] }, one);
      if (rest.pieces.length <= PIECES) rest.pieces.push(piece(one.term));
      if (rest.pieces.length > PIECES) rest.pieces[PIECES] = "…";
    }
  }
  return [...merged.values()];
}

/** A piece of a word, dotted where the word goes on; a space in it is the word's edge. */
function piece(term) {
  return `${term.startsWith(" ") ? "" : "…"}${term.trim()}${term.endsWith(" ") ? "" : "…"}`;
}

/**
 * What decided: {views, mostly, terms, columns}. `views` are the one or two that speak for the code the most; `mostly`
 * says that the first is most of the whole; `terms` are words to name where one of them reads words, `columns` their
 * fields.
 */
export function whatDecided({ views, spoke_for }) {
  const weighed = weighViews(views);
  const supporting = weighed.filter(({ supports, share }) => supports && share >= VISIBLE);
  if (supporting.length === 0) return { views: [], mostly: false, terms: [], columns: [] };
  const mostly = supporting[0].share >= MAIN || supporting.length === 1;
  const leading = supporting.slice(0, mostly ? 1 : 2).map(({ view }) => view);
  const readsWords = leading.some((view) => view === "words" || view === "fine-tuned text");
  const words = readsWords
    ? mergeTerms(spoke_for)
        .filter(({ term, style }) => term && !style && /\p{L}{2}/u.test(term))
        .sort((a, b) => b.contribution - a.contribution)
    : [];
  const named = withoutRepeats(words).slice(0, NAMED);
  return {
    views: leading,
    mostly,
    terms: named.map(({ term }) => term),
    columns: [...new Set(named.flatMap(({ columns }) => [...columns]))],
  };
}

/** Terms without those whose words all stand in one before them: "piscine gonflable" says "piscine" too. */
function withoutRepeats(terms) {
  const said = new Set();
  return terms.filter(({ term }) => {
    const words = term.toLowerCase().split(/\s+/);
    const isNew = words.some((word) => !said.has(word));
    for (const word of words) said.add(word);
    return isNew;
  });
}
