// Renders the state. Sends no requests and makes no decisions.

import * as words from './words.js';

const element = Object.fromEntries([...document.querySelectorAll('[id]')].map((node) => [node.id, node]));

export const { form, user, other, signin } = element;

/**
 * Renders everything. Only changed elements are touched, so a screen reader does not speak every second.
 */
export function show({ sale, phase, task, now, isOffline, signIn, asking, news, receipt }) {
  const { headline, note, button } = words.PHASES[phase](sale, now);
  Object.assign(document.body.dataset, { phase, task: task ?? '' });
  text('phase', headline);
  text('note', note);
  text('connection', isOffline ? words.OFFLINE : '');
  text('news', news);
  text('buy', words.ASKING[asking] ?? (isOffline ? words.OFFLINE_BUTTON : button));
  element.buy.setAttribute('aria-disabled', String(!task || isOffline || Boolean(asking)));
  element.form.hidden = Boolean(receipt) || phase === 'noSale';
  element.identity.hidden = signIn !== 'none';
  element.signin.hidden = signIn !== 'needed';
  if (sale) showSale(sale, phase, now);
  showReceipt(receipt);
  const when = phase === 'upcoming' ? countdownOf(sale, phase, now) : headline;
  document.title = `${when} · ${sale?.name ?? 'Flash sale'}`;
}

export function markUser(isInvalid) {
  user.setAttribute('aria-invalid', String(isInvalid));
  if (isInvalid) user.focus();
}

/** Moves the focus to the receipt for keyboard users, because the form is hidden. */
export function goToReceipt() {
  element.thanks.focus();
}

function showSale(sale, phase, now) {
  text('name', sale.name);
  text('price', words.priceOf(sale));
  text('countdown', countdownOf(sale, phase, now));
  text('left', words.stock(sale));
  element.meter.setAttribute('aria-valuemax', sale.total);
  element.meter.setAttribute('aria-valuenow', sale.left);
  element.meter.setAttribute('aria-valuetext', words.stock(sale));
  element.meter.style.setProperty('--left', sale.total ? sale.left / sale.total : 0);
}

function showReceipt(receipt) {
  element.receipt.hidden = !receipt;
  if (!receipt) return;
  text('thanks', words.THANKS[receipt.outcome] ?? words.THANKS.bought);
  text('order', receipt.orderId);
  text('bought', words.boughtAt(receipt.purchasedAt));
  text('buyer', receipt.user);
  element.buyer.parentElement.hidden = !receipt.user;
}

function countdownOf(sale, phase, now) {
  if (phase === 'upcoming') return words.countdown(sale.startsAt - now);
  return phase === 'active' || phase === 'paused' ? words.closesIn(sale.endsAt - now) : '';
}

function text(id, value = '') {
  if (element[id].textContent !== value) element[id].textContent = value;
}
