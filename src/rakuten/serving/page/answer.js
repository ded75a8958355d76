/* The answer to one product: the code, how sure, and why. The review desk imports `renderExplanation`. */

import { call } from "./api.js";
import { bar, className, h } from "./dom.js";
import { VISIBLE, weighTerms, weighViews, whatDecided } from "./evidence.js";
import { chance, has, listOf, percent, t } from "./language.js";

/** Show an answer of /explain; without one the place is empty. `refused`: a line about a picture that was not sent. */
export function render(place, answer, model, refused) {
  if (!answer) place.replaceChildren();
  else {
    place.replaceChildren(
      verdict(answer.prediction, model, refused),
      ranking(answer.prediction),
      h("section", { class: "card" }, h("h3", {}, t("why")), renderExplanation(answer)),
    );
  }
}

function verdict(prediction, model, refused) {
  const state = prediction.needs_review ? "review" : "decided";
  const threshold = percent(model.threshold);
  return h(
    "div",
    { class: `card verdict for-${state}` },
    h("p", { class: `state ${state}` }, t(state)),
    h(
      "h2",
      { id: "answer-heading", tabindex: "-1" },
      h("span", { class: "code" }, String(prediction.prdtypecode)),
      " ",
      className(prediction),
    ),
    h(
      "p",
      { class: "confidence" },
      h("span", {}, `${t("confidence")} `, h("strong", {}, chance(prediction.confidence))),
      h("span", { class: "note" }, t("threshold", { threshold })),
    ),
    bar(prediction.confidence, model.threshold),
    h("p", {}, t(`${state}_text`, { threshold })),
    prediction.is_novel && h("p", {}, t("is_novel")),
    prediction.parent && h("p", {}, t("parent", { parent: prediction.parent.label })),
    h("p", { class: "note" }, refused ?? pictureLine(prediction.picture)),
  );
}

function pictureLine(word) {
  if (!word.startsWith("unusable")) return t(`picture_${word}`);
  const why = word.replace(/^unusable:?\s*/, "");
  return t("picture_unusable", { why: has(`why_${why}`) ? t(`why_${why}`) : why });
}

function ranking({ top }) {
  const line = (choice) =>
    h(
      "li",
      {},
      h("span", { class: "code" }, String(choice.prdtypecode)),
      className(choice),
      h("span", { class: "number" }, chance(choice.confidence)),
      bar(choice.confidence),
    );
  return h("section", { class: "card" }, h("h3", {}, t("top")), h("ol", { class: "ranking" }, top.map(line)));
}

/** What decided, what counted, and which training pictures are alike, as an element: the body of POST /explain. */
export function renderExplanation(explanation) {
  const { views, spoke_for, spoke_against, pictures } = explanation;
  return h(
    "div",
    { class: "why" },
    h("p", { class: "decided-by" }, sentence(explanation)),
    ...viewBars(views),
    terms(t("words_for"), weighTerms(spoke_for, views)),
    terms(t("words_against"), weighTerms(spoke_against, views), "against"),
    pictures.length > 0 && alike(pictures),
  );
}

function sentence(explanation) {
  const { views, mostly, terms: named, columns } = whatDecided(explanation);
  if (views.length === 0) return t("decided_by_nothing");
  const by = views.map((view) => {
    const readsWords = view === "words" || view === "fine-tuned text";
    const fields = ["designation_clean", "description_clean"].filter((field) => columns.includes(field));
    if (readsWords && named.length > 0 && fields.length > 0) {
      return t("by_words_of", { fields: listOf(fields.map((field) => t(`of_${field}`))) });
    }
    return has(`by_${view}`) ? t(`by_${view}`) : view;
  });
  const text = t(mostly ? "decided_mostly_by" : "decided_by", { by: listOf([...new Set(by)]) });
  return named.length > 0 ? t("decided_words", { text, words: named.join(", ") }) : `${text}.`;
}

function viewBars(views) {
  const weighed = weighViews(views);
  const shown = weighed.filter(({ share }) => share >= VISIBLE);
  const line = ({ view, share, supports }) =>
    h(
      "li",
      { class: supports ? "for" : "against" },
      h("span", {}, nameOfView(view), " ", h("span", { class: "note" }, t(supports ? "view_for" : "view_against"))),
      h("span", { class: "number" }, percent(share, 0)),
      bar(share),
    );
  const names = (some) => listOf(some.map(({ view }) => nameOfView(view)));
  const small = weighed.filter(({ share }) => share > 0 && share < VISIBLE);
  const absent = weighed.filter(({ share }) => share === 0);
  return [
    h("h4", {}, t("views")),
    h("ul", { class: "views" }, shown.map(line)),
    small.length > 0 && h("p", { class: "note" }, t("view_small", { names: names(small) })),
    absent.length > 0 && h("p", { class: "note" }, t("view_absent", { names: names(absent) })),
  ];
}

function nameOfView(view) {
  return has(`view_${view}`) ? t(`view_${view}`) : view;
}

function terms(caption, weighed, side = "for") {
  if (weighed.length === 0) return null;
  const line = (one) => {
    const fields = [...new Set(one.columns.filter((column) => column !== "style").map(nameOfField))];
    return h(
      "li",
      {},
      h("span", { class: "term" }, nameOfTerm(one)),
      fields.length > 0 && h("span", { class: "note" }, listOf(fields)),
      h("span", { class: "number" }, percent(one.share, 0)),
    );
  };
  return h("div", {}, h("h4", {}, caption), h("ul", { class: `terms ${side}` }, weighed.map(line)));
}

function nameOfField(column) {
  return has(`field_${column}`) ? t(`field_${column}`) : column;
}

function nameOfTerm({ term, pieces, style }) {
  if (pieces) return `${t("pieces")} ${pieces.join(", ")}`;
  return style ? trait(term) : term;
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
  const item = (picture) => {
    const { productid, similarity } = picture;
    return h(
      "li",
      {},
      thumbnail(picture),
      h("span", { class: "code" }, String(picture.prdtypecode)),
      className(picture),
      h("span", { class: "note" }, t("alike_similarity", { share: percent(Math.max(0, similarity), 0) })),
      h("span", { class: "note" }, t("alike_product", { productid: String(productid) })),
    );
  };
  const here = pictures.some((picture) => picture.has_picture);
  return h(
    "div",
    {},
    h("h4", {}, t("alike")),
    h("ul", { class: "gallery" }, pictures.map(item)),
    !here && h("p", { class: "note" }, t("alike_help")),
  );
}

/** A training product's picture, fetched with the key where there is one; an empty frame until it is there. */
function thumbnail({ imageid, productid, has_picture }) {
  if (!has_picture) return null;
  const image = h("img", { alt: t("alike_alt", { productid: String(productid) }), class: "thumbnail" });
  call(`training-pictures/${imageid}/${productid}`).then(
    (blob) => {
      image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
      image.src = URL.createObjectURL(blob);
    },
    () => image.remove(), // the file has gone since, or the network: the rest of the line stays
  );
  return image;
}
