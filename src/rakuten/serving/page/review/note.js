/* The note of a decision: why none of the codes fits, or what a new code is called. */

import { $ } from "../dom.js";
import { say, t } from "../language.js";

let wanted = null; // {answer, code}
let cameFrom = null;

/** @param {(answer: string, code: number|null, note: string) => void} decide */
export function startNote(decide) {
  $("note-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const note = $("note").value.trim();
    const { answer, code } = wanted;
    if (code !== null && !note) {
      say($("note-error"), () => t("note_new_missing", { code: String(code) }));
      return;
    }
    closeNote();
    decide(answer, code, note);
  });
  $("note-cancel").addEventListener("click", cancel);
  $("note").addEventListener("keydown", (event) => {
    if (event.key === "Escape") cancel();
  });
}

/** Ask for the note of "none", or for the name of a new code. */
export function openNote(answer, code = null) {
  if ($("product").hidden) return;
  wanted = { answer, code };
  cameFrom = document.activeElement;
  const [label, help] = code === null ? ["note_none", "note_none_help"] : ["note_new", "note_new_help"];
  say($("note-label"), () => t(label, { code: String(code) }));
  say($("note-help"), () => t(help));
  say($("note-error"));
  $("note").value = "";
  $("note").required = code !== null;
  $("note-form").noValidate = true; // the line below the field says what is missing
  $("note-form").hidden = false;
  $("note").focus();
}

export function closeNote() {
  $("note-form").hidden = true;
  wanted = null;
}

function cancel() {
  closeNote();
  (cameFrom && cameFrom !== document.body ? cameFrom : $("title")).focus();
}
