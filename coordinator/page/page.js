// The live view: connects the stream of reports to the parts of the page.

import * as clock from './clock.js';
import * as pace from './pace.js';
import * as shards from './shards.js';
import { follow } from './stream.js';
import * as view from './view.js';

const SECOND_MS = 1_000;

const chosen = new URLSearchParams(location.search).get('sale');
const known = { report: null, silentSince: null, isNoSale: false };
let moved = 0;
let tick;

view.choice.addEventListener('change', () => location.assign(`/?sale=${encodeURIComponent(view.choice.value)}`));
follow(chosen, { sales, history, live, noSale, silence });
show();

function sales(list) {
  view.offer(list.sales, chosen ?? list.default);
}

function history(past) {
  pace.begin(past);
}

function live(report) {
  Object.assign(known, { report, silentSince: null, isNoSale: false });
  if (report.time) {
    clock.sync(report.time);
    pace.add(report.time, report.sold);
  }
  shards.show(report.shards, report.moves);
  if (report.moves.length) {
    moved += report.moves.reduce((sum, { tokens }) => sum + tokens, 0);
    view.showMove(report.moves.reduce((most, move) => (move.tokens > most.tokens ? move : most)), moved);
  }
  view.showPace();
  show();
}

function noSale() {
  Object.assign(known, { isNoSale: !known.report, silentSince: known.report ? (known.silentSince ?? Date.now()) : null });
  show();
}

function silence() {
  known.silentSince ??= Date.now();
  show();
}

/** Renders the known state, and again at the next second of the countdown. */
function show() {
  clearTimeout(tick);
  const now = clock.now();
  view.show({ ...known, now });
  const { startsAt, endsAt } = known.report?.sale ?? {};
  const left = (now < startsAt ? startsAt : endsAt) - now;
  if (left > 0) tick = setTimeout(show, (left % SECOND_MS) + 1);
}
