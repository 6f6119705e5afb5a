// The stage: the shop that `up` runs, sales that its operator opens, and buyers with a browser in front of them.
//
// UP_JSON is the file that `up` wrote, CHROMIUM the browser, SCREENSHOTS the folder of what buyers saw.

import { strict as assert } from 'node:assert';
import { mkdirSync, readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { chromium } from 'playwright-core';

const { UP_JSON = '../.local/up.json', CHROMIUM = '/usr/bin/chromium', SCREENSHOTS = '../.local/screenshots' } = process.env;

// What a buyer waits for comes within this time, or not at all: longer than any pause of the page.
const PATIENCE_MS = 15_000;
const STORY_MS_MAX = 60_000;

export const shop = JSON.parse(readFileSync(UP_JSON));
mkdirSync(SCREENSHOTS, { recursive: true });

let browser;
after(() => browser?.close());

/** A test. `run` is handed `visit(sale, options)`, which brings a buyer; afterwards nothing may be wrong with any. */
export function story(name, run) {
  test(name, { timeout: STORY_MS_MAX }, async () => {
    browser ??= await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
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

/** Opens a sale that no other story has. Times are relative to now, as the admin API takes them. */
export async function openSale({ units = 10, startsIn = '0s', endsIn = '1h', name = 'Halden lounge chair', price = 349 } = {}) {
  openSale.count = (openSale.count ?? 0) + 1;
  const id = `story-${process.pid}-${openSale.count}`;
  const sale = { id, totalStock: units, startsAt: startsIn, endsAt: endsIn, productName: name, productPrice: price };
  await ask(`${shop.coordinators[0].url}/admin/sales`, sale, { Authorization: `Bearer ${shop.adminToken}` });
  return new Sale(id);
}

class Sale {
  constructor(id) {
    this.id = id;
  }

  pause = () => this.#change('pause');
  resume = () => this.#change('resume');
  end = () => this.#change('end');
  restock = (units) => this.#change('restock', { units });

  /** Somebody else buys, without a browser. */
  async sellTo(user) {
    const url = `${shop.url}/api/sales/${this.id}/purchase`;
    return until(`a purchase by ${user}`, async () => (await ask(url, { userId: user })).orderId);
  }

  /** The order of a user, as the shop knows it. */
  async orderOf(user) {
    const response = await fetch(`${shop.url}/api/sales/${this.id}/purchase/${encodeURIComponent(user)}`);
    return (await response.json()).orderId;
  }

  /** Waits until the shop says that so many are left. */
  async hasLeft(units) {
    const url = `${shop.url}/api/sales/${this.id}/status`;
    await until(`word of ${units} units left`, async () => (await (await fetch(url)).json()).remainingStock === units);
  }

  #change(what, how) {
    const url = `${shop.coordinators[0].url}/admin/sales/${this.id}/${what}`;
    return ask(url, how, { Authorization: `Bearer ${shop.adminToken}` });
  }
}

/** A buyer: what can be seen and done with a page, and nothing of what is behind it. */
class Buyer {
  #wrong = [];
  #expected = [];
  #sale;

  static async arrive(sale, { path, clockOff = 0, ...options } = {}) {
    const buyer = new Buyer();
    buyer.#sale = sale;
    buyer.context = await browser.newContext({ viewport: { width: 1200, height: 800 }, locale: 'en-GB', ...options });
    if (clockOff) await buyer.context.addInitScript(wrongClock, clockOff);
    buyer.page = await buyer.context.newPage();
    buyer.page.setDefaultTimeout(PATIENCE_MS);
    buyer.#watch();
    await buyer.page.goto(shop.url + (path ?? addressOf(sale)));
    return buyer;
  }

  /** Waits until these words stand on the page. */
  async sees(words) {
    await this.#waitFor(`the buyer sees “${words}”`, this.page.getByText(words).filter({ visible: true }).first());
  }

  /** Waits until the button says this, and can be pressed or not. */
  async seesButton(label, { open }) {
    const button = this.page.locator(`#buy[aria-disabled="${!open}"]`).filter({ hasText: label });
    await this.#waitFor(`the buyer sees ${open ? 'an open' : 'a closed'} button “${label}”`, button);
  }

  async doesNotSee(words) {
    assert.equal(await this.page.getByText(words).filter({ visible: true }).count(), 0, `the buyer sees “${words}”`);
  }

  async enters(user) {
    await this.page.getByLabel('Your e-mail or customer number').fill(user);
  }

  async buysAs(user) {
    await this.enters(user);
    await this.presses('Buy one');
  }

  async presses(label) {
    await this.page.getByRole('button', { name: label }).click();
  }

  /** Presses a button that is closed. */
  async pressesAnyway(label) {
    await this.page.getByRole('button', { name: label }).click({ force: true });
  }

  /** Waits for a receipt; answers the order number on it. */
  async receives(words = 'One is yours.') {
    await this.sees(words);
    return this.page.locator('#order').innerText();
  }

  async goesTo(sale) {
    await this.page.goto(shop.url + addressOf(sale));
  }

  async reloads() {
    await this.page.reload();
  }

  async pictures(name) {
    await this.page.screenshot({ path: `${SCREENSHOTS}/${name}.png`, animations: 'disabled' });
  }

  /** The first request of this kind is answered by us. */
  async interferes(path, answer) {
    await this.page.route(path, answer, { times: 1 });
  }

  /** From now on there are no events: the requests for them hang. */
  async getsNoEvents() {
    await this.page.route('**/events', () => {});
  }

  /** From now on the page learns nothing new of its sale: whatever happens, it comes too late. */
  async seesOnlyWhatIsNow() {
    const now = await this.page.evaluate(async (sale) => (await fetch(`/api/sales/${sale}/status`)).text(), this.#sale.id);
    await this.page.route('**/status', (route) => route.fulfill({ body: now, contentType: 'application/json' }));
    await this.getsNoEvents();
    await this.reloads();
  }

  /** The tries to buy, as they leave. */
  recordsTries() {
    const tries = [];
    this.page.on('request', (request) => {
      const { 'idempotency-key': key, authorization } = request.headers();
      if (request.method() === 'POST') tries.push({ at: Date.now(), key, authorization });
    });
    return tries;
  }

  /** What has the focus. */
  focused() {
    return this.page.evaluate(() => document.activeElement.textContent);
  }

  /** From now on notes what a screen reader would say by itself. */
  async listens() {
    await this.page.evaluate(() => {
      globalThis.heard = [];
      const note = ({ target }) => target.textContent && globalThis.heard.push(target.textContent);
      for (const region of document.querySelectorAll('[role=status], [aria-live=polite]')) {
        new MutationObserver((changes) => changes.forEach(note)).observe(region, { childList: true, subtree: true });
      }
    });
  }

  heard() {
    return this.page.evaluate(() => globalThis.heard);
  }

  /** Errors like this one in the console belong to the story. */
  expects(pattern) {
    this.#expected.push(pattern);
  }

  assertNothingWentWrong() {
    const wrong = this.#wrong.filter((line) => !this.#expected.some((pattern) => pattern.test(line)));
    assert.deepEqual(wrong, [], 'something went wrong behind the page');
  }

  async describe(name) {
    const file = `failed-${name.replaceAll(/\W+/g, '-')}`;
    await this.pictures(file).catch(() => {});
    const text = await this.page.locator('body').innerText().catch(() => 'nothing: the page is gone');
    const wrong = this.#wrong.length ? `\nand behind the page:\n${this.#wrong.join('\n')}` : '';
    return `\n\nthe buyer saw (${file}.png):\n${text.replaceAll(/\n\s*\n/g, '\n')}${wrong}\n`;
  }

  async leave() {
    await this.context.close();
  }

  /** Whatever a developer's console would show is wrong; that the API refused something is not. */
  #watch() {
    this.page.on('console', (message) => {
      const isRefusal = message.text().startsWith('Failed to load resource') && message.location().url.includes('/api/');
      if (['error', 'warning'].includes(message.type()) && !isRefusal) this.#wrong.push(message.text());
    });
    this.page.on('pageerror', (error) => this.#wrong.push(String(error)));
    this.page.on('request', (request) => {
      if (!request.url().startsWith(`${shop.url}/`)) this.#wrong.push(`a request to ${request.url()}`);
    });
  }

  async #waitFor(expectation, locator) {
    await locator.waitFor({ timeout: PATIENCE_MS }).catch(() => assert.fail(`it never came that ${expectation}`));
  }
}

/** Waits for a condition. */
export async function until(what, condition) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < deadline, `no ${what} in time`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function ask(url, body, headers = {}) {
  const json = body && { 'Content-Type': 'application/json' };
  const response = await fetch(url, { method: 'POST', headers: { ...json, ...headers }, body: body && JSON.stringify(body) });
  assert.ok(response.ok, `POST ${url} answers ${response.status}`);
  return response.json();
}

function addressOf(sale) {
  return sale ? `/?sale=${encodeURIComponent(sale.id)}` : '/';
}

/** In the browser: a clock that is off by so many ms, wherever a script asks for the time. */
function wrongClock(offset) {
  const Right = Date;
  globalThis.Date = class extends Right {
    constructor(...given) {
      super(...(given.length ? given : [Right.now() + offset]));
    }
    static now = () => Right.now() + offset;
  };
}
