// For everybody: with a keyboard, a screen reader, a phone, in the dark.

import { strict as assert } from 'node:assert';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { DESK } from '../buyer.js';
import { openSale } from '../shop.js';
import { story } from '../stage.js';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PHONE = { width: 360, height: 740 };

story('a keyboard is enough', async (visit) => {
  const buyer = await visit(await openSale());
  const { keyboard } = buyer.page;
  await buyer.seesButton('Buy one', { open: true });
  await keyboard.press('Tab');
  await keyboard.type('ada');
  await keyboard.press('Tab');
  assert.match(await buyer.focused(), /^Buy one/);
  await keyboard.press('Enter');
  await buyer.receives();
  assert.equal(await buyer.focused(), 'One is yours.');
  await keyboard.press('Tab');
  assert.equal(await buyer.focused(), 'Not you?');
});

story('who waits with the focus on the button keeps it when the button opens', async (visit) => {
  const buyer = await visit(await openSale({ startsIn: '2s' }));
  await buyer.seesButton('Not open yet', { open: false });
  await buyer.enters('ada');
  await buyer.page.keyboard.press('Tab');
  await buyer.seesButton('Buy one', { open: true });
  await buyer.page.keyboard.press('Enter');
  await buyer.receives();
});

story('a screen reader hears what matters, and not each second', async (visit) => {
  const sale = await openSale({ startsIn: '4s', units: 50 });
  const buyer = await visit(sale);
  await buyer.seesButton('Not open yet', { open: false });
  await buyer.listens();
  await buyer.seesButton('Buy one', { open: true });
  for (const user of ['a', 'b', 'c']) await sale.sellTo(user);
  await buyer.sees('47 of 50 left');
  assert.deepEqual(await buyer.heard(), ['Open now']);
  const meter = buyer.page.getByRole('meter', { name: 'Stock left' });
  assert.equal(await meter.getAttribute('aria-valuetext'), '47 of 50 left');
});

story('the page is sound in every state, by day, by night and on a phone', async (visit) => {
  const chair = await openSale({ units: 40 });
  for (const user of ['a', 'b', 'c', 'd', 'e', 'f', 'g']) await chair.sellTo(user);
  const one = await openSale({ units: 1, name: 'Donaudampfschifffahrtskapitänsmützenständer' });
  await one.sellTo('first');

  await looksGood(await visit(await openSale({ startsIn: '3h', endsIn: '4h', units: 1_000 })), 'upcoming', 'Opens in');
  await looksGood(await visit(one), 'sold-out', 'Sold out');
  await looksGood(await visit({ id: 'no-such-sale' }), 'no-sale', 'There is no such sale');
  const buyer = await visit(chair);
  await looksGood(buyer, 'active', 'Open now');
  await buyer.presses('Buy one');
  await looksGood(buyer, 'asked', 'Please enter');
  await chair.pause();
  await looksGood(buyer, 'paused', 'The shop holds the sale.');
  await chair.resume();
  await buyer.seesButton('Buy one', { open: true });
  await buyer.buysAs('a.rather.long.name.of.a.buyer.with.patience@department.example.com');
  await looksGood(buyer, 'bought', 'One is yours.');
  await chair.end();
  await looksGood(await visit(chair), 'ended', 'The sale has ended');
});

story('the dark page is dark', async (visit) => {
  const sale = await openSale();
  const brightness = async (options) => {
    const buyer = await visit(sale, options);
    const color = await buyer.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    return Math.max(...color.match(/\d+/g).map(Number));
  };
  assert.ok((await brightness({ colorScheme: 'dark' })) < 40);
  assert.ok((await brightness({ colorScheme: 'light' })) > 220);
});

story('whoever wants no motion gets none', async (visit) => {
  const buyer = await visit(await openSale(), { reducedMotion: 'reduce' });
  await buyer.seesButton('Buy one', { open: true });
  const moving = await buyer.page.evaluate(() =>
    [...document.querySelectorAll('*')].filter((node) => getComputedStyle(node).transitionDuration !== '0s').length);
  assert.equal(moving, 0);
});

/** Waits for these words, then looks at it in every way that people do. */
async function looksGood(buyer, state, words) {
  await buyer.sees(words);
  await buyer.page.evaluate(AXE);
  for (const [name, screen] of [['dark', DESK], ['phone', PHONE], ['light', DESK]]) {
    await buyer.page.emulateMedia({ colorScheme: name === 'dark' ? 'dark' : 'light' });
    await buyer.page.setViewportSize(screen);
    await buyer.pictures(`${state}-${name}`);
    await assertFits(buyer, state, screen);
    if (name === 'light') await assertAccessible(buyer, state);
    if (name === 'dark') await assertAccessible(buyer, `${state}, and dark`, ['color-contrast']);
  }
}

async function assertAccessible(buyer, state, rules) {
  const options = { runOnly: rules, resultTypes: ['violations'] };
  const { violations } = await buyer.page.evaluate((given) => axe.run(given), options);
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(', ')}`);
  assert.deepEqual(found, [], `axe finds fault with the page when ${state}`);
}

async function assertFits(buyer, state, { width }) {
  const needed = await buyer.page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(needed <= width, `when ${state} the page is ${needed} px wide on a screen of ${width} px`);
}
