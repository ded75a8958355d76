/*
 * Decisions on their way to the service. Each is kept in the browser until the service has it: a closed tab or a lost
 * connection loses none. One that is sent twice counts once, by its person, product and time.
 */

import { sendDecision } from "./requests.js";
import { forget, keep, kept, keptNames } from "./storage.js";

const PREFIX = "review-decision:"; // one entry each: two tabs never write over one another's
const [FIRST_WAIT, LONGEST_WAIT] = [1000, 30_000]; // milliseconds between two tries
const FINAL = new Set([400, 404, 409, 413, 422]); // the same decision would be refused again

let person = null;
let sending = null; // the promise of the run that sends
let inFlight = null; // name of the entry that the service is being given
let wait = FIRST_WAIT;
let timer = 0;
let isAway = false;
let listeners = { changed: () => {}, sent: () => {}, refused: () => {}, stopped: () => {} };

const names = () => keptNames(PREFIX).filter((name) => kept(name)?.person === person);

/**
 * Send what waits for this person, and whatever comes.
 * @param {{changed: Function, sent: Function, refused: Function, stopped: Function}} given
 *   `changed(n, isAway)`: n decisions wait; `sent(body)`: the service has this one; `refused(entry, problem)`: it will
 *   never take it; `stopped(problem)`: it takes none from this person.
 */
export function startOutbox(name, given) {
  person = name;
  listeners = given;
  tell();
  send();
}

/** Put a decision in; `about` goes with it, for messages. Returns its name. */
export function putDecision(body, about) {
  const name = `${PREFIX}${body.decided_at} ${body.product_id}`;
  keep(name, { person, body, about });
  tell();
  send();
  return name;
}

/** Take a decision back before the service was given it; false: too late. */
export function takeDecision(name) {
  if (name === inFlight || !kept(name)) return false;
  forget(name);
  tell();
  return true;
}

/** Ids of the products whose decisions wait. */
export function waitingProducts() {
  return names().map((name) => kept(name).body.product_id);
}

/** Send what waits now. Resolves once all is sent, or the service is away. */
export function send() {
  sending ??= sendAll().finally(() => {
    sending = null;
    tell();
  });
  return sending;
}

async function sendAll() {
  clearTimeout(timer);
  for (let name = names()[0]; name; name = names()[0]) {
    const entry = kept(name);
    inFlight = name;
    try {
      await sendDecision(entry.body);
      [isAway, wait] = [false, FIRST_WAIT];
      forget(name);
      listeners.sent(entry.body);
    } catch (problem) {
      if (FINAL.has(problem.status)) {
        forget(name);
        listeners.refused(entry, problem);
      } else if (problem.status === 401 || problem.status === 403) {
        listeners.stopped(problem);
        return;
      } else {
        isAway = true;
        timer = setTimeout(send, 1000 * (problem.retryAfter ?? 0) || wait);
        wait = Math.min(2 * wait, LONGEST_WAIT);
        return;
      }
    } finally {
      inFlight = null;
    }
    tell();
  }
}

function tell() {
  listeners.changed(names().length, isAway);
}

window.addEventListener("online", send);
