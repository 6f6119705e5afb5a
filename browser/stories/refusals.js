// Messages when a purchase is refused or delayed.

import { strict as assert } from 'node:assert';
import { openSale } from '../shop.js';
import { story } from '../stage.js';

story('an unknown sale is reported', async (visit) => {
  const buyer = await visit({ id: 'no-such-sale' });
  await buyer.sees('There is no such sale');
  await buyer.doesNotSee('Your e-mail or customer number');
  await buyer.goesTo({ id: '..' });
  await buyer.sees('There is no such sale');
});

story('the page shows the default sale without a sale in the address', async (visit) => {
  const buyer = await visit(null);
  await buyer.seesButton('Buy one', { open: true });
});

story('the page asks for a missing user id', async (visit) => {
  const buyer = await visit(await openSale());
  await buyer.seesButton('Buy one', { open: true });
  await buyer.presses('Buy one');
  await buyer.sees('Please enter your e-mail or customer number.');
  await buyer.buysAs('ada');
  await buyer.receives();
});

story('the page asks again for an invalid user id', async (visit) => {
  const buyer = await visit(await openSale());
  await buyer.buysAs('ä'.repeat(128));
  await buyer.sees('This is not a valid e-mail or customer number.');
  await buyer.buysAs('ada');
  await buyer.receives();
});

story('a buyer who is too late gets sold out', async (visit) => {
  const sale = await openSale({ units: 1 });
  const buyer = await visit(sale);
  await buyer.freezeStatus();
  await sale.sellTo('first');
  await buyer.buysAs('late');
  await buyer.sees('Sold out: no unit is left.');
});

const respondRetryAfter = (status, type, seconds = 1) => (route) =>
  route.fulfill({
    status,
    headers: { 'Retry-After': String(seconds) },
    contentType: 'application/problem+json',
    body: JSON.stringify({ type, status }),
  });

for (const [status, type, words] of [
  [429, '/problems/too-many-requests', 'The shop asks you to wait a moment. Still trying, 2 of 8.'],
  [503, '/problems/busy', 'Many buyers are waiting. Still trying, 2 of 8.'],
]) {
  story(`a ${status} is retried after Retry-After, in the same attempt`, async (visit) => {
    const buyer = await visit(await openSale());
    const tries = buyer.recordsTries();
    await buyer.interferes('**/purchase', respondRetryAfter(status, type));

    await buyer.buysAs('ada');
    await buyer.sees(words);
    await buyer.seesButton('Still trying…', { open: false });
    await buyer.pictures(`still-trying-${status}`);
    await buyer.receives();

    const [first, second, ...more] = tries;
    assert.deepEqual(more, []);
    assert.ok(second.at - first.at >= 1_000, `came back after ${second.at - first.at} ms`);
    assert.equal(first.key, second.key);
  });
}

story('a retry after a lost answer is recognized as the same attempt', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(sale);
  const tries = buyer.recordsTries();
  await buyer.interferes('**/purchase', async (route) => {
    await route.fetch();
    await route.abort('connectionreset');
  });

  await buyer.buysAs('ada');

  assert.equal(await buyer.receives('One is yours.'), await sale.orderOf('ada'));
  await sale.hasLeft(9);
  assert.deepEqual(tries.map((again) => again.key), [tries[0].key, tries[0].key]);
});

story('the page gives up when Retry-After is too long', async (visit) => {
  const buyer = await visit(await openSale());
  await buyer.interferes('**/purchase', respondRetryAfter(429, '/problems/too-many-requests', 120));
  await buyer.buysAs('ada');
  await buyer.sees('Too many tries. Nothing was bought. Please try again in 2 minutes.');
  await buyer.seesButton('Buy one', { open: true });
});

story('the page asks for a sign-in when the shop requires one', async (visit) => {
  const buyer = await visit(await openSale());
  await buyer.interferes('**/purchase', respondRetryAfter(401, '/problems/unauthenticated'));
  await buyer.buysAs('ada');
  await buyer.sees('Please sign in at the shop first.');
});

story('a sign-in token replaces the user id and leaves the address', async (visit) => {
  const sale = await openSale();
  const claims = Buffer.from(JSON.stringify({ sub: 'ada' })).toString('base64url');
  const token = `e30.${claims}.c2ln`;
  const buyer = await visit(sale, { path: `/?sale=${sale.id}#token=${token}` });
  const tries = buyer.recordsTries();
  await buyer.seesButton('Buy one', { open: true });
  await buyer.doesNotSee('Your e-mail or customer number');
  assert.equal(new URL(buyer.page.url()).hash, '');

  await buyer.reloads();
  await buyer.seesButton('Buy one', { open: true });
  await buyer.presses('Buy one');
  await buyer.receives();
  assert.equal(tries[0].authorization, `Bearer ${token}`);
});
