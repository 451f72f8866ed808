/** Networks that delay, lose and break, and servers that die and come back, between a client and its locks. */
import { expect, onTestFinished, test } from "vitest";
import { type Client, type ConnectOptions, connect, type Lock } from "../../src/client/index.js";
import { Network, ServerProcess, temporaryFolder, until } from "./support.js";

async function client(address: string, options: ConnectOptions = {}): Promise<Client> {
  const connected = await connect(address, options);
  connected.on("warning", () => undefined);
  onTestFinished(() => connected.close({ timeout: "1s" }));
  return connected;
}

const newServer = async () => ServerProcess.start(`level:${await temporaryFolder()}/data`);

const waiters = async (observer: Client, name: string) => (await observer.describe(name)).waitersTotal;

test("a grant whose reply is delayed past the TTL never becomes a lock that the server has given to somebody else", async () => {
  const server = await newServer();
  const network = await Network.to(server.address);
  const slow = await client(network.address, { ttl: "1s" });
  const other = await client(server.address);
  await slow.clock.range(1); // connected
  network.holdToClient();
  const acquired = slow.acquire("a", { wait: "20s" }).then(
    (lock) => ({ lock }),
    (error) => ({ error }),
  );
  await until(async () => (await other.describe("a")).holders.length === 1);
  const next = await other.acquire("a"); // granted after the lease of the first has expired
  network.flow();
  // Either it is told that its lease was lost, or it queues again: what it must not have is a lock beside `next`.
  const first = await Promise.race([acquired, until(async () => (await waiters(other, "a")) === 1).then(() => null)]);
  if (first !== null) expect(first).toMatchObject({ error: { code: "LOST" } });
  expect(await other.validate("a", next.token)).toBe(true);
  await next.release();
  const second = await acquired;
  if ("lock" in second) expect(await other.validate("a", second.lock.token)).toBe(true);
});

test("a release whose reply is lost is repeated after the reconnect, takes effect once, and resolves true", async () => {
  const server = await newServer();
  const network = await Network.to(server.address);
  const [holder, other] = [await client(network.address), await client(server.address)];
  const lock = await holder.acquire("a");
  network.holdToClient();
  const released = lock.release();
  const next = await other.acquire("a"); // the release has arrived
  network.cut();
  expect(await released).toBe(true);
  expect(await other.validate("a", next.token), "the repetition has not touched the next holder").toBe(true);
});

test("a grant that was delivered to nobody is taken back when the session resumes, long before its lease ends", async () => {
  const server = await newServer();
  const network = await Network.to(server.address);
  const [first, lossy, third] = [
    await client(server.address),
    await client(network.address, { ttl: "10m" }),
    await client(server.address),
  ];
  const held = await first.acquire("a");
  const abort = new AbortController();
  const aborted = lossy.acquire("a", { signal: abort.signal }).catch((error: unknown) => error);
  await until(async () => (await waiters(first, "a")) === 1);
  network.holdToClient();
  await held.release();
  await until(async () => (await third.describe("a")).holders.length === 1);
  const [holder] = (await third.describe("a")).holders;
  abort.abort(new Error("gave up"));
  network.cut(); // the grant is lost on the way, and nobody waits for it any more
  expect(await aborted).toMatchObject({ message: "gave up" });
  const lock = await third.acquire("a", { wait: "15s" });
  expect(lock.token).toBeGreaterThan(holder?.token as number);
});

test("a waiter keeps its place over a broken connection, and nobody is granted the lock ahead of it", async () => {
  const server = await newServer();
  const network = await Network.to(server.address);
  const [holder, waiter, later] = [
    await client(server.address),
    await client(network.address),
    await client(server.address),
  ];
  const held = await holder.acquire("a");
  const order: string[] = [];
  const run = (who: string, acquired: Promise<Lock>) =>
    acquired.then(async (lock) => {
      order.push(who);
      await lock.release();
    });
  const first = run("waiter", waiter.acquire("a"));
  await until(async () => (await waiters(holder, "a")) === 1);
  const second = run("later", later.acquire("a"));
  await until(async () => (await waiters(holder, "a")) === 2);
  network.refuse();
  network.cut();
  await until(async () => (await holder.describe("a")).waiters[0]?.attached === false);
  await held.release();
  expect(await holder.describe("a")).toMatchObject({ holders: [], reserved: true });
  network.accept();
  await Promise.all([first, second]);
  expect(order).toEqual(["waiter", "later"]);
});

test("a waiter whose connection stays broken holds nobody up for longer than resumeMs", async () => {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}/data`, "--limits-resume-ms", "500ms");
  const network = await Network.to(server.address);
  const [holder, waiter, later] = [
    await client(server.address),
    await client(network.address),
    await client(server.address),
  ];
  const held = await holder.acquire("a");
  const gone = waiter.acquire("a", { wait: "20s" }).catch((error: unknown) => error);
  await until(async () => (await waiters(holder, "a")) === 1);
  const next = later.acquire("a");
  await until(async () => (await waiters(holder, "a")) === 2);
  network.refuse();
  network.cut();
  await held.release();
  expect((await next).state.is).toBe("held");
  await waiter.close({ timeout: "100ms" });
  await gone;
});

test("kill -9 of the server: the holder keeps its lock and token, the waiters their order, new tokens are higher", async () => {
  const server = await newServer();
  const [holder, waiter, later] = [
    await client(server.address),
    await client(server.address),
    await client(server.address),
  ];
  const held = await holder.acquire("a");
  const order: number[] = [];
  const first = waiter.acquire("a");
  await until(async () => (await waiters(holder, "a")) === 1);
  const second = later.acquire("a");
  await until(async () => (await waiters(holder, "a")) === 2);
  const lost: string[] = [];
  held.on("lost", (reason) => lost.push(reason));

  await server.kill();
  await server.restart();
  expect(await holder.validate("a", held.token)).toBe(true);
  expect(lost).toEqual([]);
  expect(await held.release()).toBe(true);
  const one = await first;
  order.push(one.token);
  await one.release();
  order.push((await second).token);
  expect(order[0]).toBeGreaterThan(held.grant.token);
  expect(order[1]).toBeGreaterThan(order[0] as number);
});

test("SIGTERM drains and exits 0; the holder goes on as soon as the server is back", async () => {
  const server = await newServer();
  const [holder, waiter] = [await client(server.address), await client(server.address)];
  const held = await holder.acquire("a");
  const next = waiter.acquire("a");
  await until(async () => (await waiters(holder, "a")) === 1);
  expect(await server.stop()).toBe(0);
  expect(server.log).toMatch(/draining[\s\S]*stopped/);
  await server.restart();
  expect(await holder.validate("a", held.token)).toBe(true);
  await held.release();
  expect((await next).token).toBeGreaterThan(held.grant.token);
});

test("a store that was emptied behind the clients' backs is noticed by those who come back", async () => {
  const folder = await temporaryFolder();
  const server = await ServerProcess.start(`level:${folder}/data`);
  const before = await client(server.address, { ttl: "1m" });
  const lock = await before.acquire("a");
  const lost = new Promise<string>((resolve) => lock.on("lost", resolve));
  await server.kill();
  const { rm } = await import("node:fs/promises");
  await rm(`${folder}/data`, { recursive: true });
  await server.restart();
  await lost;
  expect(lock.state.is).toBe("lost");
  await expect(before.acquire("b", { wait: "2s" })).rejects.toMatchObject({ message: /cluster/ });
  expect((await (await client(server.address)).acquire("a")).token).toBeGreaterThan(0);
});
