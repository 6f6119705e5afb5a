// Waiting: always by chance, so that a crowd that was sent away does not come back all at once.

/** A pause after so many failures in a row: never shorter than asked for, and spread over a range that doubles. */
export function backoff(failures, { first, most }, askedFor = 0) {
  return askedFor + Math.random() * Math.min(most, first * 2 ** (failures - 1));
}

/** Waits; a connection that comes back ends it. */
export function pause(ms) {
  return new Promise((resolve) => {
    const timer = setTimeout(over, ms);
    addEventListener('online', over);
    function over() {
      clearTimeout(timer);
      removeEventListener('online', over);
      resolve();
    }
  });
}
