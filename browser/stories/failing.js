// Faults: lost connections, invalid tokens, and a node that dies.

import { strict as assert } from 'node:assert';
import { openSale, shop, until } from '../shop.js';
import { story } from '../stage.js';

story('the page reports a lost connection, and continues when it is back', async (visit) => {
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

story('the page ignores a short loss of the connection', async (visit) => {
  const buyer = await visit(await openSale());
  await buyer.seesButton('Buy one', { open: true });
  await buyer.context.setOffline(true);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  await buyer.context.setOffline(false);
  await buyer.listens();
  await buyer.buysAs('ada');
  await buyer.receives();
  assert.deepEqual(await buyer.announcements(), []);
});

story('the page replaces an invalid CSRF token without an error', async (visit) => {
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
  assert.deepEqual(await buyer.announcements(), []);
});

story('the page polls when the event stream is silent', async (visit) => {
  const sale = await openSale();
  const buyer = await visit(null);
  await buyer.getsNoEvents();
  await buyer.goesTo(sale);
  await buyer.sees('10 of 10 left');
  await sale.sellTo('first');
  await buyer.sees('9 of 10 left');
});

story('buyers can watch and buy when a node dies', async (visit) => {
  const sale = await openSale();
  // One of them receives events from the node that will be killed.
  const buyers = await Promise.all(shop.nodes.map(() => visit(sale)));
  await Promise.all(buyers.map((buyer) => buyer.seesButton('Buy one', { open: true })));
  await Promise.all(buyers.map((buyer) => buyer.listens()));

  process.kill(shop.nodes[0].pid, 'SIGKILL');

  await Promise.all(buyers.map((buyer, number) => buyer.buysAs(`buyer-${number}`)));
  await Promise.all(buyers.map((buyer) => buyer.receives()));
  await Promise.all(buyers.map((buyer) => buyer.sees(`${10 - buyers.length} of 10 left`)));
  await sale.sellTo('somebody-else');
  await Promise.all(buyers.map((buyer) => buyer.sees(`${9 - buyers.length} of 10 left`)));
  for (const buyer of buyers) assert.deepEqual(await buyer.announcements(), []);
});
