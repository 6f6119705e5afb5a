// Access to the Redis servers of the shop, for stories with faults.

import { strict as assert } from 'node:assert';
import { connect } from 'node:net';
import { operator, shop } from './shop.js';

/** Adds a sold unit without a purchase to the first shard of a sale, so that its books do not add up. */
export async function falsifyBooks(sale) {
  const { shards } = await operator.asks(`/${sale.id}`);
  const [{ tag, primary }] = shards;
  const reply = await command(primary, `HINCRBY fs:{${sale.id}.${tag}}:meta sold 1`);
  assert.match(reply, /^:\d+/);
}

/** Freezes the primary of a sale's first shard until `thaw` is called. */
export async function freezePrimary(sale) {
  const { shards } = await operator.asks(`/${sale.id}`);
  const { pid } = shop.redis.find(({ addr }) => addr === shards[0].primary);
  process.kill(pid, 'SIGSTOP');
  return { thaw: () => process.kill(pid, 'SIGCONT') };
}

/** Sends an inline command and returns the reply. */
function command(address, words) {
  const [host, port] = address.split(':');
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port }, () => socket.write(`${words}\r\n`));
    socket.once('data', (reply) => {
      socket.destroy();
      resolve(String(reply));
    });
    socket.once('error', reject);
  });
}
