// The shop that `up` runs, and the sales that tests create in it. UP_JSON is the path of up.json.

import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';

// Time limit for every wait. Longer than any pause of the page.
export const PATIENCE_MS = 15_000;

export const shop = JSON.parse(readFileSync(process.env.UP_JSON ?? '../.local/up.json'));

const AUTHORIZED = { Authorization: `Bearer ${shop.adminToken}` };

let sales = 0;

/** Creates a sale for one story. Times are relative to now, in the format of the admin API. */
export async function openSale({ units = 10, startsIn = '0s', endsIn = '1h', name = 'Halden lounge chair' } = {}) {
  sales += 1;
  const sale = new Sale(`story-${process.pid}-${sales}`);
  const window = { startsAt: startsIn, endsAt: endsIn };
  await operate('', { id: sale.id, totalStock: units, productName: name, productPrice: 349, ...window });
  return sale;
}

class Sale {
  constructor(id) {
    this.id = id;
  }

  pause = () => this.#change('pause');
  resume = () => this.#change('resume');
  end = () => this.#change('end');
  restock = (units) => this.#change('restock', { units });

  /** Buys as another user, without a browser. */
  async sellTo(user) {
    const url = `${shop.url}/api/sales/${this.id}/purchase`;
    return until(`a purchase by ${user}`, async () => (await ask(url, { userId: user })).orderId);
  }

  /** Returns the order id of a user from the API. */
  async orderOf(user) {
    const response = await fetch(`${shop.url}/api/sales/${this.id}/purchase/${encodeURIComponent(user)}`);
    return (await response.json()).orderId;
  }

  /** Waits until the API reports this number of remaining units. */
  async hasLeft(units) {
    const url = `${shop.url}/api/sales/${this.id}/status`;
    await until(`status with ${units} units left`, async () => (await (await fetch(url)).json()).remainingStock === units);
  }

  #change(what, how) {
    return operate(`/${this.id}/${what}`, how);
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

/** Reads from the admin API. */
export const operator = {
  async asks(path) {
    const response = await fetch(`${shop.coordinators[0].url}/admin/sales${path}`, { headers: AUTHORIZED });
    assert.ok(response.ok, `GET ${path} answers ${response.status}`);
    return response.json();
  },
};

function operate(path, body) {
  return ask(`${shop.coordinators[0].url}/admin/sales${path}`, body, AUTHORIZED);
}

async function ask(url, body, headers = {}) {
  const json = body && { headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(body) };
  const response = await fetch(url, { method: 'POST', headers, ...json });
  assert.ok(response.ok, `POST ${url} answers ${response.status}`);
  return response.json();
}
