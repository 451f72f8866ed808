// A client that takes and gives up locks in all modes, as fast as it can, and records what it sees in a file. Its parent
// keeps the storage that it writes to, hears of its grants, and tells it when to end.
import { openSync, writeSync } from "node:fs";
import { connect, LeaseholdError, recordHistory } from "@leasehold/client";

const [address, file, ttl, seed] = process.argv.slice(2);

let state = Number(seed);
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const pick = (list) => list[Math.floor(random() * list.length)];
const pause = () => new Promise((resolve) => setTimeout(resolve, random() ** 2 * 20));

const history = openSync(file, "a");
const client = recordHistory(await connect(address, { ttl, wait: "4s", timeout: "10s" }), (event) => {
  writeSync(history, `${JSON.stringify(event)}\n`);
  if (event.op === "acquire" && event.type === "ok") process.send("granted");
  if (event.op === "refresh" && event.type === "fail") process.send("lost");
});
client.on("warning", () => undefined);

// The storage is with the parent, as it must be one for all.
const writes = new Map();
const ending = new AbortController();
process.on("message", (message) => {
  if (message === "end") return ending.abort();
  writes.get(message.id)?.(message.accepted);
  writes.delete(message.id);
});
let writeId = 0;
const write = (resource, token) =>
  client.recordWrite(
    resource,
    token,
    () =>
      new Promise((resolve) => {
        writes.set(++writeId, resolve);
        process.send({ id: writeId, resource, token });
      }),
  );

/** Looks again and again whether it is still held. */
async function hold(lock, looks = 1 + Math.floor(random() * 4)) {
  for (let i = 0; i < looks; i++) {
    lock.assertHeld();
    await pause();
  }
}

const semaphore = () => ({ permits: { of: random() < 0.7 ? 3 : 2, take: random() < 0.7 ? 1 : 2 } });

const tasks = {
  exclusive: async () => {
    const name = pick(["x1", "x2"]);
    await client.withLock(name, async (lock) => {
      const { token } = lock;
      await pause(); // it may be lost now: then the storage must refuse
      await write(name, token);
      await hold(lock);
    });
  },
  shared: async () => {
    const lock = await client.acquire("s", { mode: random() < 0.7 ? "shared" : "exclusive" });
    await hold(lock);
    if (lock.mode === "exclusive" && random() < 0.8) await lock.downgrade();
    await hold(lock);
    await lock.release();
  },
  semaphore: () => client.withLock("sem", semaphore(), (lock) => hold(lock)),
  all: async () => {
    const locks = ["x1", "x2", { name: "s", mode: "shared" }, { name: "sem", ...semaphore() }];
    const wanted = locks.filter(() => random() < 0.5).sort(() => random() - 0.5);
    if (wanted.length > 0) await client.withLocks(wanted, (set) => hold(set));
  },
  transfer: async () => {
    const lock = await client.acquire("t");
    await hold(lock);
    const { waiters } = await client.describe("t");
    const heir = waiters.findLast(({ attached }) => attached);
    if (heir) await lock.transfer({ ticketId: heir.ticketId });
    else await lock.release();
  },
  hand: async () => {
    const lock = await client.acquire("t");
    await hold(lock);
    await lock.release();
  },
  elect: async () => {
    const term = await client.campaign("leader", { wait: "4s" });
    await hold(term);
    await term.resign();
  },
  time: async () => {
    client.clock.tick();
    await client.clock.range(1 + Math.floor(random() * 5));
    client.clock.tick();
    await pause();
  },
};

async function repeat(task) {
  while (!ending.signal.aborted) {
    try {
      await task();
    } catch (error) {
      // Whatever happens to locks is expected here. Other errors are not.
      if (!LeaseholdError.is(error)) throw error;
      await pause();
    }
  }
}

async function observe() {
  while (!ending.signal.aborted) {
    try {
      for await (const _ of client.observe("leader", { signal: ending.signal })) await pause();
    } catch (error) {
      if (!ending.signal.aborted && !LeaseholdError.is(error)) throw error;
      await pause();
    }
  }
}

await Promise.all([...Object.values(tasks).map(repeat), observe()]);
await client.close();
process.disconnect();
