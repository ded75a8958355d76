/* The review desk: who decides, the tabs, and which part of the page is open. */

import { keepKey, onRefused } from "../api.js";
import { $, startTabs } from "../dom.js";
import { onLanguage, problemLine, say, start as speak, t } from "../language.js";
import { modelOf, onModel } from "../model.js";
import { TEXTS } from "../texts.js";
import { begin, decideNow, refilter, startDecide } from "./decide.js";
import { openDisputes, startDisputes } from "./disputes.js";
import { currentFilter, hasFilter, renderFilters, startFilters } from "./filters.js";
import { setClasses } from "./names.js";
import { openOverview, startOverview } from "./overview.js";
import { fetchMe, setPerson } from "./requests.js";
import { keep, kept } from "./storage.js";
import { REVIEW_TEXTS } from "./texts.js";
import { startTools } from "./tools.js";

Object.assign(TEXTS, REVIEW_TEXTS);

const NAME = "reviewer";
const TRIES = 20; // of a service that is starting
const AGAIN = 5000; // milliseconds, where no service is

const select = startTabs(
  ["decide", "disputes", "overview", "tools"].map((name) => $(`tab-${name}`)),
  (tab) => {
    if (tab.id === "tab-disputes") openDisputes();
    if (tab.id === "tab-overview") openOverview();
  },
);

function askKey() {
  $("desk").hidden = true;
  $("key-form").hidden = false;
  $("key").focus();
}

function askName() {
  $("person-form").hidden = false;
  $("person-name").value = kept(NAME, "");
  $("person-name").focus();
}

function startPerson() {
  onRefused(askKey);
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    keepKey($("key").value.trim());
    $("key").value = "";
    $("key-form").hidden = true;
    enter();
  });
  $("person-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = $("person-name").value.trim();
    if (!name) return;
    keep(NAME, name);
    $("person-form").hidden = true;
    enter();
  });
  $("person").addEventListener("click", askName);
}

/** Find out who decides, then open the desk. */
async function enter() {
  try {
    setPerson(kept(NAME, ""));
    const me = await fetchMe();
    say($("page-error"));
    if (me.role === "classify") {
      stopped({ status: 403 });
      return;
    }
    if (!me.keys_required && !kept(NAME)) {
      askName();
      return;
    }
    await modelOf(undefined, { tries: TRIES, onWait: () => say($("page-error"), () => t("error_not_ready")) });
    say($("page-error"));
    open(me);
  } catch (problem) {
    if (problem.status === 403) stopped(problem);
    else say($("page-error"), () => problemLine(problem));
    if (problem.code === "network" || problem.passing) setTimeout(enter, AGAIN);
  }
}

function open({ keys_required, person, role }) {
  const name = keys_required ? person : kept(NAME);
  setPerson(name); // with keys the service knows, and does not read it
  $("desk").hidden = false;
  $("person").hidden = keys_required;
  say($("person"), () => name);
  $("tab-tools").hidden = role !== "administer";
  nameButton();
  begin({ person: name, role }, stopped);
  refilter(currentFilter());
}

/** The button shows a name; what it does is said to those who listen. */
function nameButton() {
  $("person").setAttribute("aria-label", t("person_is", { name: $("person").textContent }));
}

/** The service takes nothing from this person: say why, and ask for another key. */
function stopped(problem) {
  if (problem.status === 403) askKey();
  say($("page-error"), () => (problem.status === 403 ? t("rights_none") : problemLine(problem)));
}

// A file that misses its place must not replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

speak($("language"));
startPerson();
startDecide({ hasFilter });
startFilters(refilter);
startDisputes((product) => {
  select($("tab-decide"));
  decideNow(product);
});
startOverview();
onLanguage(nameButton);
startTools(() => refilter(currentFilter()));
onModel(({ classes }) => {
  setClasses(classes);
  renderFilters();
});
enter();
