// The Redis servers behind the shop, for stories in which something is wrong with them.

import { strict as assert } from 'node:assert';
import { connect } from 'node:net';
import { operator, shop } from './shop.js';

/** Takes a unit for sold in the first shard of a sale that nobody bought: its books do not add up any more. */
export async function falsifyBooks(sale) {
  const { shards } = await operator.asks(`/${sale.id}`);
  const [{ tag, primary }] = shards;
  const reply = await command(primary, `HINCRBY fs:{${sale.id}.${tag}}:meta sold 1`);
  assert.match(reply, /^:\d+/);
}

/** Stops the primary of a sale's first shard where it stands, until `thaw` is called. */
export async function freezePrimary(sale) {
  const { shards } = await operator.asks(`/${sale.id}`);
  const { pid } = shop.redis.find(({ addr }) => addr === shards[0].primary);
  process.kill(pid, 'SIGSTOP');
  return { thaw: () => process.kill(pid, 'SIGCONT') };
}

/** The reply to a command that is written as a person would type it. */
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
