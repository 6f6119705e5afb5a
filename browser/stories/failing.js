// The connection fails, tokens change, and at last a node dies.

import { strict as assert } from 'node:assert';
import { openSale, shop, until } from '../shop.js';
import { story } from '../stage.js';

story('a buyer who loses the connection is told so, and goes on when it is back', async (visit) => {
  const buyer = await visit(await openSale());
  buyer.expects(/ERR_INTERNET_DISCONNECTED/);
  await buyer.seesButton('Buy one', { open: true });

  await buyer.context.setOffline(true);
  await buyer.sees('No connection to the shop.');
  await buyer.seesButton('Waiting for the connection…', { open: false });
  await buyer.pictures('offline');

  await buyer.context.setOffline(false);
  await buyer.seesButton('Buy one', { open: true });
  await buyer.doesNotSee('No connection to the shop.');
  await buyer.buysAs('ada');
  await buyer.receives();
});

story('a moment without a connection is nobody’s business', async (visit) => {
  const buyer = await visit(await openSale());
  await buyer.seesButton('Buy one', { open: true });
  await buyer.context.setOffline(true);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  await buyer.context.setOffline(false);
  await buyer.listens();
  await buyer.buysAs('ada');
  await buyer.receives();
  assert.deepEqual(await buyer.heard(), []);
});

story('a token that the shop does not take any more is replaced, and the buyer sees only success', async (visit) => {
  const buyer = await visit(await openSale());
  const tries = buyer.recordsTries();
  await buyer.seesButton('Buy one', { open: true });
  await until('cookie', async () => (await buyer.context.cookies()).some(({ name }) => name === 'csrfToken'));
  await buyer.context.addCookies([{ name: 'csrfToken', value: 'tampered', url: shop.url }]);

  await buyer.listens();
  await buyer.buysAs('ada');
  await buyer.receives();

  assert.equal(tries.length, 2);
  assert.equal(tries[0].key, tries[1].key);
  assert.deepEqual(await buyer.heard(), []);
});

story('a stream that never speaks is replaced by looking', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(null);
  await buyer.getsNoEvents();
  await buyer.goesTo(sale);
  await buyer.sees('10 of 10 left');
  await sale.sellTo('first');
  await buyer.sees('9 of 10 left');
});

story('a node that dies is not noticed by those who watch, and they buy', async (visit) => {
  const sale = await openSale();
  // One of them listens to the node that will die.
  const buyers = await Promise.all(shop.nodes.map(() => visit(sale)));
  await Promise.all(buyers.map((buyer) => buyer.seesButton('Buy one', { open: true })));
  await Promise.all(buyers.map((buyer) => buyer.listens()));

  process.kill(shop.nodes[0].pid, 'SIGKILL');

  await Promise.all(buyers.map((buyer, number) => buyer.buysAs(`buyer-${number}`)));
  await Promise.all(buyers.map((buyer) => buyer.receives()));
  await Promise.all(buyers.map((buyer) => buyer.sees(`${10 - buyers.length} of 10 left`)));
  await sale.sellTo('somebody-else');
  await Promise.all(buyers.map((buyer) => buyer.sees(`${9 - buyers.length} of 10 left`)));
  for (const buyer of buyers) assert.deepEqual(await buyer.heard(), []);
});
