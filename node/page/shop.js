// The shop's API: which sale, who asks, and every request that this page makes. An answer is `{status, body,
// retryAfterMs}`; one that never came, or broke off, has the status 0.

import * as memory from './memory.js';

// Longer than a node and the load balancer before it take to give up.
const ANSWER_MS_MAX = 15_000;
const NO_ANSWER = { status: 0, body: {}, retryAfterMs: 0 };

const base = pathOf(new URLSearchParams(location.search).get('sale'));
const token = tokenFromAddress() ?? memory.token.get();
let csrfToken;

/** Where the sale's events come from. */
export const events = `${base}/events`;

/** Who is signed in, as the token says; none where buyers type who they are. */
export const signedInAs = token && subjectOf(token);
export const isSignedIn = Boolean(token);

export const status = () => ask(`${base}/status`);

export const find = (user) => ask(`${base}/purchase/${encodeURIComponent(user)}`);

/** Asks for what a purchase has to bring along, before the rush. A shop without it sells, too. */
export async function prepare() {
  csrfToken ??= (await ask('/api/csrf')).body.csrfToken;
}

/** One try to buy. A token that the shop does not take any more is replaced, once. */
export async function purchase(user, key) {
  await prepare();
  const answer = await post(user, key);
  if (answer.body.type !== '/problems/csrf') return answer;
  csrfToken = answer.body.csrfToken;
  return post(user, key);
}

function post(user, key) {
  const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': key };
  // Without its cookie a token is worth nothing; then the browser's word has to do.
  if (csrfToken && navigator.cookieEnabled) headers['X-CSRF-Token'] = csrfToken;
  return ask(`${base}/purchase`, { method: 'POST', headers, body: JSON.stringify({ userId: user || undefined }) });
}

async function ask(url, { headers = {}, ...request } = {}) {
  if (token) headers.Authorization = `Bearer ${token}`;
  try {
    const signal = AbortSignal.timeout(ANSWER_MS_MAX);
    const response = await fetch(url, { cache: 'no-store', signal, headers, ...request });
    // An error may come from somebody who does not speak JSON; a 200 without its body is no answer.
    const body = await response.json().catch((broken) => (response.ok ? Promise.reject(broken) : {}));
    const retryAfterMs = 1000 * (Number(response.headers.get('Retry-After')) || 0);
    return { status: response.status, body, retryAfterMs };
  } catch {
    return NO_ANSWER;
  }
}

/** An id that cannot be is that of no sale; `_` is one, and leads to no other path. */
function pathOf(sale) {
  if (!sale) return '/api/sale';
  return `/api/sales/${/^[a-z0-9-]{1,32}$/.test(sale) ? sale : '_'}`;
}

/** A token comes in the fragment, which is sent to nobody, and leaves the address bar at once. */
function tokenFromAddress() {
  const [, token] = /^#token=(.+)$/.exec(location.hash) ?? [];
  if (!token) return null;
  history.replaceState(null, '', location.pathname + location.search);
  memory.token.set(token);
  return token;
}

/** The shop checks the token; here it only says whom to greet and to look up. */
function subjectOf(token) {
  try {
    const claims = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    const utf8 = Uint8Array.from(atob(claims), (character) => character.charCodeAt(0));
    return String(JSON.parse(new TextDecoder().decode(utf8)).sub ?? '');
  } catch {
    return '';
  }
}
