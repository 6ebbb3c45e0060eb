/** What every flow needs: a name, a shopper at the bank's page, patience, and words that nobody used. */

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

const PATIENCE_MS = 20_000;
const POLL_MS = 50;

/** A file's flows by name, and what adds one: `flow(name, function)`. */
export function namedFlows() {
  const flows = new Map();
  const flow = (name, run) => {
    assert.ok(!flows.has(name), `there are two flows: ${name}`);
    flows.set(name, run);
  };
  return { flows, flow };
}

export const fresh = (what) => `${what}-${randomUUID()}`;

/** At the bank's page; the answer says where the shopper is sent then, or thanks. */
export async function theShopperDecides(url, decision) {
  const body = new URLSearchParams({ decision });
  const answer = await fetch(url, { method: 'POST', body, redirect: 'manual' });
  assert.ok(answer.status < 400, `the page answered ${answer.status}`);
  return answer;
}

/** What is found once it holds, for as long as patience lasts. */
export async function once(find, holds) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await find();
    if (holds(found)) return found;
    assert.ok(Date.now() < deadline, `it never came true of ${JSON.stringify(found)}`);
    await sleep(POLL_MS);
  }
}

/** The error that a call is refused with, which has these fields. */
export async function refusal(call, kind, fields = {}) {
  const error = await call.then(
    () => assert.fail('it was not refused'),
    (reason) => reason,
  );
  assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
  assertFields(error, fields);
  return error;
}

export function assertFields(object, fields) {
  const found = Object.fromEntries(Object.keys(fields).map((name) => [name, object[name]]));
  assert.deepEqual(found, fields);
}
