/** The whole way, client to store and back: over a real socket to a real process, and without sockets in one process. */
import { describe, expect, onTestFinished, test } from "vitest";
import { LeaseholdClient } from "../../src/client/client.js";
import { systemTime } from "../../src/client/clock/elapsed.js";
import { type Client, connect, LeaseholdError, type Lock } from "../../src/client/index.js";
import { defaultConfig } from "../../src/server/config/schema.js";
import { inMemoryTransport } from "../../src/server/rpc/in-memory.js";
import { startServer } from "../../src/server/server.js";
import { ServerProcess, temporaryFolder, until } from "./support.js";

type NewClient = () => Promise<Client>;

async function overSocket(): Promise<NewClient> {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}/data`);
  return async () => closing(await connect(server.address));
}

async function overMemory(): Promise<NewClient> {
  const server = await startServer(defaultConfig({ listen: "127.0.0.1:0", opsListen: "none", store: "memory:" }));
  onTestFinished(() => server.stop());
  return async () =>
    closing(
      new LeaseholdClient(
        {
          transport: inMemoryTransport(server),
          time: systemTime(),
          random: Math.random,
          connectTimeoutMs: 5_000,
          idleMs: 1_000,
          clientName: "test",
        },
        { owner: "in-memory", ttlMs: 15_000, waitMs: 30_000 },
      ),
    );
}

function closing(client: Client): Client {
  onTestFinished(() => client.close());
  return client;
}

describe.each([
  ["a socket", overSocket],
  ["memory", overMemory],
])("over %s", (_name, start) => {
  test("a lock is held, described, listed, validated and released", async () => {
    const client = await (await start())();
    const lock = await client.acquire("orders/42", { owner: "alice", metadata: "why" });
    expect(lock.token).toBeGreaterThan(0);
    expect(lock.state.is).toBe("held");
    expect(await client.validate("orders/42", lock.token)).toBe(true);
    expect(await client.describe("orders/42")).toMatchObject({
      holders: [{ owner: "alice", token: lock.token }],
      waitersTotal: 0,
    });
    const names: string[] = [];
    for await (const summary of client.locks({ prefix: "orders/" })) names.push(summary.name);
    expect(names).toEqual(["orders/42"]);
    expect(await lock.release()).toBe(true);
    expect(lock.state.is).toBe("released");
    expect(() => lock.token).toThrow(LeaseholdError);
    expect(await client.validate("orders/42", lock.grant.token)).toBe(false);
    expect((await client.describe("orders/42")).holders).toEqual([]);
  });

  test("withLock excludes, in the order of arrival, with rising tokens", async () => {
    const newClient = await start();
    const clients = await Promise.all([newClient(), newClient(), newClient()]);
    const order: number[] = [];
    const tokens: number[] = [];
    let inside = 0;
    const first = (await clients[0]?.acquire("a")) as Lock;
    const runs: Promise<void>[] = [];
    for (let i = 0; i < 9; i++) {
      const client = clients[i % 3] as Client;
      runs.push(
        client.withLock("a", async (lock) => {
          expect(++inside).toBe(1);
          order.push(i);
          tokens.push(lock.token);
          await Promise.resolve();
          inside--;
        }),
      );
      await until(async () => ((await first) && (await client.describe("a")).waitersTotal) === i + 1);
    }
    await first.release();
    await Promise.all(runs);
    expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expect(tokens).toEqual([...tokens].sort((x, y) => x - y));
    expect(new Set(tokens).size).toBe(9);
  });

  test("a try on a held lock names its holder, a wait that is over is BUSY, an abort gives its reason", async () => {
    const newClient = await start();
    const [alice, bob] = [await newClient(), await newClient()];
    await alice.acquire("a", { owner: "alice" });
    const tried = await bob.tryAcquire("a");
    expect(tried).toMatchObject({ acquired: false, busy: { holders: [{ owner: "alice" }] } });
    await expect(bob.acquire("a", { wait: "50ms" })).rejects.toMatchObject({ code: "BUSY", message: /alice/ });
    const abort = new AbortController();
    const waiting = bob.acquire("a", { signal: abort.signal });
    await until(async () => (await alice.describe("a")).waitersTotal === 1);
    abort.abort(new Error("changed my mind"));
    await expect(waiting).rejects.toThrow("changed my mind");
    await until(async () => (await alice.describe("a")).waitersTotal === 0);
  });

  test("a lease of one's own ends with its lock; a shared one takes all its locks along", async () => {
    const newClient = await start();
    const [client, other] = [await newClient(), await newClient()];
    const lease = await client.lease({ ttl: "5s" });
    const a = await client.acquire("a", { lease });
    const b = await client.acquire("b", { lease });
    const own = await client.acquire("c", { ttl: "3s" });
    expect(await own.release()).toBe(true);
    await lease.revoke();
    expect([a.state.is, b.state.is]).not.toContain("held");
    expect((await other.tryAcquire("a")).acquired).toBe(true);
    expect((await other.tryAcquire("b")).acquired).toBe(true);
  });

  test("timestamps rise across clients that tell each other", async () => {
    const newClient = await start();
    const [alice, bob] = [await newClient(), await newClient()];
    const first = await alice.clock.range(10);
    bob.clock.observe(first.last);
    const second = await bob.clock.range(1);
    expect(second.first).toBeGreaterThan(first.last);
    const lock = await alice.acquire("a");
    expect(lock.grant.timestamp).toBeGreaterThan(second.last);
  });

  test("close gives everything back at once", async () => {
    const newClient = await start();
    const [alice, bob] = [await newClient(), await newClient()];
    await alice.acquire("a");
    const waiting = bob.acquire("a");
    await alice.close();
    expect((await waiting).state.is).toBe("held");
    await expect(alice.acquire("b")).rejects.toMatchObject({ code: "CLOSED" });
  });

  test("bad arguments get INVALID and the client goes on", async () => {
    const client = await (await start())();
    for (const name of ["", "x".repeat(513), "a\nb", "\ud800"]) {
      await expect(client.acquire(name)).rejects.toMatchObject({ code: "INVALID" });
    }
    await expect(client.acquire("a", { ttl: 1 })).rejects.toMatchObject({ code: "INVALID" });
    await expect(client.acquire("a", { ttl: "25h" })).rejects.toMatchObject({ code: "INVALID" });
    await expect(client.acquire("a", { metadata: "x".repeat(5_000) })).rejects.toMatchObject({ code: "INVALID" });
    await expect(client.validate("a", -1)).rejects.toMatchObject({ code: "INVALID" });
    expect((await client.tryAcquire("a")).acquired).toBe(true);
  });
});
