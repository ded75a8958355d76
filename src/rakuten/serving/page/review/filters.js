/* Which products, and in what order. The address keeps it, so that it can be passed on. */

import { $, h } from "../dom.js";
import { onLanguage, percent, t } from "../language.js";
import { allCodes } from "./names.js";
import { codeName, languageName, sourceName } from "./product.js";
import { fetchCounts } from "./requests.js";

const NAMES = ["search", "code", "max_confidence", "language", "source", "order"];
const ORDERS = ["teaching", "confidence", "oldest"];
const SHARES = [0.9, 0.7, 0.5, 0.3];
const TYPING = 300; // milliseconds without a letter, after which a search is meant

let counts = { predicted: {}, language: {}, source: {} };
let values = {};

/** The filter as the service takes it. */
export const currentFilter = () => Object.fromEntries(Object.entries(values).filter(([, value]) => value));

/** Whether products are left out. */
export const hasFilter = () => NAMES.some((name) => name !== "order" && values[name]);

/** @param {(filter: object) => void} changed */
export function startFilters(changed) {
  const address = new URLSearchParams(location.search);
  values = Object.fromEntries(NAMES.map((name) => [name, address.get(name) ?? ""]));
  field("search").value = values.search;
  let timer = 0;
  const take = () => {
    clearTimeout(timer);
    values = Object.fromEntries(NAMES.map((name) => [name, field(name).value.trim()]));
    if (values.order === ORDERS[0]) values.order = "";
    const given = new URLSearchParams(currentFilter()).toString();
    history.replaceState(null, "", given ? `?${given}` : location.pathname);
    renderSummary();
    changed(currentFilter());
  };
  const form = $("filters-form");
  form.addEventListener("input", ({ target }) => {
    clearTimeout(timer);
    timer = setTimeout(take, target.type === "text" ? TYPING : 0);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take();
  });
  form.addEventListener("reset", (event) => {
    event.preventDefault(); // a form goes back to how it came, which is not empty here
    for (const name of NAMES) field(name).value = "";
    field("order").value = ORDERS[0];
    take();
  });
  $("filters").addEventListener("toggle", () => $("filters").open && loadCounts());
  onLanguage(renderFilters);
}

/** Ask what there is to choose from; without an answer the choices stay as they are. */
async function loadCounts() {
  try {
    counts = await fetchCounts();
    renderFilters();
  } catch {
    // the queue says that the service is away
  }
}

const field = (name) => $("filters-form").elements[name];

export function renderFilters() {
  const counted = (name, number) => (number === undefined ? name : `${name} (${number})`);
  const fromCounts = (all, name) => Object.entries(all ?? {}).map(([key, number]) => [key, counted(name(key), number)]);
  const codes = allCodes().map((code) => [String(code), counted(codeName(code), counts.predicted?.[code] ?? undefined)]);
  fill("code", [["", t("filter_any_code")], ...codes]);
  fill("max_confidence", [["", t("filter_any")], ...SHARES.map((share) => [String(share), t("filter_most", { share: percent(share, 0) })])]);
  fill("language", [["", t("filter_any")], ...fromCounts(counts.language, languageName)]);
  fill("source", [["", t("filter_any")], ...fromCounts(counts.source, sourceName)]);
  fill("order", ORDERS.map((order) => [order, t(`order_${order}`)]));
  renderSummary();
}

function fill(name, options) {
  const wanted = values[name] || options[0][0];
  if (!options.some(([value]) => value === wanted)) options.push([wanted, wanted]); // from the address
  field(name).replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
  field(name).value = wanted;
}

function renderSummary() {
  const n = Object.keys(currentFilter()).length;
  $("filters-summary").textContent = n > 0 ? t("filters_on", { n }) : t("filters");
}
