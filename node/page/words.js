// All texts of this page.

const number = new Intl.NumberFormat('en');
const price = new Intl.NumberFormat('en', { minimumFractionDigits: 2 });
const moment = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short' });
const moments = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

const SECOND = 1_000;
const DAY = 86_400 * SECOND;

/** Texts of each phase: headline, note and button. */
export const PHASES = {
  loading: () => ({ headline: 'Looking up the sale…', button: 'One moment…' }),
  noSale: () => ({ headline: 'There is no such sale', note: 'Please check the link that brought you here.' }),
  upcoming: ({ startsAt }) => ({
    headline: 'Opens in',
    note: `${moment.format(startsAt)}, your time. The button opens automatically.`,
    button: 'Not open yet',
  }),
  active: (sale) => ({ headline: 'Open now', button: `Buy one for ${priceOf(sale)}` }),
  paused: () => ({ headline: 'Paused', note: 'The sale is paused. This page continues automatically.', button: 'Paused' }),
  soldOut: ({ total }) => ({
    headline: 'Sold out',
    note: total === 1 ? 'The only unit is sold.' : `All ${number.format(total)} units are sold.`,
    button: 'Find my order',
  }),
  ended: ({ endsAt }, now) => ({
    headline: 'The sale has ended',
    // The sale may have been ended early.
    note: now < endsAt ? '' : `It was open until ${moment.format(endsAt)}, your time.`,
    button: 'Find my order',
  }),
};

export const OFFLINE = 'No connection to the shop. This page continues automatically.';
export const OFFLINE_BUTTON = 'Waiting for the connection…';
export const ASKING = { buy: 'Buying…', find: 'Looking…', again: 'Still trying…' };
export const NOT_YET = 'It is not open yet. The button opens automatically.';
export const WHO = 'Please enter your e-mail or customer number.';

export const THANKS = { bought: 'One is yours.', already_purchased: 'You have one already.', found: 'One is yours.' };

const TRYING_WHY = {
  busy: 'Many buyers are waiting.',
  early: 'The sale is just starting.',
  limited: 'The shop asks you to wait a moment.',
  unknown: 'The answer was lost.',
};

/** Shown before a further try. */
export function trying({ why, next, of }) {
  return `${TRYING_WHY[why]} Still trying, ${next} of ${of}.`;
}

/** Explains why an attempt ended without a unit. */
export function refusal({ outcome, body, retryAfterMs }) {
  const reference = body.correlationId ? ` Reference: ${body.correlationId}` : '';
  const refusals = {
    not_found: 'There is no order for this e-mail or customer number.',
    out_of_stock: 'Sold out: no unit is left.',
    sale_not_active: body.message,
    invalid_user_id: 'This is not a valid e-mail or customer number.',
    sign_in: 'Please sign in at the shop first.',
    no_sale: 'There is no such sale any more.',
    busy: 'Too many buyers are waiting. Nothing was bought. Please try again.',
    early: 'The sale is not open yet. Please try again.',
    network_full: 'Your network has bought as many units as one network may have. You have none of them.',
    limited: `Too many tries. Nothing was bought. Please try again ${waiting(retryAfterMs)}.`,
    unknown: 'We do not know if you got one. Please press the button again: you cannot buy twice.',
  };
  return refusals[outcome] ?? `Something went wrong here. Please try again.${reference}`;
}

export const stock = ({ left, total }) => `${number.format(left)} of ${number.format(total)} left`;

export const priceOf = (sale) => price.format(sale.price);

export const boughtAt = (purchasedAt) => moments.format(Date.parse(purchasedAt));

/** Formats a remaining time in whole seconds: `2 d 03:04:05`, `03:04:05`, `04:05`. It shows 00:01 until the end. */
export function countdown(ms) {
  const seconds = Math.ceil(ms / SECOND);
  const [s, m, h] = [seconds % 60, Math.floor(seconds / 60) % 60, Math.floor(seconds / 3_600) % 24];
  const days = Math.floor((seconds * SECOND) / DAY);
  const parts = days || h ? [h, m, s] : [m, s];
  return (days ? `${days} d ` : '') + parts.map((part) => String(part).padStart(2, '0')).join(':');
}

export const closesIn = (ms) => `Closes in ${countdown(ms)}`;

function waiting(ms) {
  if (ms < 2 * SECOND) return 'in a moment';
  const seconds = Math.ceil(ms / SECOND);
  return seconds < 120 ? `in ${seconds} seconds` : `in ${Math.ceil(seconds / 60)} minutes`;
}
