/* Products about which people disagree, and who said what. */

import { $, h } from "../dom.js";
import { onLanguage, problemLine, say, t } from "../language.js";
import { saidList, titleOf } from "./product.js";
import { fetchQueue } from "./requests.js";

const SHOWN = 20;

let products = null;
let open = () => {};

/** @param {(product: object) => void} decide what to do with the one that is chosen */
export function startDisputes(decide) {
  open = decide;
  onLanguage(render);
}

export async function openDisputes() {
  try {
    ({ products } = await fetchQueue({ state: "disputed" }, SHOWN));
    say($("disputes-error"));
    render();
  } catch (problem) {
    say($("disputes-error"), () => problemLine(problem));
  }
}

function render() {
  if (!products) return;
  const text = products.length === 0 ? "disputes_none" : products.length === SHOWN ? "disputes_more" : null;
  say($("disputes-status"), text && (() => t(text, { n: SHOWN })));
  $("disputes-list").replaceChildren(...products.map(lineOf));
}

function lineOf(product) {
  const title = titleOf(product);
  const button = h("button", { class: "quiet", type: "button", "aria-label": t("dispute_open_name", { title }) }, t("dispute_open"));
  button.addEventListener("click", () => open(product));
  return h("li", { class: "card" }, h("h2", {}, title), saidList(product.decisions ?? []), button);
}
