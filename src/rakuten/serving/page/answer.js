/* The answer to one product: the code, how sure, and why. */

import { bar, french, h, table } from "./dom.js";
import { chance, has, percent, signed, t } from "./language.js";

const PIECES = 4; // pieces of words that are named in one line

/** Show an answer of /explain; without one the place is empty. */
export function render(place, answer, model) {
  if (!answer) place.replaceChildren();
  else place.replaceChildren(verdict(answer.prediction, model), ranking(answer.prediction), reasons(answer));
}

function verdict(prediction, model) {
  const state = prediction.needs_review ? "review" : "decided";
  const threshold = percent(model.threshold);
  return h(
    "div",
    { class: "card verdict" },
    h("p", { class: `state ${state}` }, t(state)),
    h(
      "h2",
      { id: "answer-heading", tabindex: "-1" },
      h("span", { class: "code" }, String(prediction.prdtypecode)),
      " ",
      french(prediction.label),
    ),
    h(
      "p",
      { class: "confidence" },
      h("span", {}, `${t("confidence")} `, h("strong", {}, chance(prediction.confidence))),
      h("span", { class: "note" }, t("threshold", { threshold })),
    ),
    bar(prediction.confidence, model.threshold),
    h("p", {}, t(`${state}_text`, { threshold })),
    h("p", { class: "note" }, pictureLine(prediction.picture)),
  );
}

function pictureLine(word) {
  if (!word.startsWith("unusable")) return t(`picture_${word}`);
  const why = word.replace(/^unusable:?\s*/, "");
  return t("picture_unusable", { why: has(`why_${why}`) ? t(`why_${why}`) : why });
}

function ranking({ top }) {
  const line = ({ prdtypecode, label, confidence }) =>
    h(
      "li",
      {},
      h("span", { class: "code" }, String(prdtypecode)),
      french(label),
      h("span", { class: "number" }, chance(confidence)),
      bar(confidence),
    );
  return h("section", { class: "card" }, h("h3", {}, t("top")), h("ol", { class: "ranking" }, top.map(line)));
}

function reasons({ views, spoke_for, spoke_against, pictures }) {
  return h(
    "section",
    { class: "card why" },
    h("h3", {}, t("why")),
    h("h4", {}, t("views")),
    h("ul", { class: "views" }, views.map(viewLine)),
    h("div", { class: "words" }, words(t("words_for"), spoke_for), words(t("words_against"), spoke_against)),
    h("p", { class: "note" }, t("weights_help")),
    pictures.length > 0 && alike(pictures),
  );
}

function viewLine({ view, contribution, share }) {
  const direction = share === 0 ? "absent" : contribution < 0 ? "against" : "for";
  const name = has(`view_${view}`) ? t(`view_${view}`) : view;
  return h(
    "li",
    { class: direction },
    h("span", {}, name, " ", h("span", { class: "note" }, t(`view_${direction}`))),
    h("span", { class: "number" }, percent(share, 0)),
    bar(share),
  );
}

function words(caption, terms) {
  const line = ({ term, field, contribution }) =>
    h(
      "li",
      {},
      h("span", {}, h("span", { class: "term" }, term), " ", h("span", { class: "note" }, field)),
      h("span", { class: "number" }, signed(contribution)),
    );
  const lines = folded(terms).map(line);
  const list = lines.length > 0 ? h("ul", { class: "terms" }, lines) : h("p", { class: "note" }, t("no_words"));
  return h("div", {}, h("h4", {}, caption), list);
}

/** Terms with the pieces of words of one field in one line: six pieces of "piscine" say no more than one. */
function folded(terms) {
  const lines = [];
  const pieces = new Map();
  for (const { columns, analyzer, term, contribution } of terms) {
    const field = columns.split(/\s+/).map((name) => (has(`field_${name}`) ? t(`field_${name}`) : name)).join(" + ");
    if (analyzer === "word" || analyzer === "left out") {
      lines.push({ term: columns === "style" ? trait(term) : term, field, contribution });
    } else if (pieces.has(columns)) {
      const line = pieces.get(columns);
      line.contribution += contribution;
      line.shown.push(piece(term));
    } else {
      pieces.set(columns, { field, contribution, shown: [piece(term)] });
    }
  }
  for (const { field, contribution, shown } of pieces.values()) {
    const named = shown.slice(0, PIECES).join(", ") + (shown.length > PIECES ? ", …" : "");
    lines.push({ term: `${t("pieces")} ${named}`, field, contribution });
  }
  return lines.sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution));
}

/** A piece of a word, dotted where the word goes on; a space in it is the word's edge. */
function piece(term) {
  return `${term.startsWith(" ") ? "" : "…"}${term.trim()}${term.endsWith(" ") ? "" : "…"}`;
}

/** A token of src/rakuten/features/style.py in words; its level, a number at the end, is left out. */
function trait(term) {
  const [, where, code] = term.match(/^(title|text)_u(\d+)$/) ?? [];
  if (where) return t(`trait_${where}_mark`, { mark: String.fromCodePoint(Number(code)) });
  if (term.startsWith("tag_")) return t("trait_tag", { mark: term.slice(4) });
  const key = `trait_${term.replace(/\d{1,9}$/, "")}`;
  return has(key) ? t(key) : term;
}

function alike(pictures) {
  const rows = pictures.map(({ productid, prdtypecode, label, similarity }) => [
    String(productid),
    h("span", {}, h("span", { class: "code" }, String(prdtypecode)), " ", french(label)),
    percent(similarity, 0),
  ]);
  const head = [t("alike_product"), t("alike_type"), t("alike_similarity")];
  return h("div", {}, table(t("alike"), head, rows, [2]), h("p", { class: "note" }, t("alike_help")));
}
