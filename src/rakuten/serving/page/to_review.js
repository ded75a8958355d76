/* The way of a file's rows into the review desk, where the key may do that. */

import { call } from "./api.js";
import { $ } from "./dom.js";
import { problemLine, say, t } from "./language.js";
import { onModel } from "./model.js";
import { reviewCsv } from "./results.js";

let mayAdd = false;
let offered = { rows: [], catalogue: null, name: "" };
let isSending = false;

/** Offer to send these rows of the catalogue; those that need no review are only a sample to draw from. */
export function offerReview(rows, catalogue, name) {
  offered = { rows: rows.filter(({ result }) => !result.text), catalogue, name };
  const n = offered.rows.filter(({ result }) => result.needs_review).length;
  $("send-review").hidden = !mayAdd || n === 0;
  $("send-review").textContent = t("send_review", { n });
}

async function send() {
  if (isSending) return;
  isSending = true;
  $("send-review").setAttribute("aria-disabled", "true");
  try {
    const form = new FormData();
    const file = new Blob([reviewCsv(offered.catalogue, offered.rows)], { type: "text/csv" });
    form.set("file", file, `${offered.name || "products"}.csv`);
    const told = await call("review/products", { body: form });
    say($("review-status"), () => t("review_sent", { ...told, n: told.new }));
    $("review-desk").hidden = false;
  } catch (problem) {
    say($("review-status"), () => problemLine(problem));
  } finally {
    isSending = false;
    $("send-review").setAttribute("aria-disabled", "false");
  }
}

/** Whether this key, or this machine, may add products; a service without a review desk says 404. */
async function askRole() {
  try {
    mayAdd = (await call("review/me")).role === "administer";
  } catch {
    mayAdd = false;
  }
  offerReview(offered.rows, offered.catalogue, offered.name);
}

export function start() {
  $("send-review").addEventListener("click", send);
  let asked = false;
  onModel(() => {
    if (!asked) askRole();
    asked = true;
  });
}
