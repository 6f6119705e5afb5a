// Following a sale: a stream of reports, begun anew whenever it ends or falls silent. A hidden tab asks for nothing.

// The coordinator speaks once a second at least; with so much silence nobody should believe what stands here.
const SILENCE_MS_MAX = 3_000;
const PAUSE_MS = { least: 500, most: 1_500 };

/** Tells `sales` (those there are), the `history` and each `live` report, `noSale`, and `silence`; for ever. */
export async function follow(sale, tell) {
  for (;;) {
    await visible();
    const sales = await listed();
    if (!sales) tell.silence();
    else {
      tell.sales(sales);
      const isThere = sale === null ? sales.default : sales.sales.some(({ id }) => id === sale);
      if (isThere) await stream(sale, tell);
      else tell.noSale();
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS.least + Math.random() * (PAUSE_MS.most - PAUSE_MS.least)));
  }
}

async function listed() {
  try {
    const response = await fetch('/live/sales', { signal: AbortSignal.timeout(SILENCE_MS_MAX) });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/** Listens until the stream ends, for whatever reason. */
function stream(sale, tell) {
  return new Promise((resolve) => {
    const source = new EventSource(sale === null ? '/live/sale/events' : `/live/sales/${encodeURIComponent(sale)}/events`);
    const over = new AbortController();
    let watchdog = setTimeout(broken, SILENCE_MS_MAX);

    source.addEventListener('history', ({ data }) => tell.history(JSON.parse(data)));
    source.addEventListener('live', ({ data }) => {
      clearTimeout(watchdog);
      watchdog = setTimeout(broken, SILENCE_MS_MAX);
      tell.live(JSON.parse(data));
    });
    source.addEventListener('error', broken);
    addEventListener('offline', broken, over);
    document.addEventListener('visibilitychange', () => document.hidden && end(), over);

    function broken() {
      tell.silence();
      end();
    }
    function end() {
      source.close();
      over.abort();
      clearTimeout(watchdog);
      resolve();
    }
  });
}

function visible() {
  if (!document.hidden) return undefined;
  return new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }));
}
