// Following the sale: a stream of events while there is one, looks at the status where there is none. A hidden tab
// asks for nothing.

import * as clock from './clock.js';
import { backoff, pause } from './pause.js';
import * as shop from './shop.js';

// A node that ends drops all who listen; over this range they come back.
const SPREAD_MS = { first: 2_000, most: 15_000 };
// A stream begins with the status; where it does not, somebody in between holds it back.
const FIRST_EVENT_MS_MAX = 5_000;
// A silent stream may be dead without knowing: a look each minute or two costs little.
const SILENCE_MS_MAX = 60_000;
// Changing tabs for a moment is no reason to hang up.
const HIDDEN_MS_MAX = 10_000;
// After so many streams that brought nothing, only each tenth look tries one.
const DEAF_MAX = 3;
const DEAF_LOOKS = 10;

/** Tells each `status`, that there is `noSale`, and each `silence`, until the page is left. */
export async function follow(tell) {
  let deaf = 0;
  for (let failures = 0; ; ) {
    await visible();
    const { status, body } = await shop.status();
    if (status === 200) {
      clock.set(body.serverTime);
      tell.status(body);
    } else if (status === 404) tell.noSale();
    else tell.silence();

    failures = status === 200 ? 0 : failures + 1;
    const isStreamWorthIt = deaf < DEAF_MAX || deaf % DEAF_LOOKS === 0;
    if (status === 200) deaf = isStreamWorthIt && (await stream(tell)) ? 0 : deaf + 1;
    await pause(backoff(failures + 1, SPREAD_MS));
  }
}

/** Listens until the stream ends, for whatever reason; says whether it brought anything. */
function stream(tell) {
  return new Promise((resolve) => {
    const source = new EventSource(shop.events);
    const over = new AbortController();
    let heard = false;
    let watchdog = setTimeout(broken, FIRST_EVENT_MS_MAX);
    let hidden;

    source.addEventListener('status', ({ data }) => {
      heard = true;
      clearTimeout(watchdog);
      watchdog = setTimeout(end, SILENCE_MS_MAX * (1 + Math.random()));
      const body = JSON.parse(data);
      clock.hear(body.serverTime);
      tell.status(body);
    });
    // The browser would come back by itself, with all the others: `follow` does it by chance.
    source.addEventListener('error', broken);
    addEventListener('offline', broken, over);
    document.addEventListener('visibilitychange', () => {
      clearTimeout(hidden);
      if (document.hidden) hidden = setTimeout(end, HIDDEN_MS_MAX);
    }, over);

    function broken() {
      tell.silence();
      end();
    }
    function end() {
      source.close();
      over.abort();
      clearTimeout(watchdog);
      clearTimeout(hidden);
      resolve(heard);
    }
  });
}

function visible() {
  if (!document.hidden) return undefined;
  return new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }));
}
