// Follows the sale: an event stream while one works, and status requests otherwise. A hidden tab sends no requests.

import * as clock from './clock.js';
import { backoff, pause } from './pause.js';
import * as shop from './shop.js';

// A stopping node drops all listeners. They return over this range.
const SPREAD_MS = { first: 2_000, most: 15_000 };
// A stream starts with the status, unless a proxy buffers it.
const FIRST_EVENT_MS_MAX = 5_000;
// A silent connection may be dead. A request every minute or two costs little.
const SILENCE_MS_MAX = 60_000;
// Switching tabs for a moment does not close the stream.
const HIDDEN_MS_MAX = 10_000;
// After this many streams without an event, only every tenth look opens one.
const MISSES_MAX = 3;
const RETRY_EVERY = 10;

/** Follows the sale until the page is left. Calls `status`, `noSale` or `silence` of `on`. */
export async function follow(on) {
  let misses = 0;
  for (let failures = 0; ; ) {
    await visible();
    const { status, body } = await shop.status();
    if (status === 200) {
      clock.set(body.serverTime);
      on.status(body);
    } else if (status === 404) on.noSale();
    else on.silence();

    failures = status === 200 ? 0 : failures + 1;
    const isStreamWorthIt = misses < MISSES_MAX || misses % RETRY_EVERY === 0;
    if (status === 200) misses = isStreamWorthIt && (await stream(on)) ? 0 : misses + 1;
    await pause(backoff(failures + 1, SPREAD_MS));
  }
}

/** Listens until the stream ends. Resolves to true when it delivered an event. */
function stream(on) {
  return new Promise((resolve) => {
    const source = new EventSource(shop.events);
    const ended = new AbortController();
    let hasEvents = false;
    let watchdog = setTimeout(broken, FIRST_EVENT_MS_MAX);
    let hidden;

    source.addEventListener('status', ({ data }) => {
      hasEvents = true;
      clearTimeout(watchdog);
      watchdog = setTimeout(end, SILENCE_MS_MAX * (1 + Math.random()));
      const body = JSON.parse(data);
      clock.advance(body.serverTime);
      on.status(body);
    });
    // The browser would reconnect at once, together with all others. `follow` reconnects after a random time instead.
    source.addEventListener('error', broken);
    addEventListener('offline', broken, ended);
    document.addEventListener('visibilitychange', () => {
      clearTimeout(hidden);
      if (document.hidden) hidden = setTimeout(end, HIDDEN_MS_MAX);
    }, ended);

    function broken() {
      on.silence();
      end();
    }
    function end() {
      source.close();
      ended.abort();
      clearTimeout(watchdog);
      clearTimeout(hidden);
      resolve(hasEvents);
    }
  });
}

function visible() {
  if (!document.hidden) return undefined;
  return new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }));
}
