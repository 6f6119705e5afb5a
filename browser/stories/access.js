// For everybody: with a keyboard, a screen reader, a phone, in the dark.

import { strict as assert } from 'node:assert';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { openSale, story } from '../stage.js';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PHONE = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true };

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

for (const [name, options] of [['light', {}], ['dark', { colorScheme: 'dark' }], ['phone', PHONE]]) {
  story(`the page is sound in every state (${name})`, async (visit) => {
    const check = async (sale, state, go = () => {}) => {
      const buyer = await visit(sale, options);
      await buyer.page.locator('body:not([data-phase=loading])').waitFor();
      await go(buyer);
      await buyer.pictures(`${state}-${name}`);
      await assertAccessible(buyer, state);
      await assertFits(buyer, state);
    };
    const open = await openSale({ units: 4, name: 'Halden lounge chair' });
    await open.sellTo('first');
    await check(await openSale({ startsIn: '3h', endsIn: '4h', units: 1_000 }), 'upcoming');
    await check(open, 'active');
    await check(open, 'asked', async (buyer) => {
      await buyer.presses('Buy one');
      await buyer.sees('Please enter');
    });
    await check(open, 'bought', async (buyer) => {
      await buyer.buysAs('a.rather.long.name.of.a.buyer.with.patience@department.example.com');
      await buyer.receives();
    });
    await open.pause();
    await check(open, 'paused', (buyer) => buyer.sees('Paused'));
    await open.end();
    await check(open, 'ended', (buyer) => buyer.sees('The sale has ended'));
    const small = await openSale({ units: 1, name: 'Donaudampfschifffahrtskapitänsmützenständer' });
    await small.sellTo('first');
    await check(small, 'sold-out', (buyer) => buyer.sees('Sold out'));
    await check({ id: 'no-such-sale' }, 'no-sale');
  });
}

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

async function assertAccessible(buyer, state) {
  await buyer.page.evaluate(AXE);
  const { violations } = await buyer.page.evaluate(() => axe.run());
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(', ')}`);
  assert.deepEqual(found, [], `axe finds fault with the page when ${state}`);
}

async function assertFits(buyer, state) {
  const [needed, has] = await buyer.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(needed <= has, `when ${state} the page is ${needed} px wide on a screen of ${has} px`);
}
