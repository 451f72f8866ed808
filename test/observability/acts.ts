/** What happens to servers in the tests of metrics. */
import { onTestFinished } from "vitest";
import { until } from "../e2e/support.js";
import type { World } from "./world.js";

export const hold = async (world: World, name = "a") => (await world.connect()).acquire(name);
export const pair = async (world: World) => (await hold(world)).release();
/** One behind the other, so that each is a record or two, until the test is over: a checkpoint follows them closely. */
export const pairsWithoutEnd = async (world: World) => {
  const client = await world.connect();
  const go = async () => {
    for (;;) await (await client.acquire("a")).release();
  };
  go().catch(() => undefined); // the client is closed
};
/** Grants that take 200,000 bytes. */
export const large = async (world: World) => {
  const client = await world.connect();
  const metadata = "x".repeat(4_000);
  await Promise.all(Array.from({ length: 50 }, (_, i) => client.acquire(`large/${i}`, { metadata })));
};
export const wait = async (world: World, name = "a") => {
  await hold(world, name);
  (await world.connect()).acquire(name, { wait: "20s" }).catch(() => undefined);
};
export const deadlock = async (world: World) => {
  const [one, two] = [await world.connect(), await world.connect()];
  const [a, b] = [await one.acquire("a"), await two.acquire("b")];
  const first = one.acquire("b", { holding: [a], wait: "5s" }).catch(() => undefined);
  await two.acquire("a", { holding: [b], wait: "5s" }).catch(() => undefined);
  await first;
};
export const lease = (world: World, ttlMs = 60_000) => world.unary().call("CreateLease", { ttlMs });
/** The process does nothing else for this long. */
export const block = (ms: number) => {
  for (const endMs = performance.now() + ms; performance.now() < endMs; );
};
export const watchWithoutReading = async (world: World) => {
  const events = (await world.connect()).watch({ prefix: "" })[Symbol.asyncIterator]();
  await events.next();
  onTestFinished(async () => void (await events.return?.()));
  const holder = await world.connect();
  const metadata = "x".repeat(1_000);
  for (;;) {
    await Promise.all(Array.from({ length: 500 }, (_, i) => holder.withLock(`l${i}`, { metadata }, () => undefined)));
    if ((await world.scrape()).get("leasehold_watch_lagged_total") !== 0) return;
  }
};
export const halt = async (world: World) => {
  const { clusterId } = await world.unary().call("Status", {});
  world.attach({ highestToken: 1_000_000, clusterId });
  return until(async () => (await world.scrape()).get("leasehold_halted") === 1);
};
/** Until the test is over. */
export const watch = async (world: World) => {
  const events = (await world.connect()).watch({ prefix: "" })[Symbol.asyncIterator]();
  onTestFinished(async () => void (await events.return?.()));
  await events.next();
};
