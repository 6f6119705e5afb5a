// The shop's time. What this device believes does not matter: every status brings the server's time, and from one to
// the next a clock counts that nobody can set. It is late by an answer's way here, so nothing ever opens too early.

let ahead = 0;

/** Takes the time from a status that has just come. */
export function set(serverTime) {
  ahead = Date.parse(serverTime) - performance.now();
}

/** The shop's time now, in ms since 1970. */
export function now() {
  return performance.now() + ahead;
}
