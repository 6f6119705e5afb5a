// Texts, and the format of numbers.

const SECOND_MS = 1_000;
const NUMBER = new Intl.NumberFormat('en');
const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const TIME = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });

export const CONNECTING = 'Connecting…';
export const LIVE = 'Live';
export const NO_SALE = 'There is no such sale';
export const KEPT = 'All books add up.';
export const NO_PROCESSES = 'The list cannot be read.';

export const number = (value) => NUMBER.format(value);
/** A number in little space. */
export const short = (value) => (value < 10_000 ? String(value) : SHORT.format(value));
export const notLive = (since) => `Not live since ${TIME.format(since)}. Trying again…`;

/** The phase of a sale, its text, and when it ends: `{phase, words, until}`. */
export function standing({ sale, total, sold }, now) {
  if (sale.state === 'creating') return { phase: 'creating', words: 'Being created' };
  if (sale.state === 'paused') return { phase: 'paused', words: 'Paused. Closes in', until: sale.endsAt };
  if (sale.state === 'ended' || sale.state === 'archived' || now >= sale.endsAt) return { phase: 'ended', words: 'The sale has ended' };
  if (now < sale.startsAt) return { phase: 'upcoming', words: 'Opens in', until: sale.startsAt };
  if (sold >= total) return { phase: 'soldout', words: 'Sold out. Closes in', until: sale.endsAt };
  return { phase: 'open', words: 'Open. Closes in', until: sale.endsAt };
}

/** Rounded up, so that 0 is shown only at the end. */
export function countdown(ms) {
  const seconds = Math.max(0, Math.ceil(ms / SECOND_MS));
  const [days, hours, minutes] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3_600) % 24, Math.floor(seconds / 60) % 60];
  const clock = (hours || days ? [hours, minutes, seconds % 60] : [minutes, seconds % 60]).map(two).join(':');
  return days ? `${days} d ${clock}` : clock;
}

const two = (value) => String(value).padStart(2, '0');

/** When all units will be sold, at this rate. */
export function soldOut(phase, left, rate, msToClose) {
  if (phase === 'soldout' || left === 0) return 'yes';
  if (phase !== 'open' || rate <= 0) return '–';
  const ms = (left / rate) * SECOND_MS;
  return ms > msToClose ? 'not at this rate' : `in ${countdown(ms)}`;
}

export const ratePerSecond = (rate) => (rate > 0 && rate < 10 ? rate.toFixed(1) : number(Math.round(rate)));

/** A duration in the largest unit that fits. */
export function age(ms) {
  const [seconds, minutes, hours] = [ms / 1_000, ms / 60_000, ms / 3_600_000].map(Math.floor);
  if (minutes < 1) return `${Math.max(0, seconds)} s`;
  if (hours < 1) return `${minutes} min`;
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} d`;
}

const SHARD_TROUBLES = {
  unreadable: 'no answer',
  gone: 'gone',
  foreign: 'foreign',
  overminted: 'too much',
  behind: 'behind',
  contrary: 'not as set',
};
export const shardTrouble = (trouble) => SHARD_TROUBLES[trouble] ?? trouble;

/** The text of a shard for screen readers. */
export function shard({ stock, sold, trouble }) {
  const numbers = `${number(stock)} left, ${number(sold)} sold`;
  return trouble ? `${shardTrouble(trouble)}; last seen with ${numbers}` : numbers;
}

export function moved({ from, to, tokens }, sum) {
  return `${number(tokens)} from shard ${from} to ${to}; ${number(sum)} moved in all`;
}

/** The violated invariants as text; empty if there are none. */
export function violations({ oversold, books, record }) {
  const shards = (count, what) => `${count} ${count === 1 ? 'shard' : 'shards'} ${what}`;
  return [
    oversold && `${number(oversold)} sold beyond the total`,
    books && shards(books, 'whose books do not add up'),
    record && shards(record, 'not as recorded'),
  ].filter(Boolean).join('; ');
}

export function unreadable(count) {
  const shards = count === 1 ? 'One shard does' : `${count} shards do`;
  return count ? `${shards} not answer: these numbers are older` : '';
}

export const titleOf = (left, name) => `${number(left)} left · ${name}`;
