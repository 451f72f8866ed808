/** The model alone, against expectations written by hand from `docs/semantics.md`. */
import { expect, test } from "vitest";
import type { Acquire, LockItem, Principal, Request, Route } from "../../../src/server/core/types.js";
import { CLUSTER_ID, testLimits } from "../limits.js";
import type { Meaning } from "./meaning.js";
import { stepModel } from "./model.js";
import { emptyModel, restart, save } from "./state.js";

class World {
  state = restart(emptyModel(testLimits, CLUSTER_ID), 0, { token: 0, timestamp: 0, serial: 0 });
  nowMs = 0;
  #requests = 0;
  readonly told = new Map<Route, Meaning[]>();
  events: Meaning[] = [];

  #step(command: Parameters<typeof stepModel>[1]): void {
    const { replies, events } = stepModel(this.state, command, this.nowMs, this.nowMs, {
      exact: true,
      events: [],
      replies: [],
    });
    for (const { route, what } of replies) {
      this.told.set(route, [...(this.told.get(route) ?? []), what.outcome as Meaning]);
    }
    this.events = [...events];
  }

  /** By whom; null: by nobody in particular. */
  by: Principal | null = null;

  call(request: Request): Route {
    const route: Route = { kind: "call" };
    const command = { kind: "call", request, route, observed: 0 } as const;
    this.#step(this.by === null ? command : { ...command, principal: this.by });
    return route;
  }

  /** The last that the call was told; undefined: nothing yet. */
  answer(route: Route): Meaning | undefined {
    return this.told.get(route)?.at(-1);
  }

  ask(request: Request): Meaning | undefined {
    return this.answer(this.call(request));
  }

  gone(route: Route): void {
    this.#step({ kind: "callGone", route, token: null });
  }

  pass(ms: number): void {
    this.nowMs += ms;
    this.#step({ kind: "expire" });
  }

  lease(leaseId: string, ttlMs = 100_000, progressEveryMs = 0): void {
    this.call({ kind: "createLease", leaseId, ttlMs, owner: "", metadata: "", progressEveryMs });
  }

  acquire(leaseId: string, items: LockItem | LockItem[], more: Partial<Acquire> = {}): Route {
    return this.call({
      kind: "acquire",
      items: [items].flat(),
      all: Array.isArray(items),
      holder: { kind: "lease", leaseId },
      waitMs: 1_000_000,
      pollMs: 1_000_000,
      requestId: `r${++this.#requests}`,
      owner: "",
      metadata: "",
      wallMs: 0,
      lockDelayMs: 0,
      maxHoldMs: 0,
      contenderId: "",
      heldTokens: [],
      ...more,
    });
  }

  /** The tokens that the call was granted; empty: none. */
  tokens(route: Route): number[] {
    const grants = (this.answer(route)?.grants ?? []) as readonly { token: number }[];
    return grants.map(({ token }) => token);
  }
}

const item = (name: string, mode: LockItem["mode"], permits = 0, permitLimit = 0): LockItem => {
  return { name, mode, permits, permitLimit };
};
const exclusive = (name: string) => item(name, "exclusive");
const shared = (name: string) => item(name, "shared");

function worldWith(...leases: string[]): World {
  const world = new World();
  for (const lease of leases) world.lease(lease);
  return world;
}

test("readers come in together, a writer waits for them, and later readers for the writer", () => {
  const world = worldWith("A", "B", "C", "D");
  const first = world.acquire("A", shared("x"));
  expect(world.tokens(world.acquire("B", shared("x")))).toEqual([2]);
  const writer = world.acquire("C", exclusive("x"));
  const late = world.acquire("D", shared("x"));
  expect([world.tokens(writer), world.tokens(late)]).toEqual([[], []]);
  world.call({ kind: "release", name: "x", token: 1 });
  expect(world.tokens(writer)).toEqual([]);
  world.call({ kind: "release", name: "x", token: 2 });
  expect(world.tokens(writer)).toEqual([3]);
  world.call({ kind: "downgrade", name: "x", token: 3 });
  expect(world.tokens(late)).toEqual([4]);
  expect(world.tokens(first)).toEqual([1]);
});

test("permits add up to the smallest limit that anybody declared, and slots are the lowest that are free", () => {
  const world = worldWith("A", "B", "C");
  world.acquire("A", item("s", "semaphore", 2, 4));
  const narrow = world.acquire("B", item("s", "semaphore", 1, 2));
  expect(world.tokens(narrow)).toEqual([]);
  world.call({ kind: "release", name: "s", token: 1 });
  expect(world.answer(narrow)).toMatchObject({ grants: [{ token: 2, slots: [0] }] });
  expect(world.answer(world.acquire("C", item("s", "semaphore", 1, 9)))).toMatchObject({ grants: [{ slots: [1] }] });
});

test("a set is granted all or nothing, and keeps what it waits for", () => {
  const world = worldWith("A", "B", "C");
  world.acquire("A", exclusive("x"));
  const set = world.acquire("B", [exclusive("y"), exclusive("x")]);
  const behind = world.acquire("C", exclusive("y"));
  expect([world.tokens(set), world.tokens(behind)]).toEqual([[], []]);
  expect(world.ask({ kind: "describeLock", name: "y", waitersMax: 9, wallMs: 0 })).toMatchObject({ reserved: true });
  world.call({ kind: "release", name: "x", token: 1 });
  expect(world.tokens(set)).toEqual([2, 3]);
  expect(world.events.map(({ timestamp }) => timestamp)).toEqual([5, 6, 6]);
});

test("a waiter who has gone keeps its place for a while, and holds everybody up no longer", () => {
  const world = worldWith("A", "B", "C");
  world.acquire("A", exclusive("x"));
  const gone = world.acquire("B", exclusive("x"));
  const next = world.acquire("C", exclusive("x"));
  world.gone(gone);
  world.call({ kind: "release", name: "x", token: 1 });
  expect(world.tokens(next)).toEqual([]);
  world.pass(testLimits.resumeMs);
  expect(world.tokens(next)).toEqual([2]);
});

test("a knot is refused to the youngest; a permit that somebody else will free makes none", () => {
  const world = worldWith("A", "B", "C");
  world.acquire("A", exclusive("x"));
  world.acquire("B", item("s", "semaphore", 1, 2));
  world.acquire("C", item("s", "semaphore", 1, 2));
  const permit = world.acquire("A", item("s", "semaphore", 1, 2), { heldTokens: [1] });
  world.acquire("B", exclusive("x"), { heldTokens: [2] });
  expect(world.tokens(permit)).toEqual([]);
  const both = world.acquire("C", exclusive("x"), { heldTokens: [3] });
  expect(world.answer(both)).toMatchObject({
    reason: "DEADLOCK",
    knot: [{ holds: ["x"] }, { holds: ["s"] }, { holds: ["s"] }],
  });
});

test("a lock delay follows an expiry and not a release; a maximum hold is not moved by renewals", () => {
  const world = worldWith("B");
  world.lease("A", 1_000);
  world.acquire("A", exclusive("x"), { lockDelayMs: 500 });
  const next = world.acquire("B", exclusive("x"), { lockDelayMs: 500, maxHoldMs: 700 });
  world.pass(1_000);
  expect(world.tokens(next)).toEqual([]);
  world.pass(500);
  expect(world.tokens(next)).toEqual([2]);
  world.pass(600);
  world.call({ kind: "renewLease", leaseId: "B", progress: false });
  world.pass(100);
  expect(world.events).toMatchObject([{ kind: "holdEnded", token: 2, end: "max_hold" }]);
  world.pass(500);
  world.acquire("B", exclusive("x"), { lockDelayMs: 500 });
  world.call({ kind: "release", name: "x", token: 3 });
  expect(world.tokens(world.acquire("B", exclusive("x")))).toEqual([4]);
});

test("a transfer goes past the queue to somebody who is there, and leaves no gap", () => {
  const world = worldWith("A", "B", "C");
  world.acquire("A", exclusive("x"));
  const first = world.acquire("B", exclusive("x"));
  const chosen = world.acquire("C", exclusive("x"));
  world.gone(first);
  const hand = (ticketId: string) => world.ask({ kind: "transfer", name: "x", token: 1, ticketId });
  expect(hand("T4")).toMatchObject({ reason: "NOT_WAITING" });
  expect(hand("T5")).toMatchObject({ token: 2 });
  expect(world.tokens(chosen)).toEqual([2]);
  expect(world.events).toMatchObject([{ kind: "granted", transferredFrom: 1 }]);
});

test("what is taken away ends with its holder's word, or with the last promise made to it", () => {
  const world = worldWith("B");
  world.lease("A", 1_000);
  world.acquire("A", exclusive("x"), { lockDelayMs: 300 });
  const next = world.acquire("B", exclusive("x"));
  const force = () => world.ask({ kind: "forceRelease", name: "x", token: 0, message: "", now: false });
  expect(force()).toMatchObject({ revoking: [1], withinMs: 1_000 });
  world.pass(900);
  expect(world.ask({ kind: "renewLease", leaseId: "A", progress: false })).toMatchObject({ revoking: ["1 "] });
  expect(world.tokens(next)).toEqual([]);
  world.pass(100);
  expect(world.events).toMatchObject([{ kind: "holdEnded", end: "forced" }]);
  world.pass(300);
  expect(world.tokens(next)).toEqual([2]);
});

test("a lease without progress dies although it is renewed", () => {
  const world = worldWith();
  world.lease("A", 1_000, 600);
  world.pass(500);
  expect(world.ask({ kind: "renewLease", leaseId: "A", progress: false })).toMatchObject({ remainingMs: 100 });
  expect(world.ask({ kind: "renewLease", leaseId: "A", progress: true })).toMatchObject({ remainingMs: 600 });
  world.pass(600);
  expect(world.ask({ kind: "renewLease", leaseId: "A", progress: true })).toMatchObject({ reason: "UNKNOWN_LEASE" });
});

test("after restarts a lease has its full time once, then what certain time has left", () => {
  const world = worldWith();
  world.lease("A", 1_000);
  world.nowMs = 400;
  const numbers = { token: 0, timestamp: 0, serial: 1 };
  world.state = restart(save(world.state, 400), 0, numbers);
  world.nowMs = 700;
  expect(world.ask({ kind: "getLease", leaseId: "A" })).toMatchObject({ remainingMs: 300, extended: true });
  world.state = restart(save(world.state, 700), 5_000, numbers);
  world.nowMs = 5_000;
  expect(world.ask({ kind: "getLease", leaseId: "A" })).toMatchObject({ remainingMs: 300 });
});

test("what belongs to one principal is not for another, and each has its quota", () => {
  const world = worldWith("N");
  const p: Principal = { name: "p", quota: { leasesMax: 1, locksMax: 2, waitersMax: 1 } };
  const q: Principal = { name: "q", quota: { leasesMax: 9, locksMax: 9, waitersMax: 9 } };
  world.by = p;
  world.lease("P");
  expect(
    world.ask({ kind: "createLease", leaseId: "P2", ttlMs: 1_000, owner: "", metadata: "", progressEveryMs: 0 }),
  ).toEqual({ kind: "refused", reason: "LIMIT" });
  expect(world.tokens(world.acquire("P", [exclusive("x"), exclusive("y")]))).toEqual([1, 2]);
  expect(world.answer(world.acquire("P", exclusive("z")))).toMatchObject({ reason: "LIMIT" });
  world.by = q;
  world.lease("Q");
  const denied = { kind: "refused", reason: "DENIED" };
  expect(world.ask({ kind: "renewLease", leaseId: "P", progress: false })).toEqual(denied);
  expect(world.ask({ kind: "release", name: "x", token: 1 })).toEqual(denied);
  expect(world.answer(world.acquire("P", exclusive("z")))).toEqual(denied);
  expect(world.ask({ kind: "renewLease", leaseId: "N", progress: false })).toMatchObject({ kind: "renewed" });
  const waits = world.acquire("Q", exclusive("x"));
  world.by = p;
  world.call({ kind: "release", name: "x", token: 1 });
  expect(world.tokens(waits)).toEqual([3]);
});
