/* Which model answers. */

import { call } from "./api.js";
import { learnNames } from "./language.js";

let known = null;
const listeners = [];

/** Call `listener` with each model that comes to answer. */
export function onModel(listener) {
  listeners.push(listener);
}

/**
 * What /model says, asked for once; and again where an answer names another version: the service
 * changes its model as it runs.
 */
export async function modelOf(version = known?.model_version, how = {}) {
  if (!known || known.model_version !== version) {
    known = await call("model", how);
    learnNames(known.classes);
    for (const listener of listeners) listener(known);
  }
  return known;
}
