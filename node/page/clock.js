// The shop's time. What this device believes does not matter: a look at the status brings the server's time, and from
// one to the next a clock counts that nobody can set. It is late by an answer's way here, so nothing opens too early.

let ahead = 0;

/** Takes the time from an answer that was given just now. */
export function set(serverTime) {
  ahead = aheadOf(serverTime);
}

/** Takes the time from an event: it may have been written down long ago, so it only ever moves the clock on. */
export function hear(serverTime) {
  ahead = Math.max(ahead, aheadOf(serverTime));
}

/** The shop's time now, in ms since 1970. */
export const now = () => performance.now() + ahead;

const aheadOf = (serverTime) => Date.parse(serverTime) - performance.now();
