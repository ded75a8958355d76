/* How many products a person has decided today, in this browser. */

import { keep, kept } from "./storage.js";

const KEPT = "review-today";

const day = () => new Date().toLocaleDateString("sv"); // 2024-12-31, by the local clock

export function today(person) {
  const told = kept(KEPT);
  return told?.day === day() && told.person === person ? told.n : 0;
}

export function countToday(person, step) {
  keep(KEPT, { day: day(), person, n: Math.max(0, today(person) + step) });
}
