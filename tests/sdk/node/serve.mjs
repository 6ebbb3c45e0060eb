/**
 * Runs flows one by one, as they are asked for: a line of JSON in, {"file", "name", "shop"}, a line out,
 * {"failure"}, null where the flow passed. Without a name: {"names"}, the flows of the file.
 */

import { createInterface } from 'node:readline';

const asked = createInterface({ input: process.stdin });
for await (const line of asked) {
  const answer = await answerTo(JSON.parse(line));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(); // a flow's browser, too, ends with its Node

async function answerTo({ file, name, shop }) {
  try {
    const { flows } = await import(new URL(file, import.meta.url));
    if (name === undefined) return { names: [...flows.keys()] };
    await flows.get(name)(shop);
    return { failure: null };
  } catch (error) {
    return { failure: error.stack ?? String(error) };
  }
}
