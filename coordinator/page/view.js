// Renders the known state. Requests nothing and decides nothing.

import * as pace from './pace.js';
import * as words from './words.js';

const element = Object.fromEntries([...document.querySelectorAll('[id]')].map((node) => [node.id, node]));
const [area, stroke] = element.line.children;

export const { sale: choice } = element;

/** Renders the known state. Touches only what has changed, so that a screen reader reads out changes only. */
export function show({ report, now, silentSince, isNoSale }) {
  const isLive = Boolean(report) && !silentSince;
  document.body.dataset.live = isLive ? 'yes' : 'no';
  text('connection', isLive ? words.LIVE : silentSince ? words.notLive(silentSince) : words.CONNECTING);
  if (isNoSale) showNoSale();
  else if (report) showReport(report, now);
}

/** Shows the rate and its chart. */
export function showPace() {
  const each = pace.perSecond();
  const most = Math.max(...each);
  const points = each.map((purchases, second) => [(second * 300) / (each.length - 1), 96 - (92 * purchases) / Math.max(most, 1)]);
  const line = points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join(' L ');
  stroke.setAttribute('d', `M ${line}`);
  area.setAttribute('d', `M 0 100 L ${line} L 300 100 Z`);
  text('rate', words.ratePerSecond(pace.rate()));
  text('peak', `At most ${words.number(Math.round(most))} in the last ${pace.SECONDS / 60} minutes`);
}

export function showMove(move, sum) {
  text('moved', words.moved(move, sum));
}

/** Fills the choice of sales, if there are several. */
export function offer(sales, shown) {
  element.choice.hidden = sales.length < 2;
  const ids = sales.map(({ id }) => id).join();
  if (choice.dataset.ids === ids) return;
  choice.dataset.ids = ids;
  choice.replaceChildren(...sales.map(({ id, name }) => new Option(`${name} (${id})`, id, false, id === shown)));
}

function showNoSale() {
  document.body.dataset.phase = 'noSale';
  text('connection', '');
  text('name', words.NO_SALE);
  document.title = words.NO_SALE;
}

function showReport(report, now) {
  const { sale, total, sold, inFlight, shards, violations } = report;
  const { phase, words: where, until } = words.standing(report, now);
  const left = Math.max(0, total - sold);
  document.body.dataset.phase = phase;
  text('name', sale.name);
  text('phase', where);
  text('clock', until ? words.countdown(until - now) : '');
  text('left', words.number(left));
  element.left.style.setProperty('--digits', words.number(total).length);
  text('of', `left of ${words.number(total)}`);
  text('sold', words.number(sold));
  text('flight', words.number(inFlight));
  text('soldout', words.soldOut(phase, left, pace.rate(), sale.endsAt - now));
  showMeter(left, total);
  showPromise(violations, shards.filter(({ trouble }) => trouble === 'unreadable').length);
  showProcesses(report.processes, report.time ?? now);
  document.title = words.titleOf(left, sale.name);
}

function showMeter(left, total) {
  element.meter.setAttribute('aria-valuemax', total);
  element.meter.setAttribute('aria-valuenow', left);
  element.meter.setAttribute('aria-valuetext', `${words.number(left)} of ${words.number(total)}`);
  element.meter.style.setProperty('--level', total ? left / total : 0);
}

function showPromise(violations, unreadable) {
  const broken = words.violations(violations);
  const { oversold, books, record } = violations;
  document.body.dataset.broken = broken ? 'yes' : 'no';
  text('broken', words.number(oversold + books + record));
  text('how', broken || words.unreadable(unreadable) || words.KEPT);
  text('alarm', broken ? `A promise is broken: ${broken}` : '');
}

function showProcesses(processes, now) {
  const items = (processes ?? []).map((process) => ({ ...process, age: words.age(now - process.startedAt) }));
  const key = JSON.stringify(items);
  if (element.processes.dataset.key === key) return;
  element.processes.dataset.key = key;
  element.processes.replaceChildren(...(processes ? items.map(item) : [part('li', words.NO_PROCESSES)]));
}

function item({ name, kind, version, age, silentS, leads }) {
  const node = part('li', '', kind);
  const lastSeen = silentS > 2 ? `silent for ${silentS} s` : `up ${age}`;
  node.append(part('b', name), part('span', `${kind}${leads ? ', leads' : ''}`, 'kind'), part('span', `${version}, ${lastSeen}`, 'quiet'));
  node.classList.toggle('silent', silentS > 2);
  node.classList.toggle('leads', leads);
  return node;
}

function part(tag, content, name = '') {
  const node = document.createElement(tag);
  node.textContent = content;
  node.className = name;
  return node;
}

function text(id, value) {
  if (element[id].textContent !== value) element[id].textContent = value;
}
