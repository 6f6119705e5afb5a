// One purchase attempt: several tries until the answer is definite, up to a limit. All tries of an attempt send the
// same key, so a lost response is recognized and no buyer buys twice.

import * as clock from './clock.js';
import { backoff, pause } from './pause.js';
import * as shop from './shop.js';

const TRIES_MAX = 8;
// A longer Retry-After ends the attempt.
const WAIT_MS_MAX = 30_000;
const SPREAD_MS = { first: 500, most: 8_000 };
// The clocks of nodes and Redis differ by less than this. Closer to the start, a refusal is retried.
const CLOCKS_DIFFER_MS = 2_000;

const RETRYABLE = new Set(['busy', 'early', 'limited', 'unknown']);

// Kept until there is a definite answer: another press of the button continues the same attempt.
const NO_ATTEMPT = { user: null, key: null, isUnknown: false };
let open = NO_ATTEMPT;

/**
 * Buys one unit. Calls `onRetry({why, next, of})` before each further try. Returns `{outcome, body, retryAfterMs}`. The
 * outcome is the API's reason, or `bought`, `busy`, `limited`, `unknown`, `sign_in`, `no_sale`, `network_full` or `failed`.
 */
export async function buy(user, sale, onRetry) {
  if (open.user !== user) open = { user, key: newKey(), isUnknown: false };
  for (let tries = 1; ; tries += 1) {
    const answer = await shop.purchase(user, open.key);
    const why = outcomeOf(answer, sale);
    if (!RETRYABLE.has(why)) {
      open = NO_ATTEMPT;
      return { outcome: why, ...answer };
    }
    open.isUnknown ||= why === 'unknown';
    if (tries === TRIES_MAX || answer.retryAfterMs > WAIT_MS_MAX) {
      return { outcome: open.isUnknown ? 'unknown' : why, ...answer };
    }
    onRetry({ why, next: tries + 1, of: TRIES_MAX });
    await pause(backoff(tries, SPREAD_MS, answer.retryAfterMs));
  }
}

/** Looks up the order of this user. Returns the same as `buy`, with the outcomes `found` and `not_found`. */
export async function find(user, sale) {
  const answer = await shop.find(user);
  const found = answer.body.hasPurchased ? 'found' : 'not_found';
  return { outcome: answer.status === 200 ? found : outcomeOf(answer, sale), ...answer };
}

function outcomeOf({ status, body }, sale) {
  const isOpening = Math.abs(clock.now() - sale.startsAt) < CLOCKS_DIFFER_MS;
  if (status === 200) return 'bought';
  if (body.reason === 'sale_not_active' && isOpening) return 'early';
  if (body.reason) return body.reason;
  if (status === 401) return 'sign_in';
  if (status === 404) return 'no_sale';
  if (status === 429) return 'limited';
  if (body.type === '/problems/network-full') return 'network_full';
  if (body.type === '/problems/busy') return 'busy';
  return status === 0 || status >= 500 ? 'unknown' : 'failed';
}

/** Returns a random key. `randomUUID` exists only on secure origins. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
