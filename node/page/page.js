// The page: what is known, who tells it, and what a buyer may do about it.

import { buy } from './attempt.js';
import * as clock from './clock.js';
import { follow } from './live.js';
import * as memory from './memory.js';
import { phase, read } from './sale.js';
import * as shop from './shop.js';
import * as view from './view.js';
import * as words from './words.js';

// A node that ends is replaced within this time, and nobody needs to hear of it.
const OFFLINE_AFTER_MS = 4_000;
const SECOND_MS = 1_000;

const known = { sale: null, noSale: false, isOffline: false, isBuying: false, isTrying: false, news: '', receipt: null };
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
  const { body } = await shop.find(user);
  if (body.hasPurchased && !known.receipt) keep({ outcome: 'already_purchased', user, ...body });
}

async function submit(event) {
  event.preventDefault();
  const at = phaseNow();
  if (known.isBuying || known.isOffline || at !== 'active') {
    return at === 'upcoming' && learn({ news: words.NOT_YET });
  }
  const user = buyer();
  view.markUser(!user && !shop.isSignedIn);
  if (!user && !shop.isSignedIn) return learn({ news: words.WHO });
  if (!shop.isSignedIn) memory.keepUser(user);
  learn({ isBuying: true, news: '' });
  const answer = await buy(user, known.sale, (again) => learn({ isTrying: true, news: words.trying(again) }));
  learn({ isBuying: false, isTrying: false });
  settle(user, answer);
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
  view.show({ ...known, phase: phaseNow(), now, isSignedIn: shop.isSignedIn });
  if (!known.sale) return;
  const edge = now < known.sale.startsAt ? known.sale.startsAt : known.sale.endsAt;
  if (now < edge) tick = setTimeout(show, ((edge - now) % SECOND_MS) + 1);
}
