// The coordinator dies while the live view is open.

import { comesBack, dies } from '../coordinator.js';
import { openSale, shop } from '../shop.js';
import { story } from '../stage.js';

story('live: the view reports when the coordinator dies, and follows it after a restart', async (visit) => {
  const sale = await openSale({ units: 60 });
  const viewer = await visit(sale, { at: shop.coordinators[0].url });
  viewer.expects(/ERR_(CONNECTION|INCOMPLETE|EMPTY)/);
  await viewer.sees(/^Live$/);

  dies();
  await viewer.sees(/^Not live since \d\d:\d\d:\d\d\. Trying again…$/);
  await viewer.pictures('live-not-live');
  await sale.sellTo('meanwhile');

  await comesBack();
  await viewer.sees(/^Live$/);
  await viewer.page.locator('#left').filter({ hasText: /^59$/ }).waitFor();
});
