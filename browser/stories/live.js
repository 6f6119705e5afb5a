// The live view for operators.

import { strict as assert } from 'node:assert';
import { looksGood } from '../looks.js';
import { PATIENCE_MS, openSale, shop, until } from '../shop.js';
import { falsifyBooks, freezePrimary } from '../redis.js';
import { story } from '../stage.js';

const at = shop.coordinators[0].url;

/** Waits until the element has this text. */
async function shows(viewer, id, text) {
  const place = viewer.page.locator(`#${id}`).filter({ hasText: text });
  await place.waitFor({ timeout: PATIENCE_MS }).catch(async () => assert.fail(`#${id} never had the text ${text}`));
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

story('live: the view counts down and shows the opening', async (visit) => {
  const viewer = await visit(await openSale({ startsIn: '4s', units: 1_200 }), { at });
  await viewer.sees('Opens in');
  await shows(viewer, 'clock', /^00:0\d$/);
  await shows(viewer, 'left', /^1,200$/);
  await viewer.sees('Open. Closes in');
  await shows(viewer, 'clock', /^59:/);
});

story('live: the view shows purchases within a second, and their rate', async (visit) => {
  const sale = await openSale({ units: 500 });
  const viewer = await visit(sale, { at });
  await shows(viewer, 'left', /^500$/);

  await sale.sellTo('first');
  const sold = performance.now();
  await shows(viewer, 'left', /^499$/);
  const took = performance.now() - sold;
  assert.ok(took < 1_000, `seen after ${took} ms`);

  for (let buyer = 0; buyer < 30; buyer += 1) await sale.sellTo(`buyer-${buyer}`);
  await shows(viewer, 'sold', /^31$/);
  await shows(viewer, 'rate', /^[1-9]/);
  await shows(viewer, 'soldout', /^in \d/);
  await shows(viewer, 'peak', /^At most [1-9]/);
});

story('live: the view shows the donor and number of stolen tokens', async (visit) => {
  const sale = await openSale({ units: 24 });
  const viewer = await visit(sale, { at });
  await shows(viewer, 'left', /^24$/);
  const seen = viewer.page.evaluate(() => new Promise((resolve) => {
    const look = () => {
      const tanks = document.querySelector('[data-moved=got] .label')?.textContent;
      const dots = document.querySelectorAll('#flow i').length;
      if (tanks && dots) resolve({ tanks, dots });
      else requestAnimationFrame(look);
    };
    look();
  }));

  for (let buyer = 0; buyer < 24; buyer += 1) await sale.sellTo(`buyer-${buyer}`);

  const { tanks, dots } = await seen;
  assert.match(tanks, /^\+\d+$/);
  assert.ok(dots > 0);
  await shows(viewer, 'moved', /^\d+ from shard \d+ to \d+; \d+ moved in all$/);
  await viewer.sees('Sold out. Closes in');
  await shows(viewer, 'left', /^0$/);
  await shows(viewer, 'broken', /^0$/);
});

story('live: several viewers see the same numbers', async (visit) => {
  const sale = await openSale({ units: 40 });
  const viewers = await Promise.all([1, 2, 3].map(() => visit(sale, { at })));
  await Promise.all(viewers.map((viewer) => shows(viewer, 'left', /^40$/)));
  for (const user of ['a', 'b', 'c']) await sale.sellTo(user);
  await Promise.all(viewers.map((viewer) => shows(viewer, 'left', /^37$/)));
  const tanks = (viewer) => viewer.page.locator('#tanks .count').allInnerTexts();
  const [first, ...others] = await Promise.all(viewers.map(tanks));
  others.forEach((other) => assert.deepEqual(other, first));
  assert.equal(first.map(Number).reduce((sum, stock) => sum + stock), 37);
});

story('live: a late viewer sees the last minutes', async (visit) => {
  const sale = await openSale({ units: 100 });
  // The coordinator stores one point per second, also without viewers.
  for (let second = 0; second < 4; second += 1) {
    for (const user of ['a', 'b', 'c']) await sale.sellTo(`${user}-${second}`);
    await pause(1_000);
  }
  await pause(3_000);
  const viewer = await visit(sale, { at });
  await shows(viewer, 'rate', /^0$/);
  await shows(viewer, 'peak', /^At most [1-9]/);
});

story('live: a viewer can select another sale, and an unknown sale is reported', async (visit) => {
  const [one, other] = [await openSale({ units: 11, name: 'Lamp' }), await openSale({ units: 22, name: 'Desk' })];
  const viewer = await visit(one, { at });
  await shows(viewer, 'of', /^left of 11$/);
  await viewer.page.getByLabel('Sale', { exact: true }).selectOption(other.id);
  await shows(viewer, 'of', /^left of 22$/);
  assert.equal(new URL(viewer.page.url()).search, `?sale=${other.id}`);
  assert.equal(await viewer.page.getByLabel('Sale', { exact: true }).inputValue(), other.id);

  await (await visit({ id: 'no-such-sale' }, { at })).sees('There is no such sale');
  await shows(await visit(null, { at }), 'name', /^Flash sale item$/);
});

story('live: the view lists all processes and the leader', async (visit) => {
  const viewer = await visit(await openSale(), { at });
  const running = shop.nodes.length + shop.coordinators.length;
  await shows(viewer, 'processes', new RegExp(`^([0-9a-f]{8}[^]*up [^]*){${running}}`));
  await shows(viewer, 'processes', /coordinator, leads/);
  const text = await viewer.page.locator('#processes').innerText();
  for (const { url } of [...shop.nodes, ...shop.coordinators]) {
    assert.ok(!text.includes(`:${new URL(url).port}`), `the view names a port in ${text}`);
  }
});

story('live: the view passes all checks in every state, light, dark and on a phone', async (visit) => {
  await looksGood(await visit(await openSale({ startsIn: '3h', endsIn: '4h' }), { at }), 'live-upcoming', 'Opens in');
  await looksGood(await visit({ id: 'no-such-sale' }, { at }), 'live-no-sale', 'There is no such sale');
  const sale = await openSale({ units: 30, name: 'Donaudampfschifffahrtskapitänsmützenständer' });
  const viewer = await visit(sale, { at });
  for (let buyer = 0; buyer < 27; buyer += 1) await sale.sellTo(`buyer-${buyer}`);
  await looksGood(viewer, 'live-open', 'Open. Closes in');
  await sale.pause();
  await looksGood(viewer, 'live-paused', 'Paused.');
  await sale.end();
  await looksGood(viewer, 'live-ended', 'The sale has ended');
});

story('live: the view shows a violation', async (visit) => {
  const sale = await openSale();
  const viewer = await visit(sale, { at });
  await shows(viewer, 'how', 'All books add up.');
  await falsifyBooks(sale);
  await looksGood(viewer, 'live-broken', 'A promise is broken: 1 shard whose books do not add up');
  await shows(viewer, 'broken', /^1$/);
});

story('live: reduced motion disables animations', async (visit) => {
  const sale = await openSale({ units: 24 });
  const viewer = await visit(sale, { at, reducedMotion: 'reduce' });
  await viewer.page.evaluate(() => {
    globalThis.dots = 0;
    new MutationObserver(() => { globalThis.dots += 1; }).observe(document.querySelector('#flow'), { childList: true });
  });
  for (let buyer = 0; buyer < 24; buyer += 1) await sale.sellTo(`buyer-${buyer}`);
  await shows(viewer, 'moved', /moved in all$/);
  assert.equal(await viewer.page.evaluate(() => globalThis.dots), 0);
  const moving = await viewer.page.evaluate(() => document.getAnimations().length);
  assert.equal(moving, 0);
});

story('live: the view marks a shard that does not answer and keeps its stock', async (visit) => {
  const sale = await openSale({ units: 120 });
  const viewer = await visit(sale, { at });
  await shows(viewer, 'left', /^120$/);
  const primary = await freezePrimary(sale);
  try {
    await shows(viewer, 'tanks', 'no answer');
    await viewer.sees(/not answer: these numbers are older$/);
    await shows(viewer, 'left', /^120$/);
    await viewer.pictures('live-unreadable');
  } finally {
    primary.thaw();
  }
  await until('answer of all shards', async () => !(await viewer.page.locator('#tanks').innerText()).includes('no answer'));
  await shows(viewer, 'how', 'All books add up.');
});
