/**
 * Stores of earlier formats: opened, taken over, and served. They are copies of `fixtures`, written by servers of their
 * time.
 */
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Core, emptyEffects } from "../../src/server/core/core.js";
import type { Attach, Frame, Outcome, Principal, Reply, Request } from "../../src/server/core/types.js";
import { LevelJournal } from "../../src/server/journal/level.js";
import { testLimits } from "../core/limits.js";
import { removeDirectory, runChild, temporaryDirectory } from "./processes.js";

const FORMAT_1 = fileURLToPath(new URL("fixtures/format-1", import.meta.url));
const SLOT_BYTES = 512;

interface Facts {
  readonly clusterId: string;
  readonly sessionId: string;
  readonly leases: Record<"worker" | "progress" | "other" | "own" | "reader2" | "last", string>;
  readonly tokens: Record<"plain" | "own" | "permits" | "limited" | "revoking" | "past" | "released" | "last", number> &
    Record<"shared" | "set" | "session", readonly number[]>;
  readonly tickets: Record<"waits" | "waits-for-both", string>;
  readonly timestamp: number;
}
const facts = JSON.parse(readFileSync(join(FORMAT_1, "facts.json"), "utf8")) as Facts;

let directory: string;
beforeEach(async () => {
  directory = await temporaryDirectory();
  cpSync(join(FORMAT_1, "store"), directory, { recursive: true });
});
afterEach(() => removeDirectory(directory));

const head = () => readFileSync(join(directory, "HEAD"), "latin1");
const slots = () => [head().slice(0, SLOT_BYTES), head().slice(SLOT_BYTES)];
const formats = () => slots().map((slot) => slot.split(" ")[1]);

/** A slot that says so, with a sound checksum. */
function slotOf(format: string, generation: number): string {
  const text = `leasehold ${format} live ${facts.clusterId} 0 ${generation} `;
  return `${(text + (crc32(text) >>> 0).toString(16).padStart(8, "0")).padEnd(SLOT_BYTES - 1)}\n`;
}

async function open() {
  const journal = new LevelJournal(directory, { reserveBytes: 0 });
  return { journal, ...(await journal.open()) };
}

async function entries() {
  const { journal, entries: found } = await open();
  await journal.close();
  return found;
}

/** A server on the store of the test: each request is a batch that is durable before it is answered. */
async function serve() {
  const { journal, entries: found, clusterId } = await open();
  const first = emptyEffects();
  let nowMs = 0;
  const core = Core.recover(found, { limits: testLimits, clusterId, nowMs }, first);
  await journal.append(first.mutations);
  const step = async (command: Parameters<Core["step"]>[0]): Promise<readonly Reply[]> => {
    const fx = emptyEffects();
    core.step(command, nowMs, fx);
    core.seal(nowMs, fx, true);
    await journal.append(fx.mutations);
    return fx.replies;
  };
  const call = async (request: Request, principal?: Principal): Promise<Outcome | undefined> => {
    const route = { kind: "call" } as const;
    const command = { kind: "call", request, route, observed: 0 } as const;
    const replies = await step(principal === undefined ? command : { ...command, principal });
    return replies
      .flatMap((reply) => (reply.kind === "outcome" && reply.route === route ? [reply.outcome] : []))
      .at(-1);
  };
  const pass = async (ms: number) => {
    nowMs += ms;
    while ((core.nextDueMs ?? Number.POSITIVE_INFINITY) <= nowMs) await step({ kind: "expire" });
  };
  return { core, step, call, pass, close: () => journal.close() };
}

const acquire = (name: string, more: object): Request => ({
  kind: "acquire",
  items: [{ name, mode: "exclusive", permits: 0, permitLimit: 0 }],
  all: false,
  holder: { kind: "own", leaseId: `new-${name}`, ttlMs: 60_000 },
  waitMs: 0,
  pollMs: 1_000,
  requestId: "",
  owner: "",
  metadata: "",
  wallMs: 0,
  lockDelayMs: 0,
  maxHoldMs: 0,
  contenderId: "",
  heldTokens: [],
  ...more,
});

const ci: Principal = { name: "token/ci", quota: { leasesMax: 10, locksMax: 10, waitersMax: 10 } };

describe("a store of format 1", () => {
  test("has everything that it had: leases, locks, tickets, tokens, delays, remembered requests, the session", async () => {
    expect(formats()).toEqual(["1", "1"]);
    const { core, call, close } = await serve();
    const { tokens, leases, tickets } = facts;
    expect(core.counts).toMatchObject({ leases: 7, sessions: 1, lastToken: tokens.last, waiters: 3 });
    const held = { plain: tokens.plain, own: tokens.own, permits: tokens.permits, limited: tokens.limited };
    const set = { "set/a": tokens.set[0], "set/c": tokens.set[2], last: tokens.last };
    const onSession = {
      "session/a": tokens.session[0],
      "session/b": tokens.session[1],
      "session/c": tokens.session[2],
    };
    for (const [name, token] of Object.entries({ ...held, ...set, ...onSession })) {
      expect(await call({ kind: "validate", name, token: token as number }), name).toEqual({
        kind: "validated",
        held: true,
      });
    }
    for (const [name, token] of Object.entries({
      past: tokens.past,
      "set/b": tokens.set[1],
      "session/d": tokens.released,
    })) {
      expect(await call({ kind: "validate", name, token: token as number }), name).toMatchObject({ held: false });
    }
    const describeLock = async (name: string) => {
      const outcome = await call({ kind: "describeLock", name, waitersMax: 9, wallMs: 0 });
      if (outcome?.kind !== "lock") throw new Error(`${name} cannot be described`);
      return outcome.lock;
    };
    const plain = await describeLock("plain");
    expect(Buffer.from(plain.holders[0]?.metadata ?? "", "base64").toString()).toBe("changed");
    expect(plain.waiters.map(({ owner, ticketId }) => [owner, ticketId])).toEqual([
      ["session", "T8"],
      ["worker-2", tickets.waits],
    ]);
    const both = (await describeLock("free")).waiters;
    expect(both).toMatchObject([{ ticketId: tickets["waits-for-both"], locks: 2 }]);
    expect((await describeLock("shared")).holders.map(({ mode, token }) => [mode, token])).toEqual(
      tokens.shared.map((token) => ["shared", token]),
    );
    expect((await describeLock("permits")).holders).toMatchObject([{ permits: 2, permitLimit: 3, slots: [0, 1] }]);
    expect((await describeLock("revoking")).holders).toMatchObject([{ token: tokens.revoking, revoking: true }]);
    expect((await describeLock("delayed")).delayRemainingMs).toBeGreaterThan(3_600_000);
    expect((await describeLock("limited")).holders[0]?.maxHoldRemainingMs).toBeGreaterThan(3_600_000);
    expect(await call({ kind: "getLease", leaseId: leases.progress })).toMatchObject({
      lease: { progressEveryMs: 3_600_000, owner: "batch", ttlMs: 86_400_000 },
    });
    expect(await call(acquire("past", { requestId: "past-request" }))).toMatchObject({ reason: "STALE_TOKEN" });
    expect(await call(acquire("x", { requestId: "cancelled-request" }))).toMatchObject({ reason: "CANCELLED_REQUEST" });
    expect(core.timestamp).toBeGreaterThan(facts.timestamp);
    await close();
  });

  test("goes on: holders renew and release, waiters come back, the session resumes, tokens rise", async () => {
    const { step, call, close } = await serve();
    const { leases, tokens, sessionId } = facts;
    expect(await call({ kind: "renewLease", leaseId: leases.worker, progress: false })).toMatchObject({
      kind: "renewed",
    });
    const route = { kind: "stream" } as const;
    const hello: Attach = {
      kind: "attach",
      sessionId,
      newSessionId: "",
      epoch: 2,
      claims: tokens.session,
      outstanding: [5, 6],
      abandoned: [],
      clusterId: facts.clusterId,
      highestToken: tokens.last,
      route,
      observed: 0,
    };
    const welcome = await step(hello);
    expect(welcome).toMatchObject([{ outcome: { kind: "welcome", resumed: true, lost: [] } }]);
    const wait = acquire("plain", { holder: { kind: "session", seq: 1 }, waitMs: 3_600_000, contenderId: "task" });
    const release: Request = { kind: "release", name: "session/d", token: tokens.released };
    const frame: Frame = {
      kind: "frame",
      sessionId,
      epoch: 2,
      frame: 2,
      ackedBelow: 5,
      acked: [],
      renew: true,
      progress: [],
      observed: 0,
      requests: [
        { seq: 5, request: release },
        { seq: 6, request: wait },
      ],
    };
    // The release has been done: told again, and not refused.
    const again = await step(frame);
    expect(again).toMatchObject([
      { kind: "renewal", leaseSeq: 1 },
      { seq: 5, outcome: { kind: "released" } },
      { kind: "processed" },
    ]);
    const handed = await step({
      kind: "call",
      request: { kind: "release", name: "plain", token: tokens.plain },
      route: { kind: "call" },
      observed: 0,
    });
    expect(handed).toMatchObject([
      { route, seq: 6, outcome: { kind: "grant", grants: [{ token: tokens.last + 1 }] } },
      { outcome: { kind: "released" } },
    ]);
    for (const [name, token] of [
      ["own", tokens.own],
      ["set/a", tokens.set[0]],
      ["permits", tokens.permits],
    ] as const) {
      expect(await call({ kind: "release", name, token: token as number }), name).toEqual({ kind: "released" });
    }
    await close();
  });

  test("belongs to nobody: with authentication everybody may use it, and what is new belongs to its maker", async () => {
    const other = { ...ci, name: "token/other" };
    const { call, close } = await serve();
    expect(await call({ kind: "renewLease", leaseId: facts.leases.worker, progress: false }, ci)).toMatchObject({
      kind: "renewed",
    });
    expect(await call(acquire("new", {}), ci)).toMatchObject({ grants: [{ token: facts.tokens.last + 1 }] });
    await close();
    const after = await serve();
    const release: Request = { kind: "release", name: "new", token: facts.tokens.last + 1 };
    expect(await after.call(release, other)).toMatchObject({ reason: "DENIED" });
    expect(await after.call(release, ci)).toEqual({ kind: "released" });
    await after.close();
  });

  test("lets go of who does not come back", async () => {
    const { core, pass, close } = await serve();
    await pass(testLimits.resumeMs);
    expect(core.counts.waiters).toBe(0);
    await pass(86_400_000);
    expect(core.counts).toMatchObject({ leases: 0, holds: 0, sessions: 0 });
    await close();
  });

  test("has format 2 before the first append, so that what only that can say is never in one of format 1", async () => {
    const { journal } = await open();
    expect([...formats()].sort()).toEqual(["1", "2"]);
    await journal.append(["k", "v"]);
    expect(formats()).toEqual(["2", "2"]);
    await journal.close();
  });

  test("survives a crash at any moment of that", async () => {
    const before = await (async () => {
      const found = Object.fromEntries(await entries());
      await removeDirectory(directory);
      directory = await temporaryDirectory();
      cpSync(join(FORMAT_1, "store"), directory, { recursive: true });
      return found;
    })();
    // The write was torn: one slot is what it was, the other is nothing.
    const [first = "", second = ""] = slots();
    const newest = Number(first.split(" ")[5]) > Number(second.split(" ")[5]) ? 0 : 1;
    const torn = slotOf("2", 99).slice(0, 40).padEnd(SLOT_BYTES, "\0");
    writeFileSync(join(directory, "HEAD"), newest === 0 ? first + torn : torn + second, "latin1");
    expect(Object.fromEntries(await entries())).toEqual(before);
    expect(formats()).toContain("2");
    // The process dies behind it, before anything was appended.
    await removeDirectory(directory);
    directory = await temporaryDirectory();
    cpSync(join(FORMAT_1, "store"), directory, { recursive: true });
    await runChild("load", directory, { journal: { reserveBytes: 0 } }, (line, child) => {
      if (line.startsWith("open")) child.kill("SIGKILL");
    });
    expect(formats()).toContain("2");
    expect(Object.fromEntries(await entries())).toMatchObject(before);
  });
});

describe("a store of a newer format is refused, and left alone", () => {
  test.each([
    ["in both slots", ["3", "3"]],
    ["in the one that was written last", ["2", "3"]],
    ["in the one before", ["3", "2"]],
  ])("%s", async (_, [first, second]) => {
    const text = slotOf(first as string, 8) + slotOf(second as string, 9);
    writeFileSync(join(directory, "HEAD"), text, "latin1");
    const refusal = entries();
    await expect(refusal).rejects.toMatchObject({ reason: "newer_format" });
    await expect(refusal).rejects.toThrow(
      /^\S+HEAD: the store has format 3, written by a newer Leasehold; this one reads up to 2: start the newer one, .*$/,
    );
    expect(head()).toBe(text);
    expect(existsSync(join(directory, "LOCK"))).toBe(false);
  });

  test.each(["0", "x", "-1", "2.5"])("format %s is none", async (format) => {
    writeFileSync(join(directory, "HEAD"), slotOf(format, 8).repeat(2), "latin1");
    await expect(entries()).rejects.toMatchObject({ name: "JournalCorruptError" });
  });
});
