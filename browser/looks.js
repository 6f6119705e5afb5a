// Checks of a page in dark and light mode and on a phone: screenshots, width and accessibility.

import { strict as assert } from 'node:assert';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { DESK } from './buyer.js';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PHONE = { width: 360, height: 740 };

/** Waits for this text, then checks the page in dark mode, on a phone and in light mode. */
export async function looksGood(buyer, state, words) {
  await buyer.sees(words);
  await buyer.page.evaluate(AXE);
  for (const [name, screen] of [['dark', DESK], ['phone', PHONE], ['light', DESK]]) {
    await buyer.page.emulateMedia({ colorScheme: name === 'dark' ? 'dark' : 'light' });
    await buyer.page.setViewportSize(screen);
    await buyer.pictures(`${state}-${name}`);
    await assertFits(buyer, state, screen);
    if (name === 'light') await assertAccessible(buyer, state);
    if (name === 'dark') await assertAccessible(buyer, `${state}, dark mode`, ['color-contrast']);
  }
}

async function assertAccessible(buyer, state, rules) {
  const options = { runOnly: rules, resultTypes: ['violations'] };
  const { violations } = await buyer.page.evaluate((given) => axe.run(given), options);
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(', ')}`);
  assert.deepEqual(found, [], `axe reports violations in state ${state}`);
}

async function assertFits(buyer, state, { width }) {
  const needed = await buyer.page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(needed <= width, `in state ${state} the page is ${needed} px wide on a screen of ${width} px`);
}
