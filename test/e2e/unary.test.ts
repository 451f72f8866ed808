/** Unary calls from end to end: what a client in another language does, and what it gets for bad input. */
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { ServerProcess, temporaryFolder, until } from "./support.js";
import { UnaryClient } from "./unary-client.js";

async function start(...flags: string[]) {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}/data`, ...flags);
  return { server, client: new UnaryClient(server.address) };
}

test("a lease is created, renewed, listed without its id, found with what it holds, and revoked", async () => {
  const { client } = await start();
  const { lease } = await client.call("CreateLease", { ttlMs: 5_000, owner: "alice" });
  const leaseId = lease?.leaseId as string;
  const { grant } = await client.acquire({ name: "a", leaseId });
  expect(grant?.leaseId).toBe(leaseId);
  expect(await client.call("RenewLease", { leaseId })).toMatchObject({ ttlMs: 5_000, remainingMs: 5_000 });
  expect((await client.call("GetLease", { leaseId })).lease).toMatchObject({ owner: "alice", holds: 1, waits: 0 });
  const { leases } = await client.call("ListLeases", {});
  expect(leases).toHaveLength(1);
  expect(JSON.stringify(leases)).not.toContain(leaseId);
  expect(await client.call("RevokeLease", { leaseId })).toMatchObject({ revoked: true });
  expect(await client.call("RevokeLease", { leaseId })).toMatchObject({ revoked: false });
  expect(await client.call("Validate", { name: "a", token: grant?.token as number })).toMatchObject({ held: false });
});

test("a wait is a long poll: calls that end with `waiting` keep the place, and the grant comes to the poll that is there", async () => {
  const { client } = await start("--limits-poll-ms-max", "200ms");
  const first = await client.acquire({ name: "a", ttlMs: 60_000 });
  const attempt = { name: "a", ttlMs: 60_000, waitMs: 60_000, requestId: randomUUID() };
  const waiting = await client.acquire(attempt);
  expect(waiting.waiting).toMatchObject({ position: 1, pollWithinMs: 5_000 });
  const later = client.acquire({ ...attempt, requestId: randomUUID() });
  expect((await client.acquire(attempt)).waiting).toMatchObject({ ticketId: waiting.waiting?.ticketId, position: 1 });
  await later;
  await client.call("Release", { name: "a", token: first.grant?.token as number });
  // Nobody polls at this moment, so the lock is kept for the first in the queue.
  expect(await client.call("DescribeLock", { name: "a" })).toMatchObject({
    holders: [],
    reserved: true,
    waitersTotal: 2,
  });
  const { grant } = await client.acquire(attempt);
  expect(grant?.token).toBeGreaterThan(first.grant?.token as number);
  expect((await client.acquire(attempt)).grant?.token, "a duplicate has the same grant").toBe(grant?.token);
});

test("a poll that was cut off loses nothing; a grant to a call that is gone is taken back", async () => {
  const { client } = await start("--limits-resume-ms", "300ms");
  const holder = await client.acquire({ name: "a", ttlMs: 60_000 });
  const attempt = { name: "a", ttlMs: 60_000, waitMs: 60_000, requestId: randomUUID() };
  const cut = new AbortController();
  const first = client.call("Acquire", attempt, cut.signal).catch(() => "cut");
  const queue = () => client.call("DescribeLock", { name: "a" });
  await until(async () => (await queue()).waitersTotal === 1);
  cut.abort();
  expect(await first).toBe("cut");
  await until(async () => (await queue()).waiters[0]?.attached === false);
  const again = client.acquire(attempt);
  await until(async () => (await queue()).waiters[0]?.attached === true);
  await client.call("Release", { name: "a", token: holder.grant?.token as number });
  expect((await again).grant).toBeTruthy();

  // One who never comes back holds nobody up for longer than resumeMs.
  const gone = new AbortController();
  const lost = client.call("Acquire", { ...attempt, requestId: randomUUID() }, gone.signal).catch(() => "gone");
  await until(async () => (await queue()).waitersTotal === 1);
  gone.abort();
  await lost;
  const last = client.acquire({ ...attempt, requestId: randomUUID() });
  await client.call("Release", { name: "a", token: (await again).grant?.token as number });
  expect((await last).grant).toBeTruthy();
});

test("cancel withdraws a ticket or a grant, and a delayed duplicate of the Acquire is refused", async () => {
  const { client } = await start();
  const requestId = randomUUID();
  await client.acquire({ name: "a", requestId });
  expect(await client.call("CancelAcquire", { requestId })).toMatchObject({ outcome: 3 });
  expect((await client.call("DescribeLock", { name: "a" })).holders).toEqual([]);
  await expect(client.acquire({ name: "a", requestId })).rejects.toMatchObject({
    code: "CANCELLED",
    reason: "CANCELLED_REQUEST",
  });
  // Before the Acquire has arrived at all.
  const early = randomUUID();
  expect(await client.call("CancelAcquire", { requestId: early })).toMatchObject({ outcome: 1 });
  await expect(client.acquire({ name: "a", requestId: early })).rejects.toMatchObject({ reason: "CANCELLED_REQUEST" });
  expect((await client.call("DescribeLock", { name: "a" })).holders).toEqual([]);
});

test("bad input gets its status and reason, changes nothing, and the others are served", async () => {
  const { server, client } = await start();
  const holder = await client.acquire({ name: "held", ttlMs: 60_000 });
  const token = holder.grant?.token as number;
  const { last } = await client.call("Tick", { count: 1 });
  const before = await client.call("Status", {});

  const refusals: [Promise<unknown>, string, string][] = [
    [client.acquire({ name: "" }), "INVALID_ARGUMENT", "INVALID"],
    [client.acquire({ name: "x".repeat(513) }), "INVALID_ARGUMENT", "INVALID"],
    [client.acquire({ name: "a\u0000b" }), "INVALID_ARGUMENT", "INVALID"],
    [client.acquire({ name: "a", ttlMs: 0 }), "INVALID_ARGUMENT", "INVALID"],
    [client.acquire({ name: "a", ttlMs: 499 }), "INVALID_ARGUMENT", "INVALID"],
    [client.acquire({ name: "a", ttlMs: 25 * 3_600_000 }), "INVALID_ARGUMENT", "INVALID"],
    [client.acquire({ name: "a", waitMs: 1_000 }), "INVALID_ARGUMENT", "INVALID"],
    [client.acquire({ name: "a", metadata: Buffer.alloc(4_097) }), "INVALID_ARGUMENT", "INVALID"],
    [client.call("CreateLease", { ttlMs: 1 }), "INVALID_ARGUMENT", "INVALID"],
    [client.acquire({ name: "a", leaseId: "nobody's" }), "NOT_FOUND", "UNKNOWN_LEASE"],
    [client.call("RenewLease", { leaseId: "nobody's" }), "NOT_FOUND", "UNKNOWN_LEASE"],
    [client.call("GetLease", { leaseId: "nobody's" }), "NOT_FOUND", "UNKNOWN_LEASE"],
    [client.call("Release", { name: "held", token: token + 1 }), "FAILED_PRECONDITION", "STALE_TOKEN"],
    [client.call("Release", { name: "other", token }), "FAILED_PRECONDITION", "STALE_TOKEN"],
    [client.call("Tick", { observed: last + 50_000_000 }), "OUT_OF_RANGE", "CLOCK_JUMP"],
    [client.call("Tick", { count: 1_000_001 }), "INVALID_ARGUMENT", "INVALID"],
    [client.call("ListLocks", { pageToken: "not a token!" }), "INVALID_ARGUMENT", "INVALID"],
  ];
  await Promise.all(refusals.map(([call, code, reason]) => expect(call).rejects.toMatchObject({ code, reason })));

  const after = await client.call("Status", {});
  for (const key of ["lastToken", "leases", "locks", "holds", "waiters", "timestamp"] as const) {
    expect(after[key], key).toBe(before[key]);
  }
  expect(await client.call("Validate", { name: "held", token })).toMatchObject({ held: true });
  expect(await server.metric('leasehold_stale_tokens_total{rpc="Release"}')).toBe(2);
});

test("an observation far ahead fails no lock command: it is ignored, and the answer says by how much", async () => {
  const { client } = await start();
  const answer = await client.acquire({ name: "a", observed: 10 ** 12 });
  expect(answer.grant).toBeTruthy();
  expect(answer.clockAheadBy).toBeGreaterThan(10 ** 11);
  expect(answer.timestamp).toBeLessThan(10 ** 7);
});
