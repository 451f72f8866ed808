/** Modes, sets, transfers and forced releases by unary calls from end to end, as clients in other languages make them. */
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { type leasehold, v1 } from "../../src/client/wire/index.js";
import { ServerProcess, temporaryFolder, until } from "./support.js";
import { UnaryClient } from "./unary-client.js";

const { LOCK_MODE_SHARED: SHARED, LOCK_MODE_SEMAPHORE: SEMAPHORE, LOCK_MODE_EXCLUSIVE: EXCLUSIVE } = v1.LockMode;

async function start(...flags: string[]) {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}/data`, ...flags);
  return { server, client: new UnaryClient(server.address) };
}

type Acquire = leasehold.v1.AcquireRequest.$Properties;

/** A try with a lease of its own. */
const tried = (client: UnaryClient, request: Acquire) => client.acquire({ ttlMs: 60_000, ...request });

async function token(client: UnaryClient, request: Acquire): Promise<number> {
  const { grant } = await tried(client, request);
  expect(grant, JSON.stringify(request)).toBeTruthy();
  return grant?.token as number;
}

/** Begins to wait, and resolves when the server knows of it. */
async function waiting(client: UnaryClient, request: Acquire) {
  const name = request.name as string;
  const before = (await client.call("DescribeLock", { name })).waitersTotal;
  const answer = client.acquire({ ttlMs: 60_000, waitMs: 60_000, requestId: randomUUID(), ...request });
  answer.catch(() => undefined); // not every test lets it come to its end
  let ticketId = "";
  await until(async () => {
    const { waiters, waitersTotal } = await client.call("DescribeLock", { name });
    ticketId = waiters.at(-1)?.ticketId ?? "";
    return waitersTotal > before;
  });
  return { ticketId, answer };
}

test("readers share, a writer waits for them, and readers behind it wait for the writer", async () => {
  const { client } = await start();
  const first = await token(client, { name: "a", mode: SHARED });
  const second = await token(client, { name: "a", mode: SHARED });
  const writer = await waiting(client, { name: "a", mode: EXCLUSIVE });
  expect((await tried(client, { name: "a", mode: SHARED })).busy).toMatchObject({ waiters: 1, holdersTotal: 2 });
  const reader = await waiting(client, { name: "a", mode: SHARED });
  await client.call("Release", { name: "a", token: first });
  await client.call("Release", { name: "a", token: second });
  const { grant } = await writer.answer;
  await client.call("Downgrade", { name: "a", token: grant?.token as number });
  expect((await reader.answer).grant?.token).toBeGreaterThan(grant?.token as number);
  const { holders } = await client.call("DescribeLock", { name: "a" });
  expect(holders.map((holder) => holder.mode)).toEqual([SHARED, SHARED]);
});

test("a semaphore gives slots, and the smallest limit that anybody declared counts", async () => {
  const { client } = await start();
  const take = (permits: number, permitLimit: number) =>
    tried(client, { name: "s", mode: SEMAPHORE, permits, permitLimit });
  const two = (await take(2, 3)).grant;
  expect(two?.slots).toEqual([0, 1]);
  expect((await take(2, 3)).busy).toBeTruthy();
  expect((await take(1, 2)).busy, "a lower limit").toBeTruthy();
  expect((await take(1, 9)).grant?.slots, "a higher limit does not count while the lower one is held").toEqual([2]);
  expect((await take(1, 9)).busy).toBeTruthy();
  await expect(take(4, 3)).rejects.toMatchObject({ reason: "INVALID" });
  await expect(tried(client, { name: "s", permits: 1 })).rejects.toMatchObject({ reason: "INVALID" });
});

test("AcquireAll is all or nothing, and its locks are reserved while it waits for one of them", async () => {
  const { client } = await start();
  const b = await token(client, { name: "b" });
  const locks = [{ name: "a" }, { name: "b", mode: SHARED }, { name: "c" }];
  const refused = await client.call("AcquireAll", { locks, ttlMs: 60_000 });
  expect(refused.busy).toMatchObject({ name: "b" });
  const request = { locks, ttlMs: 60_000, waitMs: 60_000, requestId: randomUUID() };
  const answer = client.call("AcquireAll", request);
  await until(async () => (await client.call("DescribeLock", { name: "c" })).waitersTotal === 1);
  expect(await client.call("DescribeLock", { name: "a" })).toMatchObject({ holders: [], reserved: true });
  expect((await tried(client, { name: "a" })).busy).toMatchObject({ reserved: true });
  await client.call("Release", { name: "b", token: b });
  const grants = (await answer).grants?.grants ?? [];
  expect(grants.map((grant) => grant.name)).toEqual(["a", "b", "c"]);
  expect(new Set(grants.map((grant) => grant.timestamp)).size).toBe(1);
  expect((await client.call("AcquireAll", request)).grants?.grants, "a duplicate").toEqual(
    grants.map((grant) => expect.objectContaining({ token: grant.token })),
  );
  expect(await client.call("CancelAcquire", { requestId: request.requestId })).toMatchObject({ outcome: 3 });
  for (const { name } of locks) expect((await client.call("DescribeLock", { name })).holders).toEqual([]);
  const twice = { locks: [{ name: "a" }, { name: "a" }], ttlMs: 60_000 };
  await expect(client.call("AcquireAll", twice)).rejects.toMatchObject({ reason: "INVALID" });
});

test("a deadlock is refused, and the knot is named", async () => {
  const { client } = await start();
  const lease = async (owner: string) =>
    (await client.call("CreateLease", { ttlMs: 60_000, owner })).lease?.leaseId as string;
  const alice = await lease("alice");
  const bob = await lease("bob");
  const x = await token(client, { name: "x", leaseId: alice, ttlMs: null });
  const y = await token(client, { name: "y", leaseId: bob, ttlMs: null });
  const wait = await waiting(client, { name: "y", leaseId: alice, ttlMs: null, heldTokens: [x] });
  const refused = client.acquire({
    name: "x",
    leaseId: bob,
    waitMs: 60_000,
    requestId: randomUUID(),
    heldTokens: [y],
  });
  await expect(refused).rejects.toMatchObject({ reason: "DEADLOCK", message: expect.stringContaining("alice") });
  await expect(client.acquire({ name: "z", leaseId: bob, heldTokens: [x] })).rejects.toMatchObject({
    reason: "INVALID",
  });
  await client.call("Release", { name: "y", token: y });
  expect((await wait.answer).grant).toBeTruthy();
});

test("a lock is handed to a chosen waiter, and kept when that one is not there", async () => {
  const { client } = await start();
  const held = await token(client, { name: "a" });
  const early = await waiting(client, { name: "a" });
  const chosen = await waiting(client, { name: "a" });
  const gone = client.call("Transfer", { name: "a", token: held, ticketId: "T999999" });
  await expect(gone).rejects.toMatchObject({ reason: "NOT_WAITING" });
  await expect(client.call("Transfer", { name: "a", token: held, ticketId: "x" })).rejects.toMatchObject({
    reason: "INVALID",
  });
  expect(await client.call("Validate", { name: "a", token: held })).toMatchObject({ held: true });
  const transferred = await client.call("Transfer", { name: "a", token: held, ticketId: chosen.ticketId });
  expect((await chosen.answer).grant?.token).toBe(transferred.token);
  expect(transferred.token).toBeGreaterThan(held);
  expect(await client.call("Validate", { name: "a", token: held })).toMatchObject({ held: false });
  await client.call("Release", { name: "a", token: transferred.token });
  expect((await early.answer).grant?.token).toBeGreaterThan(transferred.token);
});

test("a forced release waits for the holder, who is told by its next renewal; with `now` it does not", async () => {
  const { client } = await start();
  const { grant } = await tried(client, { name: "a" });
  const held = grant?.token as number;
  const next = await waiting(client, { name: "a" });
  const forced = await client.call("ForceRelease", { name: "a", reason: "maintenance" });
  expect(forced).toMatchObject({ ended: [], revoking: [held] });
  expect(forced.withinMs).toBeGreaterThan(50_000);
  expect(await client.call("Validate", { name: "a", token: held })).toMatchObject({ held: false });
  expect((await client.call("DescribeLock", { name: "a" })).holders[0]).toMatchObject({ token: held, revoking: true });
  const renewed = await client.call("RenewLease", { leaseId: grant?.leaseId as string });
  expect(renewed.holdEnds).toEqual([expect.objectContaining({ token: held, confirm: true, message: "maintenance" })]);
  await client.call("Release", { name: "a", token: held });
  const second = (await next.answer).grant?.token as number;
  expect(second).toBeGreaterThan(held);
  expect(await client.call("ForceRelease", { name: "a", token: second, now: true })).toMatchObject({
    ended: [second],
    revoking: [],
  });
  expect((await client.call("DescribeLock", { name: "a" })).holders).toEqual([]);
});

test("an expiry is followed by the lock delay, a release is not; a maximum hold ends a grant that is renewed", async () => {
  const { client } = await start();
  const { lease } = await client.call("CreateLease", { ttlMs: 500 });
  await client.acquire({ name: "a", leaseId: lease?.leaseId as string, lockDelayMs: 60_000 });
  let busy: leasehold.v1.Busy.$Properties | null | undefined;
  await until(async () => {
    busy = (await tried(client, { name: "a" })).busy;
    return busy?.holders?.length === 0;
  });
  expect(busy?.delayRemainingMs).toBeGreaterThan(50_000);
  const clean = await token(client, { name: "b", lockDelayMs: 60_000 });
  await client.call("Release", { name: "b", token: clean });
  await token(client, { name: "b" });

  const { grant } = await tried(client, { name: "c", maxHoldMs: 700 });
  expect(grant?.maxHoldRemainingMs).toBeLessThanOrEqual(700);
  expect(grant?.maxHoldRemainingMs).toBeGreaterThan(0);
  const next = await waiting(client, { name: "c" });
  expect((await next.answer).grant?.token).toBeGreaterThan(grant?.token as number);
});

test("a lease that asks for progress dies without it, however often it is renewed", async () => {
  const { client } = await start();
  const make = async () =>
    (await client.call("CreateLease", { ttlMs: 60_000, progressEveryMs: 700 })).lease?.leaseId as string;
  const hung = await make();
  const working = await make();
  await client.acquire({ name: "hung", leaseId: hung });
  await client.acquire({ name: "working", leaseId: working });
  expect((await client.call("RenewLease", { leaseId: hung })).remainingMs).toBeLessThanOrEqual(700);
  let ended = false;
  await until(async () => {
    await client.call("RenewLease", { leaseId: working, progress: true });
    ended = await client.call("RenewLease", { leaseId: hung }).then(
      () => false,
      (refusal) => refusal.reason === "UNKNOWN_LEASE",
    );
    return ended;
  });
  expect((await client.call("DescribeLock", { name: "hung" })).holders).toEqual([]);
  expect((await client.call("DescribeLock", { name: "working" })).holders).toHaveLength(1);
});

test("metadata is replaced, a waiter is told who blocks it through how many hops, and the longest are listed", async () => {
  const { client } = await start();
  const held = await token(client, { name: "a", metadata: Buffer.from("one"), owner: "alice" });
  await client.call("SetMetadata", { name: "a", token: held, metadata: Buffer.from("two") });
  const described = await client.call("DescribeLock", { name: "a" });
  expect(Buffer.from(described.holders[0]?.metadata ?? []).toString()).toBe("two");

  const bob = (await client.call("CreateLease", { ttlMs: 60_000, owner: "bob" })).lease?.leaseId as string;
  const b = await token(client, { name: "b", leaseId: bob, ttlMs: null });
  await waiting(client, { name: "a", leaseId: bob, ttlMs: null, heldTokens: [b] });
  await waiting(client, { name: "b" });
  const { waiters } = await client.call("DescribeLock", { name: "b" });
  expect(waiters[0]?.blockedBy).toMatchObject({ lock: "a", token: held, owner: "alice", hops: 2 });
  const top = await client.call("TopLocks", {});
  expect(top.longestHolds[0]).toMatchObject({ name: "a" });
  expect(top.longestWaits[0]).toMatchObject({ name: "a" });
  expect(top.hottest.map((lock) => lock.name).sort()).toEqual(["a", "b"]);
});

test("waiters of every mode keep their places over a kill -9 of the server", async () => {
  const { server, client } = await start();
  const requests: Acquire[] = [
    { name: "a", mode: EXCLUSIVE },
    { name: "a", mode: SHARED },
    { name: "a", mode: SHARED },
    { name: "a", mode: SEMAPHORE, permits: 2, permitLimit: 3 },
    { name: "a", mode: EXCLUSIVE },
  ].map((request) => ({ ...request, ttlMs: 60_000, waitMs: 60_000, requestId: randomUUID() }));
  const all = {
    locks: [{ name: "a" }, { name: "b" }],
    ttlMs: 60_000,
    waitMs: 60_000,
    requestId: randomUUID(),
  };
  const held = await token(client, { name: "a" });
  const cut: Promise<unknown>[] = [];
  for (const request of requests) cut.push((await waiting(client, request)).answer.catch(() => "cut"));
  const set = client.call("AcquireAll", all).catch(() => "cut");
  await until(async () => (await client.call("DescribeLock", { name: "b" })).waitersTotal === 1);
  const before = (await client.call("DescribeLock", { name: "a" })).waiters.map((waiter) => waiter.ticketId);
  await server.kill();
  await server.restart();
  const after = await client.call("DescribeLock", { name: "a" });
  expect(after.waiters.map((waiter) => waiter.ticketId)).toEqual(before);
  expect(after.waiters.every((waiter) => waiter.attached === false)).toBe(true);
  await Promise.all([...cut, set]);
  // In any order: the places are what counts.
  const again = [...requests].reverse().map((request) => client.acquire(request));
  const setAgain = client.call("AcquireAll", all);
  await until(async () =>
    (await client.call("DescribeLock", { name: "a" })).waiters.every((waiter) => waiter.attached),
  );
  await client.call("Release", { name: "a", token: held });
  const tokens: number[] = [];
  for (const answer of [...again].reverse()) {
    const { grant } = await answer;
    tokens.push(grant?.token as number);
    await client.call("Release", { name: "a", token: grant?.token as number });
  }
  expect(tokens).toEqual([...tokens].sort((a, b) => a - b));
  expect((await setAgain).grants?.grants?.[0]?.token).toBeGreaterThan(tokens.at(-1) as number);
});
