// The page: what is known, who tells it, and what a buyer may do about it.

import { buy, find } from './attempt.js';
import * as clock from './clock.js';
import { follow } from './live.js';
import * as memory from './memory.js';
import { TASKS, phase, read } from './sale.js';
import * as shop from './shop.js';
import * as view from './view.js';
import * as words from './words.js';

// A node that ends is replaced within this time, and nobody needs to hear of it.
const OFFLINE_AFTER_MS = 4_000;
const SECOND_MS = 1_000;

const known = { sale: null, noSale: false, isOffline: false, asking: '', news: '', receipt: null };
let silence;
let tick;

view.user.value = memory.user();
view.form.addEventListener('submit', submit);
view.other.addEventListener('click', buyForSomebodyElse);
follow({ status, noSale, silence: silent });
show();

function status(body) {
  const isFirst = !known.sale;
  clock.set(body.serverTime);
  known.sale = read(body);
  known.noSale = false;
  heard();
  if (isFirst) begin();
  show();
}

function noSale() {
  known.noSale = !known.sale;
  heard();
  show();
}

function heard() {
  clearTimeout(silence);
  silence = undefined;
  known.isOffline = false;
}

function silent() {
  silence ??= setTimeout(() => learn({ isOffline: true }), OFFLINE_AFTER_MS);
}

/** Once the sale is known: its receipt, from this browser or from the shop, and what a purchase will need. */
async function begin() {
  known.receipt = memory.receipt(known.sale.id);
  shop.prepare();
  const user = buyer();
  if (known.receipt || !user) return;
  const { outcome, body } = await find(user, known.sale);
  if (outcome === 'found' && !known.receipt) keep({ outcome, user, ...body });
}

async function submit(event) {
  event.preventDefault();
  const task = TASKS[phaseNow()];
  if (known.asking || known.isOffline || !task) {
    if (phaseNow() === 'upcoming') learn({ news: words.NOT_YET });
    return undefined;
  }
  const user = buyer();
  const isNobody = !user && !shop.isSignedIn;
  view.markUser(isNobody);
  if (isNobody) return learn({ news: words.WHO });
  if (!shop.isSignedIn) memory.keepUser(user);
  learn({ asking: task, news: '' });
  const answer = await (task === 'find' ? find(user, known.sale) : buy(user, known.sale, again));
  learn({ asking: '' });
  settle(user, answer);
}

function again(news) {
  learn({ asking: 'again', news: words.trying(news) });
}

function settle(user, answer) {
  const { outcome, body } = answer;
  if (body.orderId && outcome in words.THANKS) {
    keep({ outcome, user, ...body });
    return view.goToReceipt();
  }
  learn({ news: words.refusal(answer) });
  view.markUser(outcome === 'invalid_user_id');
}

function keep({ outcome, user, orderId, purchasedAt }) {
  const receipt = { outcome, user, orderId, purchasedAt };
  memory.keepReceipt(known.sale.id, receipt);
  learn({ receipt, news: '' });
}

function buyForSomebodyElse() {
  memory.forgetReceipt(known.sale.id);
  memory.keepUser('');
  view.user.value = '';
  learn({ receipt: null });
  view.user.focus();
}

function buyer() {
  return shop.isSignedIn ? shop.signedInAs : view.user.value.trim();
}

function phaseNow() {
  if (known.noSale) return 'noSale';
  return known.sale ? phase(known.sale, clock.now()) : 'loading';
}

function learn(news) {
  Object.assign(known, news);
  show();
}

/** Shows what is known, and again with the next second of the countdown. */
function show() {
  clearTimeout(tick);
  const now = clock.now();
  const at = phaseNow();
  if (known.news === words.NOT_YET && at !== 'upcoming') known.news = '';
  view.show({ ...known, phase: at, task: TASKS[at], now, isSignedIn: shop.isSignedIn });
  if (!known.sale) return;
  const edge = now < known.sale.startsAt ? known.sale.startsAt : known.sale.endsAt;
  if (now < edge) tick = setTimeout(show, ((edge - now) % SECOND_MS) + 1);
}
