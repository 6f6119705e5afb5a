// A buyer with a browser. CHROMIUM is the browser, SCREENSHOTS the folder of what buyers saw.

import { strict as assert } from 'node:assert';
import { chromium } from 'playwright-core';
import { PATIENCE_MS, shop } from './shop.js';

const { CHROMIUM = '/usr/bin/chromium', SCREENSHOTS = '../.local/screenshots' } = process.env;

export const DESK = { width: 1200, height: 800 };

// Launched with the first buyer; all share it, each with a profile of their own.
let browser;

export async function closeBrowser() {
  await (await browser)?.close();
}

/** What can be seen and done with a page, and nothing of what is behind it. */
export class Buyer {
  #wrong = [];
  #expected = [];
  #sale;
  #at;

  static async arrive(sale, { at = shop.url, path = addressOf(sale), clockOff = 0, ...options } = {}) {
    const buyer = new Buyer();
    buyer.#sale = sale;
    buyer.#at = at;
    browser ??= chromium.launch({ executablePath: CHROMIUM });
    buyer.context = await (await browser).newContext({ viewport: DESK, locale: 'en-GB', ...options });
    if (clockOff) await buyer.context.addInitScript(wrongClock, clockOff);
    buyer.page = await buyer.context.newPage();
    buyer.page.setDefaultTimeout(PATIENCE_MS);
    buyer.#watch();
    await buyer.page.goto(at + path);
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
    await this.page.goto(this.#at + addressOf(sale));
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
    const now = await (await fetch(`${shop.url}/api/sales/${this.#sale.id}/status`)).text();
    await this.page.route('**/status', (route) => route.fulfill({ contentType: 'application/json', body: now }));
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
      const isOfApi = message.location().url.includes('/api/');
      const isRefusal = isOfApi && message.text().startsWith('Failed to load resource');
      if (['error', 'warning'].includes(message.type()) && !isRefusal) this.#wrong.push(message.text());
    });
    this.page.on('pageerror', (error) => this.#wrong.push(String(error)));
    this.page.on('request', (request) => {
      if (!request.url().startsWith(`${this.#at}/`)) this.#wrong.push(`a request to ${request.url()}`);
    });
  }

  async #waitFor(expectation, locator) {
    await locator.waitFor({ timeout: PATIENCE_MS }).catch(() => assert.fail(`it never came that ${expectation}`));
  }
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
