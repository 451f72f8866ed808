/**
 * The others: clients of one principal each that ask for half of their quota, at a steady pace and without waiting for
 * answers, so that a slow answer does not keep the next request from being made and measured.
 */
import { setTimeout as delay } from "node:timers/promises";
import { connect } from "@leasehold/client";

const [address, perSecond, ...tokens] = process.argv.slice(2);
/** A pair is two requests. */
const pairsPerSecond = Number(perSecond) / 2;
const clients = await Promise.all(tokens.map((token) => connect(address, { token })));

async function pair(client, name, measured) {
  const startedAt = performance.now();
  try {
    const lock = await client.acquire(name);
    measured.ms.push(performance.now() - startedAt);
    await lock.release();
  } catch (error) {
    measured.failures.push(String(error));
  }
}

/** One client, until `untilMs`. */
async function run(client, index, untilMs, measured) {
  const open = new Set();
  const begunAt = performance.now() + (index * 1_000) / pairsPerSecond / clients.length;
  for (let i = 0; ; i++) {
    const atMs = begunAt + (i * 1_000) / pairsPerSecond;
    if (atMs > untilMs) break;
    await delay(Math.max(0, atMs - performance.now()));
    const one = pair(client, `quiet/${index}/${i % 1_000}`, measured).finally(() => open.delete(one));
    open.add(one);
  }
  await Promise.all(open);
}

process.on("message", async (ms) => {
  const measured = { ms: [], failures: [] };
  const untilMs = performance.now() + ms;
  await Promise.all(clients.map((client, index) => run(client, index, untilMs, measured)));
  process.send(measured);
});
process.on("disconnect", () => process.exit(0));
process.send("ready");
