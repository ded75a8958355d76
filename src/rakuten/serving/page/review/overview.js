/* How far the queue is: products, decisions by person, agreement. */

import { bar, $, h } from "../dom.js";
import { number, onLanguage, problemLine, say, t } from "../language.js";
import { currentFilter, hasFilter } from "./filters.js";
import { codeName, languageName, sourceName } from "./product.js";
import { fetchCounts } from "./requests.js";

let counts = null;

export function startOverview() {
  onLanguage(render);
}

export async function openOverview() {
  try {
    counts = await fetchCounts(currentFilter());
    say($("overview-error"));
    render();
  } catch (problem) {
    say($("overview-error"), () => problemLine(problem));
  }
}

function render() {
  if (!counts) return;
  const same = (key) => key;
  $("overview-tables").replaceChildren(
    bars(t("overview_states"), counts.state, (state) => t(`state_${state}`), t("overview_nothing")),
    bars(t("overview_people"), counts.person, same, t("overview_nobody")),
    h("section", { class: "card" }, h("h2", {}, t("overview_agreement")), h("p", {}, agreementLine())),
    bars(t("overview_sources"), counts.source, sourceName, t("overview_nothing")),
    bars(t("overview_languages"), counts.language, languageName, t("overview_nothing")),
    bars(t("overview_codes"), counts.predicted, (code) => codeName(Number(code)), t("overview_nothing")),
    ...(hasFilter() ? [h("p", { class: "note" }, t("overview_filtered"))] : []),
  );
}

function agreementLine() {
  if (!counts.agreement) return t("overview_no_kappa");
  const kappa = number(counts.agreement.kappa, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  return t("overview_kappa", { kappa, n: counts.agreement.pairs });
}

/** A heading and a line for each count, the largest first. */
function bars(heading, values, name, none) {
  const entries = Object.entries(values ?? {}).sort(([, one], [, other]) => other - one);
  const most = Math.max(1, ...entries.map(([, n]) => n));
  const line = ([key, n]) =>
    h("li", {}, h("span", {}, name(key)), h("span", { class: "number" }, number(n)), bar(n / most));
  const list = entries.length > 0 ? h("ul", { class: "views" }, entries.map(line)) : h("p", { class: "note" }, none);
  return h("section", { class: "card" }, h("h2", {}, heading), list);
}
