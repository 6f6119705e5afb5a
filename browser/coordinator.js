// Kills the coordinator and restarts it with the same program and environment.

import { spawn } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { after } from 'node:test';
import { shop, until } from './shop.js';

const [{ pid, url }] = shop.coordinators;
// Read from the coordinator that `up` started, while it runs.
const program = readlinkSync(`/proc/${pid}/exe`);
const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').filter(Boolean);

// `up` stops its own coordinator. A restarted one is stopped here.
let another;
after(() => another?.kill('SIGKILL'));

export function dies() {
  process.kill(another?.pid ?? pid, 'SIGKILL');
}

export async function comesBack() {
  const env = Object.fromEntries(environment.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
  another = spawn(program, [], { env, stdio: 'ignore' });
  await until('coordinator', async () => (await fetch(`${url}/readyz`).catch(() => ({}))).ok);
}
