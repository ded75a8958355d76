/* Why the model thinks so, when it is asked for. */

import { renderExplanation } from "../answer.js";
import { $ } from "../dom.js";
import { onLanguage, problemLine, say, t } from "../language.js";
import { fetchExplanation } from "./requests.js";

let idOf = () => undefined; // of the product that is shown
let explanation = null;

export function startWhy(given) {
  idOf = given;
  onLanguage(render);
}

function render() {
  $("why-answer").replaceChildren(...(explanation ? [renderExplanation(explanation)] : []));
}

export function closeWhy() {
  $("why").hidden = true;
  $("why-button").setAttribute("aria-expanded", "false");
  explanation = null;
  render();
}

export function toggleWhy() {
  const id = idOf();
  if (!$("why").hidden || id === undefined) {
    closeWhy();
    return;
  }
  $("why").hidden = false;
  $("why-button").setAttribute("aria-expanded", "true");
  explain(id);
}

async function explain(id) {
  say($("why-error"));
  say($("why-status"), () => t("why_waiting"));
  try {
    const told = await fetchExplanation(id);
    if (idOf() !== id || $("why").hidden) return;
    explanation = told;
    render();
    $("why-heading").focus({ preventScroll: true });
    $("why").scrollIntoView({ block: "nearest" });
  } catch (problem) {
    const line = () => (problem.status === 404 ? t("product_gone") : problemLine(problem));
    if (idOf() === id) say($("why-error"), line);
  } finally {
    if (idOf() === id) say($("why-status"));
  }
}
