// Random pauses, so that refused clients do not all return at once.

/** Returns `askedFor` plus a random time. Its range doubles with each failure. */
export function backoff(failures, { first, most }, askedFor = 0) {
  return askedFor + Math.random() * Math.min(most, first * 2 ** (failures - 1));
}

/** Waits for this time, or until the browser is online again. */
export function pause(ms) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    addEventListener('online', done);
    function done() {
      clearTimeout(timer);
      removeEventListener('online', done);
      resolve();
    }
  });
}
