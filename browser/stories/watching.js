// Changes of the sale while the page is open.

import { strict as assert } from 'node:assert';
import { openSale } from '../shop.js';
import { story } from '../stage.js';

story('the page shows the stock fall to sold out without a reload', async (visit) => {
  const sale = await openSale({ units: 2 });
  const buyer = await visit(sale);
  await buyer.sees('2 of 2 left');
  await sale.sellTo('first');
  await buyer.sees('1 of 2 left');
  await sale.sellTo('second');
  await buyer.sees('Sold out');
  await buyer.sees('All 2 units are sold.');
  await buyer.seesButton('Find my order', { open: true });
});

story('a buyer can look up an order after the sale is sold out', async (visit) => {
  const sale = await openSale({ units: 1 });
  const order = await sale.sellTo('ada');
  const buyer = await visit(sale);
  await buyer.seesButton('Find my order', { open: true });

  await buyer.enters('bob');
  await buyer.presses('Find my order');
  await buyer.sees('There is no order for this e-mail or customer number.');

  await buyer.enters('ada');
  await buyer.presses('Find my order');
  assert.equal(await buyer.receives(), order);
});

story('the page shows a pause, and continues after it', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(sale);
  await buyer.seesButton('Buy one', { open: true });

  await sale.pause();
  await buyer.seesButton('Paused', { open: false });
  await buyer.sees('The sale is paused.');

  await sale.resume();
  await buyer.seesButton('Buy one', { open: true });
  await buyer.buysAs('ada');
  await buyer.receives();
});

story('the page shows when an operator ends the sale', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(sale);
  await buyer.seesButton('Buy one', { open: true });
  await sale.end();
  await buyer.sees('The sale has ended');
  await buyer.doesNotSee('Buy one');
});

story('the page shows when the time of the sale is over', async (visit) => {
  const sale = await openSale({ endsIn: '3s' });
  const buyer = await visit(sale);
  await buyer.sees(/^Closes in 00:0[123]$/);
  await buyer.sees('The sale has ended');
  await buyer.sees(/^It was open until /);
});

story('a restock opens a sold-out sale again', async (visit) => {
  const sale = await openSale({ units: 1 });
  await sale.sellTo('first');
  const buyer = await visit(sale);
  await buyer.sees('Sold out');
  await sale.restock(1);
  await buyer.seesButton('Buy one', { open: true });
});
