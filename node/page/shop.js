// The shop's API: the sale, the user, and all requests of this page. A response is `{status, body, retryAfterMs}`. The
// status is 0 when no complete response came.

import * as memory from './memory.js';

// Longer than the timeouts of a node and of the load balancer.
const ANSWER_MS_MAX = 15_000;
const NO_ANSWER = { status: 0, body: {}, retryAfterMs: 0 };

const STATE_BYTES = 16;

const signInUrl = document.querySelector('meta[name=sign-in]').content;
// The end of a sign-in restores the address, so it comes first.
const token = tokenFromAddress() ?? memory.token.get();
const base = pathOf(new URLSearchParams(location.search).get('sale'));
let csrfToken;

/** URL of the sale's event stream. */
export const events = `${base}/events`;

/** The user that the token names, if any. Without a token, buyers enter their own id. */
export const signedInAs = token && subjectOf(token);
export const isSignedIn = Boolean(token);

/** True when the shop signs buyers in. */
export const canSignIn = Boolean(signInUrl);

/** Sends the buyer to the sign-in of the shop, which sends them back to `/#token=…&state=…`. */
export function signIn() {
  const state = Array.from(crypto.getRandomValues(new Uint8Array(STATE_BYTES)), (byte) => byte.toString(16).padStart(2, '0')).join('');
  memory.signIn.set({ state, search: location.search });
  const url = new URL(signInUrl);
  url.searchParams.set('state', state);
  location.assign(url);
}

export const status = () => ask(`${base}/status`);

export const find = (user) => ask(`${base}/purchase/${encodeURIComponent(user)}`);

/** Requests a CSRF token before the rush. A shop without CSRF tokens sells too. */
export async function prepare() {
  csrfToken ??= (await ask('/api/csrf')).body.csrfToken;
}

/** Tries to buy once. A CSRF token that the shop refuses is replaced once. */
export async function purchase(user, key) {
  await prepare();
  const answer = await post(user, key);
  if (answer.body.type !== '/problems/csrf') return answer;
  csrfToken = answer.body.csrfToken;
  return post(user, key);
}

function post(user, key) {
  const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': key };
  // A token is useless without its cookie.
  if (csrfToken && navigator.cookieEnabled) headers['X-CSRF-Token'] = csrfToken;
  return ask(`${base}/purchase`, { method: 'POST', headers, body: JSON.stringify({ userId: user || undefined }) });
}

async function ask(url, { headers = {}, ...request } = {}) {
  if (token) headers.Authorization = `Bearer ${token}`;
  try {
    const signal = AbortSignal.timeout(ANSWER_MS_MAX);
    const response = await fetch(url, { cache: 'no-store', signal, headers, ...request });
    // An error may have no JSON body. A 200 without one counts as no response.
    const body = await response.json().catch((broken) => (response.ok ? Promise.reject(broken) : {}));
    const retryAfterMs = 1000 * (Number(response.headers.get('Retry-After')) || 0);
    return { status: response.status, body, retryAfterMs };
  } catch {
    return NO_ANSWER;
  }
}

/** Returns the path of a sale. An invalid id becomes `_`, which is no sale and leads to no other path. */
function pathOf(sale) {
  if (!sale) return '/api/sale';
  return `/api/sales/${/^[a-z0-9-]{1,32}$/.test(sale) ? sale : '_'}`;
}

/**
 * Takes a token from the fragment, which is never sent to a server, and removes it from the address bar. Only a sign-in
 * that this tab has started ends here: the token in a link of a stranger would let the buyer buy for the stranger.
 */
function tokenFromAddress() {
  const answer = new URLSearchParams(location.hash.slice(1));
  const token = answer.get('token');
  if (!token) return null;
  const started = memory.signIn.get();
  const isOurs = Boolean(started?.state) && started.state === answer.get('state');
  history.replaceState(null, '', location.pathname + (isOurs ? started.search : location.search));
  if (!isOurs) return null;
  memory.signIn.set(null);
  memory.token.set(token);
  return token;
}

/** Returns the user of the token, for display and lookups. The shop verifies the token. */
function subjectOf(token) {
  try {
    const claims = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    const utf8 = Uint8Array.from(atob(claims), (character) => character.charCodeAt(0));
    return String(JSON.parse(new TextDecoder().decode(utf8)).sub ?? '');
  } catch {
    return '';
  }
}
