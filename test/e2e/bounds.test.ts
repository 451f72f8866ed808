/**
 * Many of everything: whoever is not concerned goes on meanwhile, and what is over leaves nothing behind.
 *
 * A tenth of the full numbers by default; LEASEHOLD_SCALE=1 (`npm run test:scale`) for all of them.
 */
import v8 from "node:v8";
import vm from "node:vm";
import { expect, onTestFinished, test } from "vitest";
import { type Client, connect } from "../../src/client/index.js";
import { defaultConfig } from "../../src/server/config/schema.js";
import { startServer } from "../../src/server/server.js";
import { RawSession } from "./raw-session.js";
import { Network, ServerProcess, temporaryFolder, until } from "./support.js";
import { UnaryClient } from "./unary-client.js";

const SCALE = Number(process.env.LEASEHOLD_SCALE ?? "0.1");
const scaled = (n: number): number => Math.round(n * SCALE);
const TIMEOUT_MS = 60_000 + 240_000 * SCALE;

async function levelServer(...flags: string[]): Promise<ServerProcess> {
  return await ServerProcess.start(`level:${await temporaryFolder()}/data`, ...flags);
}

async function client(address: string): Promise<Client> {
  const connected = await connect(address);
  onTestFinished(() => connected.close());
  return connected;
}

/** Takes and releases a lock of its own again and again, and counts. */
class Bystander {
  pairs = 0;
  #stopped = false;
  readonly #done: Promise<void>;

  constructor(of: Client) {
    this.#done = this.#run(of);
  }

  async #run(of: Client): Promise<void> {
    for (let i = 0; !this.#stopped; i++) {
      await of.withLock(`bystander/${i % 7}`, () => {
        this.pairs++;
      });
    }
  }

  async stop(): Promise<number> {
    this.#stopped = true;
    await this.#done;
    return this.pairs;
  }
}

test(
  `${scaled(10_000)} wait for one lock; all get it, in order, and others are served meanwhile`,
  async () => {
    const server = await levelServer();
    const holder = await client(server.address);
    const waiting = await Promise.all([0, 1, 2].map(() => client(server.address)));
    const first = await holder.acquire("busy");
    const tokens: number[] = [];
    const each = Math.ceil(scaled(10_000) / waiting.length);
    const all = waiting.map((waiter) => {
      const order: number[] = [];
      const grants = Array.from({ length: each }, (_, i) =>
        waiter.acquire("busy", { wait: "10m" }).then(async (lock) => {
          tokens.push(lock.token);
          order.push(i);
          await lock.release();
        }),
      );
      return Promise.all(grants).then(() => order);
    });
    await until(async () => (await server.metric("leasehold_lock_waiters")) === each * waiting.length, 60_000);
    const bystander = new Bystander(holder);
    await until(() => bystander.pairs > 20);
    await first.release();
    const orders = await Promise.all(all);
    const pairs = await bystander.stop();
    for (const order of orders) expect(order).toEqual(Array.from({ length: each }, (_, i) => i));
    expect(tokens.length).toBe(each * waiting.length);
    expect(new Set(tokens).size).toBe(tokens.length);
    expect(pairs).toBeGreaterThan(50);
    expect(await server.metric("leasehold_lock_waiters")).toBe(0);
  },
  TIMEOUT_MS,
);

/** A session with `count` leases, each holding a lock of its own. */
async function leases(address: string, label: string, count: number, ttlMs: number): Promise<RawSession> {
  const session = await RawSession.open(address);
  const holds: Promise<unknown>[] = [];
  for (let i = 0; i < count; i++) {
    const lease = session.send({ createLease: { ttlMs } });
    holds.push(lease, session.send({ acquire: { name: `${label}/${i}`, sessionLease: 2 * i + 1 } }));
  }
  await Promise.all(holds);
  return session;
}

test(
  `${scaled(100_000)} leases run out at the same instant; grants go on, and who renewed is not among them`,
  async () => {
    const ttlMs = 10_000 + 50_000 * SCALE;
    const eachMax = 4_000;
    const slice = String(scaled(1_000)); // a hundred of them at least, whatever the scale
    const server = await levelServer("--limits-expiry-slice-max", slice);
    const count = scaled(100_000);
    const sessions: RawSession[] = [];
    for (let made = 0; made < count; made += eachMax) {
      sessions.push(await leases(server.address, `mass/${made}`, Math.min(eachMax, count - made), ttlMs));
    }
    const alive = await leases(server.address, "alive", 500, ttlMs);
    const prober = await client(server.address);
    for (const session of sessions) session.renew();
    expect((await prober.describe("mass/0/0")).holders.length).toBe(1); // behind the renewals: they have arrived
    for (const session of sessions) session.close();
    const renewing = setInterval(() => alive.renew(), ttlMs / 4);
    onTestFinished(() => clearInterval(renewing));
    const bystander = new Bystander(prober);
    const left = () => server.metric("leasehold_locks_known");
    await until(async () => (await left()) < count, ttlMs + 30_000, "the first expiry");
    const before = bystander.pairs;
    await until(async () => (await left()) < 500 + 10, 60_000, "the last expiry");
    expect(bystander.pairs).toBeGreaterThan(before);
    await bystander.stop();
    for (const name of ["alive/0", "alive/499"]) expect((await prober.describe(name)).holders.length).toBe(1);
    expect(await server.metric("leasehold_locks_known")).toBe(500);
    clearInterval(renewing);
    alive.close();
  },
  TIMEOUT_MS,
);

test("one lease with 10,000 holds dies as a whole, and never lives again by half", async () => {
  const server = await levelServer();
  const network = await Network.to(server.address);
  const stalled = await client(network.address);
  const next = await client(server.address);
  const lease = await stalled.lease({ ttl: "5s" });
  const names = Array.from({ length: 9_990 }, (_, i) => `held/${i}`);
  const locks = await Promise.all(names.map((name) => stalled.acquire(name, { lease })));
  network.refuse();
  network.cut();
  const bystander = new Bystander(next);
  const grants = await Promise.all(names.map((name) => next.acquire(name, { wait: "30s" })));
  const pairs = await bystander.stop();
  network.accept();
  expect(pairs).toBeGreaterThan(0);
  expect(lease.state.is).toBe("lost");
  for (const [i, lock] of locks.entries()) {
    expect(lock.state.is).toBe("lost");
    expect(grants[i]?.token).toBeGreaterThan(lock.grant.token);
  }
  await until(async () => (await stalled.describe("held/0")).holders[0]?.token === grants[0]?.token);
  for (const lock of grants) expect(lock.state.is).toBe("held");
});

function collectGarbage(): number {
  v8.setFlagsFromString("--expose-gc");
  const gc = vm.runInNewContext("gc") as () => void;
  for (let i = 0; i < 3; i++) gc();
  return process.memoryUsage().heapUsed;
}

async function inThisProcess() {
  const store = `level:${await temporaryFolder()}/data`;
  const limits = { locksMax: 2_000_000 };
  const server = await startServer(defaultConfig({ listen: "127.0.0.1:0", opsListen: "none", store, limits }));
  onTestFinished(() => server.stop());
  return await client(server.address);
}

/** Does `work` for 0 … count-1, many at a time. */
async function many(count: number, work: (i: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const worker = async () => {
    for (let i = next++; i < count; i = next++) await work(i);
  };
  await Promise.all(Array.from({ length: 512 }, worker));
}

test(
  `after ${scaled(1_000_000)} different names memory is back`,
  async () => {
    const holder = await inThisProcess();
    const pair = (label: string) => (i: number) => holder.withLock(`${label}/${i}`, () => undefined);
    await many(100_000, pair("warm")); // fills what has a bound: the history for watchers, the journal's memory
    const before = collectGarbage();
    await many(scaled(1_000_000), pair("name"));
    const after = collectGarbage();
    // A name that stayed would cost some 200 bytes at the least.
    expect(after - before).toBeLessThan(Math.max(10e6, scaled(1_000_000) * 20));
    expect(await first(holder.locks({}))).toBeUndefined();
  },
  TIMEOUT_MS,
);

async function first<T>(items: AsyncIterable<T>): Promise<T | undefined> {
  for await (const item of items) return item;
  return undefined;
}

test(
  `${scaled(1_000_000)} locks are listed in pages while grants go on`,
  async () => {
    const holder = await inThisProcess();
    const count = scaled(1_000_000);
    const perLease = 5_000;
    for (let from = 0; from < count; from += perLease) {
      const lease = await holder.lease({ ttl: "10m" });
      await many(Math.min(perLease, count - from), (i) =>
        holder.acquire(`held/${String(from + i).padStart(7, "0")}`, { lease }),
      );
    }
    const bystander = new Bystander(holder);
    let listed = 0;
    let last = "";
    for await (const { name } of holder.locks({ prefix: "held/", pageSize: 1_000 })) {
      if (name <= last) throw new Error(`${name} after ${last}`);
      last = name;
      listed++;
    }
    expect(await bystander.stop()).toBeGreaterThan(0);
    expect(listed).toBe(count);
  },
  TIMEOUT_MS,
);

test("a server that crash-loops every two thirds of a TTL does not keep a dead client's lock", async () => {
  const ttlMs = 1_500;
  const server = await levelServer();
  const unary = new UnaryClient(server.address);
  const session = await RawSession.open(server.address);
  await session.send({ createLease: { ttlMs } });
  await session.send({ acquire: { name: "orphan", sessionLease: 1 } });
  const { lease } = await unary.call("CreateLease", { ttlMs: 60_000 });
  session.close();
  let rounds = 0;
  for (let free = false; !free; rounds++) {
    if (rounds > 15) throw new Error("still held after ten TTLs of crashes");
    await server.kill();
    await server.restart();
    const restartedMs = performance.now();
    const extendedSeconds = await server.metric("leasehold_lease_restart_extension_seconds_total");
    if (rounds === 0) expect(extendedSeconds).toBeCloseTo((ttlMs + 60_000) / 1_000);
    // What is driven here is the fault: the server is killed after this time, come what may.
    await until(() => performance.now() - restartedMs > (2 / 3) * ttlMs);
    free = (await unary.call("DescribeLock", { name: "orphan" })).holders.length === 0;
  }
  expect(rounds).toBeGreaterThan(1); // the first restart must not have taken it away
  const after = await unary.call("GetLease", { leaseId: lease?.leaseId ?? "" });
  expect(after.lease?.restartExtensionMs).toBeGreaterThan(0);
  const next = await client(server.address);
  await expect(next.tryAcquire("orphan")).resolves.toMatchObject({ acquired: true });
});
