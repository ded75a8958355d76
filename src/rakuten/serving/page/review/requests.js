/* The calls of the review desk. */

import { call, sendAlways } from "../api.js";

/** Whose decisions are sent: on loopback by the name that was given, with keys the service knows. */
export function setPerson(name) {
  sendAlways("X-Reviewer", name && encodeURIComponent(name));
}

function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value !== undefined);
  return new URLSearchParams(given).toString();
}

const post = (path, body = {}) => call(path, { body });

export const fetchMe = () => call("review/me");
export const fetchQueue = (filter, number, signal) => call(`review/queue?${query({ ...filter, number })}`, { signal });
export const fetchCounts = ({ order, ...filter } = {}) => call(`review/counts?${query(filter)}`);
export const fetchPicture = (id) => call(`review/products/${id}/picture`);
export const fetchExplanation = (id) => call(`review/products/${id}/explanation`);
export const sendDecision = (decision) => post("review/decisions", decision);
export const undoLast = () => post("review/undo");

export const addFrom = (from) => post("review/products", { from });
export const writeCorrections = () => post("review/export");
export const fetchDecisions = () => call("review/decisions.csv");
export const fetchTasks = () => call("review/tasks.json");
export const fetchTasksConfig = () => call("review/tasks.xml");

/** Upload a file to one of the desk's addresses. */
export function upload(path, file) {
  const form = new FormData();
  form.set("file", file, file.name);
  return post(path, form);
}
