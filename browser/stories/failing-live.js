// The coordinator dies while somebody looks.

import { comesBack, dies } from '../coordinator.js';
import { openSale, shop } from '../shop.js';
import { story } from '../stage.js';

story('live: a coordinator that dies takes nobody in, and is followed again when it is back', async (visit) => {
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
