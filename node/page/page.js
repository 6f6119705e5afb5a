// The page: what is known, who tells it, and what a buyer may do about it.

import { buy, find } from './attempt.js';
import { now } from './clock.js';
import { follow } from './live.js';
import * as memory from './memory.js';
import { TASKS, phaseOf, read } from './sale.js';
import * as shop from './shop.js';
import * as view from './view.js';
import * as words from './words.js';

// A node that ends is replaced within this time, and nobody needs to hear of it.
const OFFLINE_AFTER_MS = 4_000;
const SECOND_MS = 1_000;

const known = { sale: null, noSale: false, isOffline: false, asking: '', news: '', receipt: null };
let silence;
let tick;

view.user.value = memory.user.get() ?? '';
view.form.addEventListener('submit', submit);
view.other.addEventListener('click', buyForSomebodyElse);
follow({ status, noSale, silence: silent });
show();

function status(body) {
  const isFirst = !known.sale;
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
  known.receipt = memory.receipt(known.sale.id).get();
  shop.prepare();
  const user = buyer();
  if (known.receipt || !user) return;
  const { outcome, body } = await find(user, known.sale);
  if (outcome === 'found' && !known.receipt) keep({ outcome, user, ...body });
}

function submit(event) {
  event.preventDefault();
  const task = TASKS[phaseNow()];
  if (phaseNow() === 'upcoming') learn({ news: words.NOT_YET });
  else if (task && !known.asking && !known.isOffline) ask(task, buyer());
}

async function ask(task, user) {
  const isNobody = !user && !shop.isSignedIn;
  view.markUser(isNobody);
  if (isNobody) return learn({ news: words.WHO });
  if (!shop.isSignedIn) memory.user.set(user);
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
  memory.receipt(known.sale.id).set(receipt);
  learn({ receipt, news: '' });
}

function buyForSomebodyElse() {
  memory.receipt(known.sale.id).set(null);
  memory.user.set('');
  view.user.value = '';
  learn({ receipt: null });
  view.user.focus();
}

function buyer() {
  return shop.isSignedIn ? shop.signedInAs : view.user.value.trim();
}

function phaseNow() {
  if (known.noSale) return 'noSale';
  return known.sale ? phaseOf(known.sale, now()) : 'loading';
}

function learn(more) {
  Object.assign(known, more);
  show();
}

/** Shows what is known, and again with the next second of the countdown. */
function show() {
  clearTimeout(tick);
  const phase = phaseNow();
  if (known.news === words.NOT_YET && phase !== 'upcoming') known.news = '';
  view.show({ ...known, phase, task: TASKS[phase], now: now(), isSignedIn: shop.isSignedIn });
  const { startsAt, endsAt } = known.sale ?? {};
  const left = (now() < startsAt ? startsAt : endsAt) - now();
  if (left > 0) tick = setTimeout(show, (left % SECOND_MS) + 1);
}
