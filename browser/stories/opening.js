// The time before the opening, and the opening.

import { strict as assert } from 'node:assert';
import { openSale } from '../shop.js';
import { story } from '../stage.js';

const HOURS_MS = 3_600_000;

story('the button opens at the start without a reload', async (visit) => {
  const sale = await openSale({ startsIn: '3s' });
  const buyer = await visit(sale);
  await buyer.sees('Opens in');
  await buyer.sees(/^00:0\d$/);
  await buyer.seesButton('Not open yet', { open: false });
  await buyer.enters('ann@example.com');

  await buyer.pressesAnyway('Not open yet');
  await buyer.sees('It is not open yet. The button opens automatically.');

  await buyer.seesButton('Buy one for 349.00', { open: true });
  await buyer.sees('Open now');
  await buyer.doesNotSee('It is not open yet');
  await buyer.presses('Buy one');
  assert.equal(await buyer.receives(), await sale.orderOf('ann@example.com'));
});

story('the countdown is right when the browser clock is wrong', async (visit) => {
  const sale = await openSale({ startsIn: '4s' });
  const buyers = await Promise.all([-5, 5].map((hours) => visit(sale, { clockOff: hours * HOURS_MS })));
  for (const buyer of buyers) {
    await buyer.seesButton('Not open yet', { open: false });
    await buyer.sees(/^00:0[1-4]$/);
  }
  for (const buyer of buyers) {
    await buyer.seesButton('Buy one', { open: true });
    await buyer.sees(/^Closes in 59:/);
  }
});

story('the countdown shows days', async (visit) => {
  const sale = await openSale({ startsIn: '50h', endsIn: '60h', units: 1_000 });
  const buyer = await visit(sale);
  await buyer.sees(/^2 d 01:59:/);
  await buyer.sees('1,000 of 1,000 left');
});
