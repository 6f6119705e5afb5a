// Redis' time, which decides when a sale opens and closes: taken from each report, and advanced by a monotonic clock.

// A delayed report makes this clock late, never early. A larger difference means that Redis' clock was set, and is
// adopted.
const STEP_MS = 2_000;

let ahead;

/** Sets the clock by the time of a report. */
export function sync(time) {
  const offset = time - performance.now();
  const isStep = ahead === undefined || Math.abs(offset - ahead) > STEP_MS;
  ahead = isStep ? offset : Math.max(ahead, offset);
}

/** The time now, in ms since 1970. */
export const now = () => performance.now() + (ahead ?? 0);
