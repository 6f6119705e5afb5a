// Shows each shard as a tank: it drains as the shard sells, and fills when tokens arrive from another.

import { fly } from './flow.js';
import * as words from './words.js';

const LABEL_MS = 2_400;
// With more shards than this there is no room for labels.
const WRITTEN_MAX = 48;

const tanks = document.querySelector('#tanks');
const labels = new WeakMap();

/** Shows the shards' levels, and the tokens that moved. */
export function show(shards, moves) {
  if (tanks.childElementCount !== shards.length) tanks.replaceChildren(...shards.map((_, number) => tank(number)));
  tanks.style.setProperty('--shards', shards.length);
  tanks.classList.toggle('many', shards.length > WRITTEN_MAX);
  const full = Math.max(1, ...shards.map(({ stock, minted }) => Math.max(stock, minted)));
  shards.forEach((shard, number) => fill(tanks.children[number], shard, full));
  for (const { from, to, tokens } of moves) move(tanks.children[from], tanks.children[to], tokens);
}

function tank(number) {
  const item = document.createElement('li');
  const glass = document.createElement('div');
  const level = document.createElement('span');
  glass.className = 'glass';
  glass.setAttribute('role', 'meter');
  glass.setAttribute('aria-label', `Shard ${number}`);
  glass.setAttribute('aria-valuemin', '0');
  glass.append(level);
  item.append(part('label'), glass, part('count'), part('number', String(number)));
  return item;
}

function part(name, content = '') {
  const node = document.createElement('span');
  node.className = name;
  node.textContent = content;
  node.setAttribute('aria-hidden', 'true');
  return node;
}

function fill(item, shard, full) {
  const { stock, trouble } = shard;
  const [glass, count] = [item.querySelector('.glass'), item.querySelector('.count')];
  glass.style.setProperty('--level', stock / full);
  glass.setAttribute('aria-valuemax', full);
  glass.setAttribute('aria-valuenow', stock);
  glass.setAttribute('aria-valuetext', words.shard(shard));
  item.dataset.is = trouble ? 'trouble' : stock === 0 ? 'empty' : 'well';
  const written = trouble ? words.shardTrouble(trouble) : words.short(stock);
  if (count.textContent !== written) count.textContent = written;
}

function move(giver, receiver, tokens) {
  if (!giver || !receiver) return;
  label(giver, 'gave', tokens);
  label(receiver, 'got', tokens);
  fly(giver.querySelector('.glass > span'), receiver.querySelector('.glass > span'), tokens);
}

/** Shows the tokens that arrived or left for a moment; further ones in the same direction are added. */
function label(item, what, tokens) {
  const node = item.querySelector('.label');
  const shown = labels.get(node);
  clearTimeout(shown?.over);
  const sum = (shown?.what === what ? shown.sum : 0) + tokens;
  node.textContent = `${what === 'got' ? '+' : '−'}${words.short(sum)}`;
  node.dataset.what = what;
  item.dataset.moved = what;
  const over = setTimeout(() => {
    labels.delete(node);
    node.textContent = '';
    delete item.dataset.moved;
  }, LABEL_MS);
  labels.set(node, { what, sum, over });
}
