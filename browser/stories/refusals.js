// Messages when a purchase is refused or delayed.

import { strict as assert } from 'node:assert';
import { looksGood } from '../looks.js';
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

const SIGN_IN = 'https://login.shop.example/sign-in?to=sale';

/** Returns a token as the shop issues it. The page reads the user from it, and does not verify it. */
const tokenOf = (user) => `e30.${Buffer.from(JSON.stringify({ sub: user })).toString('base64url')}.c2ln`;

story('a sign-in at the shop replaces the user id and leaves the address', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(sale);
  await buyer.offersSignIn(SIGN_IN, (state) => `/#token=${tokenOf('ada')}&state=${state}`);
  const tries = buyer.recordsTries();
  await buyer.seesButton('Buy one', { open: true });
  await buyer.doesNotSee('Your e-mail or customer number');
  await looksGood(buyer, 'sign-in', 'Sign in');

  // A buyer who presses the button to buy is sent to the sign-in, too.
  await buyer.presses('Buy one');
  await buyer.follows('Continue to the sale');
  await buyer.seesButton('Buy one', { open: true });
  await buyer.doesNotSee('Sign in');
  assert.equal(new URL(buyer.page.url()).hash, '');
  assert.equal(new URL(buyer.page.url()).search, `?sale=${sale.id}`);

  await buyer.reloads();
  await buyer.seesButton('Buy one', { open: true });
  await buyer.presses('Buy one');
  await buyer.receives();
  assert.equal(tries[0].authorization, `Bearer ${tokenOf('ada')}`);
});

story('a token in the link of another site signs no one in', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(sale);
  const tries = buyer.recordsTries();
  const links = ['', '&state=', '&state=undefined', '&state=00000000000000000000000000000000'];
  for (const more of links) {
    await buyer.followsLinkOfAnotherSite(`/?sale=${sale.id}#token=${tokenOf('mallory')}${more}`);
    await buyer.seesButton('Buy one', { open: true });
    assert.equal(new URL(buyer.page.url()).hash, '');
    await buyer.sees('Your e-mail or customer number');
  }
  await buyer.buysAs('ada');
  await buyer.receives();
  assert.equal(tries[0].authorization, undefined);
});

story('a stranger cannot replace a buyer who signs in or has signed in', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(sale);
  let used;
  await buyer.offersSignIn(SIGN_IN, (state) => `/#token=${tokenOf('ada')}&state=${(used = state)}`);
  const tries = buyer.recordsTries();
  // While the buyer is at the shop.
  await buyer.presses('Sign in');
  await buyer.sees('Continue to the sale');
  await buyer.followsLinkOfAnotherSite(`/?sale=${sale.id}#token=${tokenOf('mallory')}&state=guessed`);
  await buyer.sees('Sign in');
  // And afterwards, with a state that has been used.
  await buyer.presses('Sign in');
  await buyer.follows('Continue to the sale');
  await buyer.seesButton('Buy one', { open: true });
  await buyer.followsLinkOfAnotherSite(`/?sale=${sale.id}#token=${tokenOf('mallory')}&state=${used}`);
  await buyer.seesButton('Buy one', { open: true });
  await buyer.presses('Buy one');
  await buyer.receives();
  assert.equal(tries[0].authorization, `Bearer ${tokenOf('ada')}`);
});

story('a buyer whose sign-in has expired can sign in again', async (visit) => {
  const buyer = await visit(await openSale());
  await buyer.offersSignIn(SIGN_IN, (state) => `/#token=${tokenOf('ada')}&state=${state}`);
  await buyer.presses('Sign in');
  await buyer.follows('Continue to the sale');
  await buyer.interferes('**/purchase', respondRetryAfter(401, '/problems/unauthenticated'));
  await buyer.presses('Buy one');
  await buyer.sees('Please sign in at the shop first.');
  await buyer.presses('Sign in');
  await buyer.follows('Continue to the sale');
  await buyer.seesButton('Buy one', { open: true });
  await buyer.presses('Buy one');
  await buyer.receives();
});
