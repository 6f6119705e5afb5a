// Common setup and teardown of all stories.

import { after, test } from 'node:test';
import { Buyer, closeBrowser } from './buyer.js';

const STORY_MS_MAX = 60_000;

after(closeBrowser);

/**
 * Defines a test. `run` receives `visit(sale, options)`, which opens a page as a buyer, or as a viewer `at` another address.
 * At the end no page may have unexpected console errors.
 */
export function story(name, run) {
  test(name, { timeout: STORY_MS_MAX }, async () => {
    const buyers = [];
    const visit = async (sale, options) => {
      const buyer = await Buyer.arrive(sale, options);
      buyers.push(buyer);
      return buyer;
    };
    try {
      await run(visit);
      buyers.forEach((buyer) => buyer.assertNothingWentWrong());
    } catch (error) {
      error.message += (await Promise.all(buyers.map((buyer) => buyer.describe(name)))).join('');
      throw error;
    } finally {
      await Promise.all(buyers.map((buyer) => buyer.leave()));
    }
  });
}
