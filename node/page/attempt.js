// One attempt to buy: as many tries as it takes to get a definite answer, within bounds. All tries of an attempt carry
// one key, so that an answer that was lost on its way is recognised and nobody buys twice.

import * as clock from './clock.js';
import { backoff, pause } from './pause.js';
import * as shop from './shop.js';

const TRIES_MAX = 8;
// A server that asks for more than this means it.
const PATIENCE_MS = 30_000;
const SPREAD_MS = { first: 500, most: 8_000 };
// Nodes and Redis agree on the time within this; a button that opened a moment early is no reason to lose.
const CLOCKS_DIFFER_MS = 2_000;

const AGAIN = new Set(['busy', 'early', 'limited', 'unknown']);

// Kept until there is a definite answer: another press goes on with it.
const NONE = { user: null, key: null, isUnknown: false };
let open = NONE;

/**
 * Buys one. `again` is told `{why, next, of}` before each further try. Answers `{outcome, body, retryAfterMs}`; the
 * outcome is the API's reason, or `bought`, `busy`, `limited`, `unknown`, `sign_in`, `no_sale`, `failed`.
 */
export async function buy(user, sale, again) {
  if (open.user !== user) open = { user, key: newKey(), isUnknown: false };
  for (let tries = 1; ; tries += 1) {
    const answer = await shop.purchase(user, open.key);
    const why = meaning(answer, sale);
    if (!AGAIN.has(why)) {
      open = NONE;
      return { outcome: why, ...answer };
    }
    open.isUnknown ||= why === 'unknown';
    if (tries === TRIES_MAX || answer.retryAfterMs > PATIENCE_MS) {
      return { outcome: open.isUnknown ? 'unknown' : why, ...answer };
    }
    again({ why, next: tries + 1, of: TRIES_MAX });
    await pause(backoff(tries, SPREAD_MS, answer.retryAfterMs));
  }
}

/** Looks for an order of this user; answers like `buy`, with `found` or `not_found`. */
export async function find(user, sale) {
  const answer = await shop.find(user);
  const found = answer.body.hasPurchased ? 'found' : 'not_found';
  return { outcome: answer.status === 200 ? found : meaning(answer, sale), ...answer };
}

function meaning({ status, body }, sale) {
  const isOpening = Math.abs(clock.now() - sale.startsAt) < CLOCKS_DIFFER_MS;
  if (status === 200) return 'bought';
  if (body.reason === 'sale_not_active' && isOpening) return 'early';
  if (body.reason) return body.reason;
  if (status === 401) return 'sign_in';
  if (status === 404) return 'no_sale';
  if (status === 429) return 'limited';
  if (body.type === '/problems/busy') return 'busy';
  return status === 0 || status >= 500 ? 'unknown' : 'failed';
}

/** Not `randomUUID`: that exists on secure origins only. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
