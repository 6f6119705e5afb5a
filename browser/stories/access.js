// Accessibility: keyboard, screen reader, phone, dark mode.

import { strict as assert } from 'node:assert';
import { looksGood } from '../looks.js';
import { openSale } from '../shop.js';
import { story } from '../stage.js';

story('a buyer can use the page with the keyboard only', async (visit) => {
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

story('the button keeps the focus when it opens', async (visit) => {
  const buyer = await visit(await openSale({ startsIn: '2s' }));
  await buyer.seesButton('Not open yet', { open: false });
  await buyer.enters('ada');
  await buyer.page.keyboard.press('Tab');
  await buyer.seesButton('Buy one', { open: true });
  await buyer.page.keyboard.press('Enter');
  await buyer.receives();
});

story('a screen reader announces changes, but not each second', async (visit) => {
  const sale = await openSale({ startsIn: '4s', units: 50 });
  const buyer = await visit(sale);
  await buyer.seesButton('Not open yet', { open: false });
  await buyer.listens();
  await buyer.seesButton('Buy one', { open: true });
  for (const user of ['a', 'b', 'c']) await sale.sellTo(user);
  await buyer.sees('47 of 50 left');
  assert.deepEqual(await buyer.announcements(), ['Open now']);
  const meter = buyer.page.getByRole('meter', { name: 'Stock left' });
  assert.equal(await meter.getAttribute('aria-valuetext'), '47 of 50 left');
});

story('the page passes all checks in every state, light, dark and on a phone', async (visit) => {
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
  await looksGood(buyer, 'paused', 'The sale is paused.');
  await chair.resume();
  await buyer.seesButton('Buy one', { open: true });
  await buyer.buysAs('a.rather.long.name.of.a.buyer.with.patience@department.example.com');
  await looksGood(buyer, 'bought', 'One is yours.');
  await chair.end();
  await looksGood(await visit(chair), 'ended', 'The sale has ended');
});

story('dark mode has a dark background', async (visit) => {
  const sale = await openSale();
  const brightness = async (options) => {
    const buyer = await visit(sale, options);
    const color = await buyer.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    return Math.max(...color.match(/\d+/g).map(Number));
  };
  assert.ok((await brightness({ colorScheme: 'dark' })) < 40);
  assert.ok((await brightness({ colorScheme: 'light' })) > 220);
});

story('reduced motion disables transitions', async (visit) => {
  const buyer = await visit(await openSale(), { reducedMotion: 'reduce' });
  await buyer.seesButton('Buy one', { open: true });
  const moving = await buyer.page.evaluate(() =>
    [...document.querySelectorAll('*')].filter((node) => getComputedStyle(node).transitionDuration !== '0s').length);
  assert.equal(moving, 0);
});
