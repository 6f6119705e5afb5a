// A buyer with a browser. CHROMIUM is the path of the browser, SCREENSHOTS the folder for screenshots.

import { strict as assert } from 'node:assert';
import { chromium } from 'playwright-core';
import { PATIENCE_MS, shop } from './shop.js';

const { CHROMIUM = '/usr/bin/chromium', SCREENSHOTS = '../.local/screenshots' } = process.env;

export const DESK = { width: 1200, height: 800 };

// Launched with the first buyer. All buyers share it, each with its own profile.
let browser;

export async function closeBrowser() {
  await (await browser)?.close();
}

/** Actions and observations of a user on a page, without access to its internals. */
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

  /** Waits until this text is visible on the page. */
  async sees(words) {
    await this.#waitFor(`the buyer sees “${words}”`, this.page.getByText(words).filter({ visible: true }).first());
  }

  /** Waits until the button has this label, and is enabled (`open`) or disabled. */
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

  /** Presses a disabled button. */
  async pressesAnyway(label) {
    await this.page.getByRole('button', { name: label }).click({ force: true });
  }

  /** Waits for a receipt and returns its order number. */
  async receives(words = 'One is yours.') {
    await this.sees(words);
    return this.page.locator('#order').innerText();
  }

  /** Follows a link on a page. */
  async follows(label) {
    await this.page.getByRole('link', { name: label }).click();
  }

  /** Opens a page of another site, and follows its link to this path of the shop. */
  async followsLinkOfAnotherSite(path) {
    await this.#otherSite('https://elsewhere.example/', () => this.#at + path, 'A bargain');
    await this.page.goto('https://elsewhere.example/');
    await this.follows('A bargain');
  }

  /**
   * Serves the page as a node with SIGN_IN_URL does. The shop's page at this address links to `pathOf(state)`, with the
   * state that it was given.
   */
  async offersSignIn(address, pathOf) {
    const isPage = (url) => url.origin === this.#at && url.pathname === '/';
    await this.page.route(isPage, async (route) => {
      const response = await route.fetch();
      const body = (await response.text()).replace('name="sign-in" content=""', `name="sign-in" content="${address}"`);
      await route.fulfill({ response, body });
    });
    await this.#otherSite(address, (url) => this.#at + pathOf(url.searchParams.get('state')), 'Continue to the sale');
    await this.reloads();
  }

  /** Serves a page of another site, with one link. */
  async #otherSite(address, target, label) {
    const { origin } = new URL(address);
    this.expects(new RegExp(`^a request to ${origin}/`));
    await this.page.unroute(`${origin}/**`);
    await this.page.route(`${origin}/**`, (route) => {
      const href = target(new URL(route.request().url())).replaceAll('&', '&amp;');
      return route.fulfill({ contentType: 'text/html', body: `<!doctype html><title>x</title><a href="${href}">${label}</a>` });
    });
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

  /** Answers the next request to this path by `answer` instead of the shop. */
  async interferes(path, answer) {
    await this.page.route(path, answer, { times: 1 });
  }

  /** Lets requests for events hang from now on, so the page receives none. */
  async getsNoEvents() {
    await this.page.route('**/events', () => {});
  }

  /** Freezes the status that the page gets, so that it does not notice later changes of its sale. */
  async freezeStatus() {
    const now = await (await fetch(`${shop.url}/api/sales/${this.#sale.id}/status`)).text();
    await this.page.route('**/status', (route) => route.fulfill({ contentType: 'application/json', body: now }));
    await this.getsNoEvents();
    await this.reloads();
  }

  /** Records the purchase requests of the page. */
  recordsTries() {
    const tries = [];
    this.page.on('request', (request) => {
      const { 'idempotency-key': key, authorization } = request.headers();
      if (request.method() === 'POST') tries.push({ at: Date.now(), key, authorization });
    });
    return tries;
  }

  /** Returns the text of the focused element. */
  focused() {
    return this.page.evaluate(() => document.activeElement.textContent);
  }

  /** Records from now on the announcements of a screen reader. */
  async listens() {
    await this.page.evaluate(() => {
      globalThis.announcements = [];
      const note = ({ target }) => target.textContent && globalThis.announcements.push(target.textContent);
      for (const region of document.querySelectorAll('[role=status], [aria-live=polite]')) {
        new MutationObserver((changes) => changes.forEach(note)).observe(region, { childList: true, subtree: true });
      }
    });
  }

  announcements() {
    return this.page.evaluate(() => globalThis.announcements);
  }

  /** Allows console errors that match this pattern. */
  expects(pattern) {
    this.#expected.push(pattern);
  }

  assertNothingWentWrong() {
    const wrong = this.#wrong.filter((line) => !this.#expected.some((pattern) => pattern.test(line)));
    assert.deepEqual(wrong, [], 'the console has unexpected errors');
  }

  async describe(name) {
    const file = `failed-${name.replaceAll(/\W+/g, '-')}`;
    await this.pictures(file).catch(() => {});
    const text = await this.page.locator('body').innerText().catch(() => 'nothing: the page is closed');
    const wrong = this.#wrong.length ? `\nconsole and requests:\n${this.#wrong.join('\n')}` : '';
    return `\n\nthe buyer saw (${file}.png):\n${text.replaceAll(/\n\s*\n/g, '\n')}${wrong}\n`;
  }

  async leave() {
    await this.context.close();
  }

  /** Collects console errors and requests to other hosts. A refusal by the API is not an error. */
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
    await locator.waitFor({ timeout: PATIENCE_MS }).catch(() => assert.fail(`not in time: ${expectation}`));
  }
}

function addressOf(sale) {
  return sale ? `/?sale=${encodeURIComponent(sale.id)}` : '/';
}

/** Runs in the browser: shifts the clock by `offset` milliseconds for all scripts. */
function wrongClock(offset) {
  const Right = Date;
  globalThis.Date = class extends Right {
    constructor(...given) {
      super(...(given.length ? given : [Right.now() + offset]));
    }
    static now = () => Right.now() + offset;
  };
}
