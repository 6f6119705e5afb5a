// The page: combines the sale's state, its sources, and the actions of a buyer.

import { buy, find } from './attempt.js';
import { now } from './clock.js';
import { follow } from './live.js';
import * as memory from './memory.js';
import { TASKS, phaseOf, read } from './sale.js';
import * as shop from './shop.js';
import * as view from './view.js';
import * as words from './words.js';

// A node that stops is replaced within this time, so shorter gaps are not shown.
const OFFLINE_AFTER_MS = 4_000;
const SECOND_MS = 1_000;

const state = { sale: null, noSale: false, isOffline: false, asking: '', news: '', receipt: null, signIn: signInNow() };
let silence;
let tick;

view.user.value = memory.user.get() ?? '';
view.form.addEventListener('submit', submit);
view.other.addEventListener('click', buyForAnotherUser);
view.signin.addEventListener('click', shop.signIn);
follow({ status, noSale, silence: markSilent });
show();

function status(body) {
  const isFirst = !state.sale;
  state.sale = read(body);
  state.noSale = false;
  markOnline();
  if (isFirst) begin();
  show();
}

function noSale() {
  state.noSale = !state.sale;
  markOnline();
  show();
}

function markOnline() {
  clearTimeout(silence);
  silence = undefined;
  state.isOffline = false;
}

function markSilent() {
  silence ??= setTimeout(() => update({ isOffline: true }), OFFLINE_AFTER_MS);
}

/** Runs once the sale is known: restores the receipt from this browser or the shop, and prepares a purchase. */
async function begin() {
  state.receipt = memory.receipt(state.sale.id).get();
  shop.prepare();
  const user = buyer();
  if (state.receipt || !user) return;
  const { outcome, body } = await find(user, state.sale);
  if (outcome === 'found' && !state.receipt) keep({ outcome, user, ...body });
}

function submit(event) {
  event.preventDefault();
  const task = TASKS[phaseNow()];
  if (phaseNow() === 'upcoming') update({ news: words.NOT_YET });
  else if (task && !state.asking && !state.isOffline) ask(task, buyer());
}

async function ask(task, user) {
  if (state.signIn === 'needed') return shop.signIn();
  const isMissing = !user && !shop.isSignedIn;
  view.markUser(isMissing);
  if (isMissing) return update({ news: words.WHO });
  if (!shop.isSignedIn) memory.user.set(user);
  update({ asking: task, news: '' });
  const answer = await (task === 'find' ? find(user, state.sale) : buy(user, state.sale, onRetry));
  update({ asking: '' });
  settle(user, answer);
}

function onRetry(news) {
  update({ asking: 'again', news: words.trying(news) });
}

function settle(user, answer) {
  const { outcome, body } = answer;
  if (body.orderId && outcome in words.THANKS) {
    keep({ outcome, user, ...body });
    return view.goToReceipt();
  }
  if (outcome === 'sign_in' && shop.canSignIn) update({ signIn: 'needed' });
  update({ news: words.refusal(answer) });
  view.markUser(outcome === 'invalid_user_id');
}

function keep({ outcome, user, orderId, purchasedAt }) {
  const receipt = { outcome, user, orderId, purchasedAt };
  memory.receipt(state.sale.id).set(receipt);
  update({ receipt, news: '' });
}

function buyForAnotherUser() {
  memory.receipt(state.sale.id).set(null);
  memory.user.set('');
  view.user.value = '';
  update({ receipt: null });
  view.user.focus();
}

function buyer() {
  if (state.signIn === 'needed') return '';
  return shop.isSignedIn ? shop.signedInAs : view.user.value.trim();
}

/** `none`: buyers enter their id. `needed`: the shop signs them in. `done`: it has. */
function signInNow() {
  if (shop.isSignedIn) return 'done';
  return shop.canSignIn ? 'needed' : 'none';
}

function phaseNow() {
  if (state.noSale) return 'noSale';
  return state.sale ? phaseOf(state.sale, now()) : 'loading';
}

function update(more) {
  Object.assign(state, more);
  show();
}

/** Renders the state, and again at the next second of the countdown. */
function show() {
  clearTimeout(tick);
  const phase = phaseNow();
  if (state.news === words.NOT_YET && phase !== 'upcoming') state.news = '';
  view.show({ ...state, phase, task: TASKS[phase], now: now() });
  const { startsAt, endsAt } = state.sale ?? {};
  const left = (now() < startsAt ? startsAt : endsAt) - now();
  if (left > 0) tick = setTimeout(show, (left % SECOND_MS) + 1);
}
