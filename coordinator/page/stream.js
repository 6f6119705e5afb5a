// Follows a sale by a stream of reports, and reconnects when the stream ends or stays silent. A hidden tab does not
// connect.

// The coordinator sends a report at least once a second. After this silence the page must not be trusted.
const SILENCE_MS_MAX = 3_000;
const PAUSE_MS = { least: 500, most: 1_500 };

/** Calls the handlers `sales` (with the list), `history`, `live` (with each report), `noSale` and `silence`. Never returns. */
export async function follow(sale, handlers) {
  for (;;) {
    await visible();
    const sales = await listed();
    if (!sales) handlers.silence();
    else {
      handlers.sales(sales);
      const isThere = sale === null ? sales.default : sales.sales.some(({ id }) => id === sale);
      if (isThere) await stream(sale, handlers);
      else handlers.noSale();
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

/** Listens until the stream ends, for any reason. */
function stream(sale, handlers) {
  return new Promise((resolve) => {
    const source = new EventSource(sale === null ? '/live/sale/events' : `/live/sales/${encodeURIComponent(sale)}/events`);
    const over = new AbortController();
    let watchdog = setTimeout(broken, SILENCE_MS_MAX);

    source.addEventListener('history', ({ data }) => handlers.history(JSON.parse(data)));
    source.addEventListener('live', ({ data }) => {
      clearTimeout(watchdog);
      watchdog = setTimeout(broken, SILENCE_MS_MAX);
      handlers.live(JSON.parse(data));
    });
    source.addEventListener('error', broken);
    addEventListener('offline', broken, over);
    document.addEventListener('visibilitychange', () => document.hidden && end(), over);

    function broken() {
      handlers.silence();
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
