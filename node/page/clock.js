// The shop's time. It does not depend on the clock of this device: the status contains the server's time, and a
// monotonic clock counts from there. It is late by the latency of the response, so nothing opens too early.

let ahead = 0;

/** Sets the time from a response that was created just now. */
export function set(serverTime) {
  ahead = aheadOf(serverTime);
}

/** Sets the time from an event. Events may be delayed, so they only move the clock forward. */
export function advance(serverTime) {
  ahead = Math.max(ahead, aheadOf(serverTime));
}

/** Returns the shop's time now, in ms since 1970. */
export const now = () => performance.now() + ahead;

const aheadOf = (serverTime) => Date.parse(serverTime) - performance.now();
