// Redis' time, which decides when a sale opens and closes: from each report, and a clock that nobody can set in between.

// A report that was held up makes the clock late, never early; a clock that was set is believed.
const STEP_MS = 2_000;

let ahead;

/** Takes the time from a report. */
export function hear(time) {
  const heard = time - performance.now();
  const isStep = ahead === undefined || Math.abs(heard - ahead) > STEP_MS;
  ahead = isStep ? heard : Math.max(ahead, heard);
}

/** The time now, in ms since 1970. */
export const now = () => performance.now() + (ahead ?? 0);
