/** What an operator finds in the log about locks. */
import { randomUUID } from "node:crypto";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { expect, onTestFinished, test } from "vitest";
import { defaultConfig } from "../../src/server/config/schema.js";
import type { KnotWait } from "../../src/server/core/types.js";
import { EventLog } from "../../src/server/event-log.js";
import { createLogger, type Logger } from "../../src/server/log.js";
import { startServer } from "../../src/server/server.js";
import { until } from "../e2e/support.js";
import { UnaryClient } from "../e2e/unary-client.js";

type Line = Readonly<Record<string, unknown>>;

/** A logger, and what it has written. */
function recording(): { log: Logger; lines: Line[] } {
  const lines: Line[] = [];
  const settings = { base: null, timestamp: false, formatters: { level: (level: string) => ({ level }) } };
  return { log: pino(settings, { write: (line) => lines.push(JSON.parse(line) as Line) }), lines };
}

async function start(): Promise<{ client: UnaryClient; lines: () => Line[] }> {
  const { log, lines } = recording();
  const config = defaultConfig({ listen: "127.0.0.1:0", opsListen: "none", store: "memory:" });
  const server = await startServer(config, { log });
  onTestFinished(() => server.stop());
  const client = new UnaryClient(server.address);
  expect(lines.splice(0)).toMatchObject([{ msg: "the store is recovered" }]);
  return { client, lines: () => lines };
}

const wait: KnotWait = { ticketId: "T1", owner: "alice", contenderId: "", waitsFor: ["y"], holds: ["x"] };

test("a forced release: who loses the lock, why, and when it is over", async () => {
  const { client, lines } = await start();
  const { grant } = await client.acquire({ name: "orders/42", ttlMs: 60_000, owner: "web-1" });
  await client.call("ForceRelease", { name: "orders/42", reason: "it hangs" });
  const revoking = { level: "info", lock: "orders/42", token: 1, owner: "web-1", reason: "it hangs" };
  const begun = { ...revoking, msg: "a lock is being taken away from its holder" };
  expect(lines()).toEqual([begun]);
  await client.call("Release", { name: "orders/42", token: grant?.token as number });
  const { owner: _owner, ...ended } = revoking;
  const over = { ...ended, heldMs: expect.any(Number), msg: "a lock was taken away from its holder" };
  expect(lines()).toEqual([begun, over]);
});

test("a forced release at once is one line; what clients do with their locks by themselves is none", async () => {
  const { client, lines } = await start();
  const { grant } = await client.acquire({ name: "a", ttlMs: 60_000 });
  await client.call("Release", { name: "a", token: grant?.token as number });
  await client.acquire({ name: "a", ttlMs: 60_000 });
  expect(lines()).toEqual([]);
  await client.call("ForceRelease", { name: "a", now: true, reason: "dead" });
  expect(lines()).toMatchObject([
    { lock: "a", token: 2, reason: "dead", msg: "a lock was taken away from its holder" },
  ]);
});

test("a deadlock: who waits for whom, and who was refused", async () => {
  const { client, lines } = await start();
  const lease = async (owner: string) =>
    (await client.call("CreateLease", { ttlMs: 60_000, owner })).lease?.leaseId as string;
  const [alice, bob] = [await lease("alice"), await lease("bob")];
  const x = (await client.acquire({ name: "x", leaseId: alice })).grant?.token as number;
  const y = (await client.acquire({ name: "y", leaseId: bob })).grant?.token as number;
  const waiting = (name: string, leaseId: string, heldTokens: number[]) =>
    client.acquire({ name, leaseId, heldTokens, waitMs: 60_000, requestId: randomUUID() });
  const granted = waiting("y", alice, [x]);
  const queued = async () => (await client.call("DescribeLock", { name: "y" })).waitersTotal === 1;
  await until(queued, 10_000, "alice's wait");
  await expect(waiting("x", bob, [y])).rejects.toMatchObject({ reason: "DEADLOCK" });
  expect(lines()).toEqual([
    {
      level: "info",
      refused: "T4",
      waits: 2,
      knot: [
        { ticket: "T3", owner: "alice", waitsFor: ["y"], holds: ["x"] },
        { ticket: "T4", owner: "bob", waitsFor: ["x"], holds: ["y"] },
      ],
      msg: "a deadlock: the youngest wait is refused",
    },
  ]);
  await client.call("Release", { name: "y", token: y });
  expect((await granted).grant).toBeTruthy();
});

test("however many deadlocks there are, and however large, the log stays small", () => {
  const { log, lines } = recording();
  let nowMs = 0;
  const events = new EventLog(log, () => nowMs);
  const names = Array.from({ length: 64 }, (_, i) => `lock/${i}`);
  const knot = Array.from({ length: 5_000 }, (_, i) => ({ ...wait, ticketId: `T${i}`, waitsFor: names, holds: names }));
  for (let i = 0; i < 100; i++) events.event({ kind: "deadlock", knot });
  expect(lines).toHaveLength(60);
  const some = { length: 8 };
  expect(lines[0]).toMatchObject({ refused: "T4999", waits: 5_000, knot: some });
  expect(lines[0]?.knot).toContainEqual({
    ticket: "T7",
    owner: "alice",
    waitsFor: names.slice(0, 8),
    holds: names.slice(0, 8),
  });
  expect(lines.some((line) => "leftOutBefore" in line)).toBe(false);
  nowMs = 60_000;
  for (let i = 0; i < 2; i++) events.event({ kind: "deadlock", knot: [wait] });
  expect(lines.slice(60)).toMatchObject([{ waits: 1, leftOutBefore: 40 }, { waits: 1 }]);
  expect(lines[61]).not.toHaveProperty("leftOutBefore");
});

test("a line break in a name makes no line of its own in the readable log", () => {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-log-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "log");
  const fd = openSync(path, "w");
  const events = new EventLog(createLogger({ level: "info", fd, readable: true }), () => 0);
  const name = "a\nb";
  const timestamp = 1;
  events.event({
    kind: "holdEnded",
    name,
    timestamp,
    token: 1,
    mode: "exclusive",
    end: "forced",
    heldMs: 1,
    message: name,
  });
  closeSync(fd);
  const text = readFileSync(path, "utf8");
  expect(text).toContain(JSON.stringify(name));
  expect(text).not.toContain(name);
});
