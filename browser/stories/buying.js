// Buying: from the button to the receipt.

import { strict as assert } from 'node:assert';
import { openSale } from '../shop.js';
import { story } from '../stage.js';

story('a buyer gets a unit and its order number', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(sale);
  await buyer.seesButton('Buy one for 349.00', { open: true });

  await buyer.buysAs(' ada@example.com ');

  assert.equal(await buyer.receives(), await sale.orderOf('ada@example.com'));
  await buyer.sees('ada@example.com');
  await buyer.sees('9 of 10 left');
});

story('a receipt is shown again after a reload', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(sale);
  await buyer.buysAs('ada');
  const order = await buyer.receives();

  await buyer.reloads();

  assert.equal(await buyer.receives(), order);
  await sale.hasLeft(9);
});

story('a remembered buyer gets the receipt from the shop', async (visit) => {
  const [first, second] = [await openSale(), await openSale()];
  const order = await second.sellTo('ada');
  const buyer = await visit(first);
  await buyer.buysAs('ada');
  await buyer.receives();

  await buyer.goesTo(second);

  assert.equal(await buyer.receives(), order);
});

story('a buyer who has a unit gets its receipt in another browser', async (visit) => {
  const sale = await openSale();
  const order = await sale.sellTo('ada');
  const buyer = await visit(sale);

  await buyer.buysAs('ada');

  assert.equal(await buyer.receives('You have one already.'), order);
  await sale.hasLeft(9);
});

story('two users of one browser buy one each', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(sale);
  await buyer.buysAs('ada');
  const order = await buyer.receives();

  await buyer.presses('Not you?');
  await buyer.buysAs('bob');

  assert.notEqual(await buyer.receives(), order);
  await buyer.sees('8 of 10 left');
});

story('a double click buys once', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(sale);
  const tries = buyer.recordsTries();
  await buyer.enters('ada');
  await buyer.page.getByRole('button', { name: 'Buy one' }).dblclick();
  await buyer.receives();
  assert.equal(tries.length, 1);
  await sale.hasLeft(9);
});
