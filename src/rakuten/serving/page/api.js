/* Calls to the API: the key, problem+json, and waiting when the service asks for it. */

import { spoken } from "./language.js";

const KEY = "api-key";
const LONGEST_WAIT = 60; // seconds

/** An answer that is no success; code "network" when none came at all. */
export class Problem extends Error {
  constructor(code, { status = 0, detail = "", requestId = "", retryAfter = null } = {}) {
    super(`${code} ${detail}`.trim());
    Object.assign(this, { code, status, detail, requestId, retryAfter });
  }

  /** Whether the same call may succeed later. */
  get passing() {
    return this.status === 503 || this.status === 429;
  }
}

let key = null;
let refused = () => {};
const always = {}; // headers of every call
try {
  key = sessionStorage.getItem(KEY);
} catch {
  // A browser that keeps nothing: the key then lasts as long as the page.
}

export function keepKey(given) {
  key = given;
  try {
    sessionStorage.setItem(KEY, given); // this tab only, gone with it
  } catch {
    // as above
  }
}

/** Send a header with every call from now on; without a value no longer. */
export function sendAlways(name, value) {
  if (value) always[name] = value;
  else delete always[name];
}

/** What to do when the service asks for a key. */
export function onRefused(listener) {
  refused = listener;
}

/**
 * Call the API and return what it answers.
 * @param {{body?: object|FormData, signal?: AbortSignal, tries?: number, onWait?: (seconds: number) => void}} how
 *   `tries`: calls at most, while the service answers that it is busy.
 */
export async function call(path, { body, signal, tries = 1, onWait } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await once(path, body, signal);
    } catch (problem) {
      if (!problem.passing || attempt >= tries) throw problem;
      const seconds = Math.min(problem.retryAfter ?? 2 ** attempt, LONGEST_WAIT);
      onWait?.(seconds);
      await pause(seconds, signal);
    }
  }
}

async function once(path, body, signal) {
  // The language that the page speaks, whichever the browser is set to.
  const headers = { Accept: "application/json", "Accept-Language": spoken() };
  if (key) headers["X-API-Key"] = key;
  if (body && !(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  Object.assign(headers, always);
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body, signal });
    if (response.ok) return await contentOf(response);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("network");
  }
  if (response.status === 401) refused();
  throw await problemOf(response);
}

/** JSON as what it says, anything else as a Blob. */
function contentOf(response) {
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  return isJson ? response.json() : response.blob();
}

async function problemOf(response) {
  // A proxy in between may answer with a page of its own: then only the status is known.
  const told = await response.json().catch(() => ({}));
  const seconds = Number(response.headers.get("Retry-After") ?? NaN);
  return new Problem(told.code ?? "unknown", {
    status: response.status,
    detail: told.detail ?? "",
    requestId: told.request_id ?? response.headers.get("X-Request-ID") ?? "",
    retryAfter: Number.isFinite(seconds) ? Math.max(0, seconds) : null,
  });
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
