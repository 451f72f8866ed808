// Every field of the outcomes, through the codec and back; and how lists are cut.
import { decode, encode, type MessageType, v1 } from "@leasehold/client/wire";
import { describe, expect, it } from "vitest";
import type { HolderView, KnotWait, LockView, Outcome, WaiterView } from "../../src/server/core/types.js";
import { readPageToken } from "../../src/server/rpc/check.js";
import { acquireAllBody, acquireBody, forcedBody, renewedBody, sessionResult } from "../../src/server/rpc/encode.js";
import { leaseBody, leasesBody, lockBody, locksBody, topBody } from "../../src/server/rpc/encode-views.js";
import { failureOf, grpcStatus, statusDetails } from "../../src/server/rpc/errors.js";
import { grant, holder, lease, lock, waiter } from "./support.js";

const LARGE = 1 << 20;
const { LOCK_MODE_EXCLUSIVE, LOCK_MODE_SHARED, LOCK_MODE_SEMAPHORE } = v1.LockMode;
const { END_REASON_FORCED } = v1.EndReason;

/** The message as it arrives. */
const received = <In, Out>(type: MessageType<In, Out>, message: In): Out => decode(type, encode(type, message));

const text = (bytes: Uint8Array | null | undefined) => Buffer.from(bytes ?? []).toString();
const result = (outcome: Outcome) => received(v1.Result, sessionResult(3, outcome, LARGE));

const wireHolder = {
  token: 41,
  timestamp: 9,
  owner: "o",
  heldMs: 11,
  leaseRemainingMs: 12,
  leaseDisplayId: "D",
  mode: LOCK_MODE_SEMAPHORE,
  permits: 2,
  permitLimit: 5,
  slots: [0, 3],
  maxHoldRemainingMs: 13,
  revoking: true,
  contenderId: "c",
};
const wireWaiter = {
  ticketId: "T7",
  position: 2,
  owner: "w",
  waitedMs: 14,
  attached: true,
  mode: LOCK_MODE_SHARED,
  permits: 0,
  permitLimit: 0,
  locks: 3,
  contenderId: "c2",
  blockedBy: { lock: "m", token: 40, ticketId: "", owner: "b", hops: 2 },
};
const wireGrant = {
  token: 41,
  timestamp: 9,
  leaseId: "SECRET",
  leaseTtlMs: 1_000,
  leaseRemainingMs: 999,
  name: "",
  slots: [],
  maxHoldRemainingMs: 0,
};

const busy: Extract<Outcome, { kind: "busy" }> = {
  kind: "busy",
  name: "second",
  all: false,
  holders: [holder],
  holdersTotal: 12,
  waiters: 4,
  reserved: true,
  delayRemainingMs: 15,
  timedOut: true,
};
const wireBusy = {
  holders: [wireHolder],
  holdersTotal: 12,
  waiters: 4,
  reserved: true,
  delayRemainingMs: 15,
  timedOut: true,
};
const waiting: Extract<Outcome, { kind: "waiting" }> = {
  kind: "waiting",
  all: false,
  ticketId: "T9",
  position: 3,
  pollWithinMs: 5_000,
};
const wireWaiting = { ticketId: "T9", position: 3, pollWithinMs: 5_000 };

describe("the answer to Acquire", () => {
  const answer = (outcome: Parameters<typeof acquireBody>[0], onSession = false) =>
    received(v1.AcquireResponse, acquireBody(outcome, onSession, LARGE));

  it("is a grant", () => {
    expect(answer(grant).grant).toMatchObject(wireGrant);
    expect(answer(grant, true).grant).toMatchObject({ ...wireGrant, leaseId: "" });
  });

  it("names the slots of a semaphore and the maximum hold", () => {
    const grants = [{ name: "n", token: 41, slots: [0, 200, 9_999] }];
    const outcome = { ...grant, grants, maxHoldRemainingMs: 77 };
    expect(answer(outcome).grant).toMatchObject({ ...wireGrant, slots: [0, 200, 9_999], maxHoldRemainingMs: 77 });
  });

  it("is busy, and says why", () => {
    const body = answer(busy);
    expect(body.busy).toMatchObject({ ...wireBusy, name: "" });
    expect(text(body.busy?.holders?.[0]?.metadata)).toBe("hi");
  });

  it("is waiting", () => {
    expect(answer(waiting).waiting).toMatchObject(wireWaiting);
  });

  it("cannot be a grant of nothing", () => {
    expect(() => acquireBody({ ...grant, grants: [] }, false, LARGE)).toThrow(/grant of nothing/);
  });
});

describe("the answer to AcquireAll", () => {
  const answer = (outcome: Parameters<typeof acquireAllBody>[0], onSession = false) =>
    received(v1.AcquireAllResponse, acquireAllBody(outcome, onSession, LARGE));
  const grants = [
    { name: "b", token: 41, slots: [] },
    { name: "a", token: 42, slots: [1] },
  ];

  it("is one grant for each lock, in the order of the request, with one timestamp", () => {
    expect(answer({ ...grant, all: true, grants }).grants?.grants).toMatchObject([
      { ...wireGrant, name: "b" },
      { ...wireGrant, name: "a", token: 42, slots: [1] },
    ]);
    const onSession = answer({ ...grant, all: true, grants }, true);
    expect(onSession.grants?.grants?.map(({ leaseId }) => leaseId)).toEqual(["", ""]);
  });

  it("is busy about the first lock that is not free", () => {
    expect(answer({ ...busy, all: true }).busy).toMatchObject({ ...wireBusy, name: "second" });
  });

  it("is waiting", () => {
    expect(answer({ ...waiting, all: true }).waiting).toMatchObject(wireWaiting);
  });
});

describe("on a session", () => {
  it("an Acquire and an AcquireAll are told apart", () => {
    expect(result(grant)).toMatchObject({ seq: 3, acquire: { grant: { ...wireGrant, leaseId: "" } } });
    expect(result({ ...grant, all: true })).toMatchObject({ acquireAll: { grants: { grants: [{ name: "n" }] } } });
    expect(result(busy)).toMatchObject({ acquire: { busy: { ...wireBusy, name: "" } } });
    expect(result({ ...busy, all: true })).toMatchObject({ acquireAll: { busy: { ...wireBusy, name: "second" } } });
    expect(result(waiting)).toMatchObject({ acquire: { waiting: wireWaiting } });
    expect(result({ ...waiting, all: true })).toMatchObject({ acquireAll: { waiting: wireWaiting } });
  });

  it("what a holder does has its answer", () => {
    expect(result({ kind: "transferred", token: 50 }).transfer).toMatchObject({ token: 50 });
    expect(result({ kind: "downgraded" }).downgrade).not.toBeNull();
    expect(result({ kind: "metadataSet" }).setMetadata).not.toBeNull();
    expect(result({ kind: "released" }).downgrade).toBeNull();
  });

  it.each([
    { kind: "forced", ended: [], revoking: [], withinMs: 0 },
    { kind: "top", holds: [], waits: [] },
    { kind: "renewed", displayId: "D", owner: "o", ttlMs: 1, remainingMs: 1, revoking: [] },
  ] satisfies Outcome[])("$kind is no answer", (outcome) => {
    expect(() => sessionResult(1, outcome, LARGE)).toThrow(outcome.kind);
  });
});

describe("a lease", () => {
  it("tells its progress interval and what a restart added", () => {
    const view = { ...lease, metadata: "aGk=", holds: 2, waits: 3, restartExtensionMs: 4, progressEveryMs: 5 };
    const { metadata, displayId, ...shown } = view;
    const wire = received(v1.GetLeaseResponse, leaseBody({ kind: "lease", lease: view })).lease;
    expect(wire).toMatchObject(shown);
    expect(text(wire?.metadata)).toBe("hi");
    expect(displayId).toBe("D");
  });

  it("is renewed together with the news of what is being taken away", () => {
    const revoking = [
      { token: 5, message: "hangs" },
      { token: 6, message: "" },
    ];
    const body = renewedBody(
      { kind: "renewed", displayId: "D", owner: "o", ttlMs: 10, remainingMs: 9, revoking },
      3,
      LARGE,
    );
    expect(received(v1.RenewLeaseResponse, body)).toMatchObject({
      ttlMs: 10,
      remainingMs: 9,
      renewAfterMs: 3,
      holdEnds: [
        { token: 5, reason: END_REASON_FORCED, confirm: true, message: "hangs" },
        { token: 6, reason: END_REASON_FORCED, confirm: true, message: "" },
      ],
    });
    const cut = renewedBody(
      { kind: "renewed", displayId: "D", owner: "o", ttlMs: 10, remainingMs: 9, revoking },
      3,
      50,
    );
    expect(cut.holdEnds?.map(({ token }) => token)).toEqual([5]);
  });
});

describe("for administrators", () => {
  it("a forced release says what has ended and what will", () => {
    const body = forcedBody({ kind: "forced", ended: [1, 2], revoking: [3], withinMs: 900 });
    expect(received(v1.ForceReleaseResponse, body)).toMatchObject({ ended: [1, 2], revoking: [3], withinMs: 900 });
  });

  it("the top of the locks has three lists, each cut to its share", () => {
    const top: Extract<Outcome, { kind: "top" }> = {
      kind: "top",
      holds: [1, 2, 3].map((i) => ({ name: `h${i}`, holder })),
      waits: [1, 2, 3].map((i) => ({ name: `w${i}`, waiter })),
    };
    const hot = [1, 2, 3].map((i) => ({ name: `x${i}`, grantsPerSecond: 10 - i / 2 }));
    const body = received(v1.TopLocksResponse, topBody(top, hot, LARGE));
    expect(body.hottest).toMatchObject(hot);
    expect(body.longestHolds).toMatchObject([1, 2, 3].map((i) => ({ name: `h${i}`, holder: wireHolder })));
    expect(body.longestWaits).toMatchObject([1, 2, 3].map((i) => ({ name: `w${i}`, waiter: wireWaiter })));
    const cut = topBody(top, hot, 750);
    expect([cut.hottest, cut.longestHolds, cut.longestWaits].map((list) => list?.length)).toEqual([2, 1, 1]);
  });
});

describe("a deadlock", () => {
  const knot: KnotWait[] = [
    { ticketId: "T1", owner: "a", contenderId: "c", waitsFor: ["y", "z"], holds: ["x"] },
    { ticketId: "T2", owner: "b", contenderId: "", waitsFor: ["x"], holds: ["y"] },
  ];
  const refusal = { kind: "refused", reason: "DEADLOCK", message: "so" } as const;

  it("names its knot on a session", () => {
    const { failure } = result({ ...refusal, knot });
    expect(failure).toMatchObject({ reason: "DEADLOCK", message: "so", retryAfterMs: 0, knot });
    const cut = sessionResult(1, { ...refusal, knot }, 200);
    expect(cut.failure?.knot?.map(({ ticketId }) => ticketId)).toEqual(["T1"]);
    expect(result(refusal).failure?.knot).toEqual([]);
  });

  it("names its knot in the details of a status", () => {
    const { metadata } = statusDetails(failureOf({ ...refusal, knot }));
    expect(JSON.parse(metadata?.knot ?? "")).toEqual(knot);
    expect(metadata?.knot_waits).toBe("2");
    expect(statusDetails(failureOf(refusal)).metadata).toBeUndefined();
  });

  it.each([
    ["many names", 2, 64, 2, 1],
    ["long names", 3, 2, 1, 1],
    ["many waits", 1_000, 1, 1, 1],
  ])("keeps its trailers small with %s", (what, waits, names, _shown, namesShown) => {
    const name = what === "long names" ? "€".repeat(170) : "orders/42";
    const wait = (i: number): KnotWait => {
      const list = Array.from({ length: names }, (_, j) => `${name}${j}`);
      return { ticketId: `T${i}`, owner: "o", contenderId: "c", waitsFor: list, holds: list };
    };
    const large = Array.from({ length: waits }, (_, i) => wait(i));
    const failure = failureOf({ ...refusal, knot: large });
    const told = JSON.parse(statusDetails(failure).metadata?.knot ?? "") as KnotWait[];
    expect(told.length).toBeGreaterThan(0);
    expect(told.map(({ ticketId }) => ticketId)).toEqual(told.map((_, i) => `T${i}`));
    expect(told[0]?.waitsFor.length).toBe(namesShown);
    expect(statusDetails(failure).metadata?.knot_waits).toBe(String(waits));
    const [trailer] = grpcStatus(failure).metadata.get("grpc-status-details-bin");
    expect((trailer as Buffer).length).toBeLessThan(3_000);
  });

  it("leaves out what cannot be told at all", () => {
    const endless = { ...(knot[0] as KnotWait), owner: "o".repeat(10_000) };
    expect(statusDetails(failureOf({ ...refusal, knot: [endless] })).metadata).toEqual({ knot: "[]", knot_waits: "1" });
  });
});

describe("a lock", () => {
  const view: LockView = {
    name: "n",
    holders: [holder, { ...holder, mode: "exclusive", slots: [] }],
    holdersTotal: 7,
    waiters: [waiter, { ...waiter, mode: "semaphore", permits: 1, permitLimit: 2, blockedBy: null }],
    waitersTotal: 9,
    reserved: true,
    delayRemainingMs: 16,
  };

  it("is described with holders, waiters and who blocks them", () => {
    const body = received(v1.DescribeLockResponse, lockBody({ kind: "lock", lock: view }, LARGE));
    expect(body).toMatchObject({
      name: "n",
      holders: [wireHolder, { ...wireHolder, mode: LOCK_MODE_EXCLUSIVE, slots: [] }],
      holdersTotal: 7,
      waiters: [wireWaiter, { ...wireWaiter, mode: LOCK_MODE_SEMAPHORE, permits: 1, permitLimit: 2, blockedBy: null }],
      waitersTotal: 9,
      reserved: true,
      delayRemainingMs: 16,
    });
    expect(text(body.holders[0]?.metadata)).toBe("hi");
    expect(text(body.waiters[0]?.metadata)).toBe("hi");
  });

  it("is listed", () => {
    const body = locksBody({ kind: "locks", locks: [view], next: "", timestamp: 1 }, LARGE);
    expect(received(v1.ListLocksResponse, body).locks).toMatchObject([
      {
        name: "n",
        holders: [{ token: 41 }, { token: 41 }],
        holdersTotal: 7,
        waiters: 9,
        reserved: true,
        delayRemainingMs: 16,
      },
    ]);
  });
});

describe("long lists", () => {
  const many: HolderView = { ...holder, metadata: "m".repeat(300), slots: [] };
  const locks = (count: number, holders: readonly HolderView[] = [many]): LockView[] =>
    Array.from({ length: count }, (_, i) => ({ ...lock(`n${i}`), holders, holdersTotal: holders.length }));
  const list = (views: LockView[], next: string, bytesMax: number) =>
    locksBody({ kind: "locks", locks: views, next, timestamp: 1 }, bytesMax);

  it("of locks are cut, and the token continues after the last one shown", () => {
    const body = list(locks(5), "n4", 1_100);
    expect(body.locks?.map(({ name }) => name)).toEqual(["n0", "n1"]);
    expect(readPageToken(body.nextPageToken ?? "", 512)).toBe("n1");
  });

  it("of locks keep the token of the core when all fit", () => {
    expect(readPageToken(list(locks(1), "n0", 10_000).nextPageToken ?? "", 512)).toBe("n0");
    expect(list(locks(1), "", 10_000).nextPageToken).toBe("");
  });

  it("show one entry at least", () => {
    const body = list(locks(2), "", 1);
    expect(body.locks?.length).toBe(1);
    expect(readPageToken(body.nextPageToken ?? "", 512)).toBe("n0");
  });

  it("of holders are cut, and the total stays", () => {
    const holders = Array.from({ length: 10 }, () => many);
    const [listed] = list(locks(1, holders), "", 1_000).locks ?? [];
    expect([listed?.holders?.length, listed?.holdersTotal]).toEqual([2, 10]);
    const tried = acquireBody({ ...busy, holders, holdersTotal: 10 }, true, 1_000).busy;
    expect([tried?.holders?.length, tried?.holdersTotal]).toEqual([2, 10]);
    const [view] = locks(1, holders) as [LockView];
    const described = lockBody({ kind: "lock", lock: view }, 2_000);
    expect([described.holders?.length, described.holdersTotal]).toEqual([2, 10]);
  });

  it("of waiters get the room that the holders leave, and the total stays", () => {
    const waiters: WaiterView[] = [1, 2, 3].map((position) => ({ ...waiter, position, ticketId: `T${position}` }));
    const [view] = locks(1) as [LockView];
    const body = lockBody({ kind: "lock", lock: { ...view, waiters, waitersTotal: 3 } }, 750);
    expect(body.waiters?.map(({ ticketId }) => ticketId)).toEqual(["T1", "T2"]);
    expect(body.waitersTotal).toBe(3);
    const crowded = lockBody({ kind: "lock", lock: { ...view, waiters, waitersTotal: 3 } }, 10);
    expect([crowded.holders?.length, crowded.waiters?.length]).toEqual([1, 1]);
  });

  it("stay below what they are cut to, encoded", () => {
    const holders = Array.from({ length: 10 }, (_, i) => ({
      ...many,
      token: Number.MAX_SAFE_INTEGER - i,
      timestamp: Number.MAX_SAFE_INTEGER,
      heldMs: Number.MAX_SAFE_INTEGER,
      leaseRemainingMs: Number.MAX_SAFE_INTEGER,
      maxHoldRemainingMs: Number.MAX_SAFE_INTEGER,
      owner: "€".repeat(50),
      contenderId: "€".repeat(40),
      metadata: "",
      permits: 1_000_000,
      permitLimit: 1_000_000,
      slots: Array.from({ length: 20 }, (_, slot) => 999_000 + slot),
    }));
    const body = list(locks(100, holders), "", 20_000);
    expect(encode(v1.ListLocksResponse, body).length).toBeLessThanOrEqual(20_000);
    expect(body.locks?.length).toBeGreaterThan(1);
  });

  it("of leases show no lease id", () => {
    const body = leasesBody({ kind: "leases", leases: [lease, lease], next: "" }, 150);
    expect(body.leases?.length).toBe(1);
    expect(JSON.stringify(body)).not.toContain(`"${lease.leaseId}"`);
    expect(readPageToken(body.nextPageToken ?? "", 512)).toBe("D");
  });
});
