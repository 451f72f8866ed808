// What requests become, field by field, and what each bad field gets. All of them pass through the codec.
import { decode, encode, type leasehold, v1 } from "@leasehold/client/wire";
import { describe, expect, it } from "vitest";
import { type RpcLimits, rpcLimitDefaults } from "../../src/server/rpc/limits.js";
import { RequestValidator } from "../../src/server/rpc/validate.js";
import { coreLimits } from "./support.js";

let ids = 0;
const check = new RequestValidator(coreLimits, rpcLimitDefaults as RpcLimits, {
  freshId: () => `id${++ids}`,
  wallMs: () => 1_234,
});

const one = (m: leasehold.v1.AcquireRequest.$Properties, remainingMs = Number.POSITIVE_INFINITY) =>
  check.acquire.oneOfCall(decode(v1.AcquireRequest, encode(v1.AcquireRequest, { name: "n", ...m })), remainingMs);
const all = (m: leasehold.v1.AcquireAllRequest.$Properties) =>
  check.acquire.allOfCall(decode(v1.AcquireAllRequest, encode(v1.AcquireAllRequest, m)), Number.POSITIVE_INFINITY);
const command = (m: leasehold.v1.Command.$Properties) => {
  const frame = decode(v1.AttachRequest, encode(v1.AttachRequest, { commands: [{ seq: 1, ...m }] }));
  return check.command(frame.commands[0] as leasehold.v1.Command);
};
const invalid = (words: RegExp | string) => ({
  kind: "refused",
  reason: "INVALID",
  message: typeof words === "string" ? words : expect.stringMatching(words),
});

const { LOCK_MODE_EXCLUSIVE, LOCK_MODE_SHARED, LOCK_MODE_SEMAPHORE } = v1.LockMode;
const exclusive = { name: "n", mode: "exclusive", permits: 0, permitLimit: 0 };

describe("an Acquire", () => {
  it("carries every field", () => {
    const request = one({
      mode: LOCK_MODE_SEMAPHORE,
      permits: 2,
      permitLimit: 5,
      leaseId: "L",
      waitMs: 7,
      requestId: "r",
      owner: "o",
      metadata: Buffer.from("hi"),
      lockDelayMs: 8,
      maxHoldMs: 9,
      contenderId: "c",
      heldTokens: [3, 2 ** 53 - 1, 3],
    });
    expect(request).toEqual({
      kind: "acquire",
      items: [{ name: "n", mode: "semaphore", permits: 2, permitLimit: 5 }],
      all: false,
      holder: { kind: "lease", leaseId: "L" },
      waitMs: 7,
      pollMs: 5_000,
      requestId: "r",
      owner: "o",
      metadata: "aGk=",
      wallMs: 1_234,
      lockDelayMs: 8,
      maxHoldMs: 9,
      contenderId: "c",
      heldTokens: [3, 2 ** 53 - 1, 3],
    });
  });

  it("is exclusive, tries once and asks for nothing special unless it says so", () => {
    expect(one({})).toMatchObject({
      items: [exclusive],
      waitMs: 0,
      lockDelayMs: 0,
      maxHoldMs: 0,
      contenderId: "",
      heldTokens: [],
      holder: { kind: "own", ttlMs: 15_000 },
    });
    expect(one({ mode: LOCK_MODE_EXCLUSIVE })).toMatchObject({ items: [exclusive] });
    expect(one({ mode: LOCK_MODE_SHARED })).toMatchObject({ items: [{ ...exclusive, mode: "shared" }] });
  });

  it("of a semaphore takes one permit unless it says how many", () => {
    const item = { name: "n", mode: "semaphore" };
    const of = (permits: number, permitLimit: number) => one({ mode: LOCK_MODE_SEMAPHORE, permits, permitLimit });
    expect(of(0, 1)).toMatchObject({ items: [{ ...item, permits: 1, permitLimit: 1 }] });
    expect(of(10_000, 10_000)).toMatchObject({ items: [{ ...item, permits: 10_000, permitLimit: 10_000 }] });
    expect(of(1, 0)).toEqual(invalid("permit_limit must be 1 to 10000; given: 0"));
    expect(of(1, 10_001)).toEqual(invalid("permit_limit must be 1 to 10000; given: 10001"));
    expect(of(4, 3)).toEqual(invalid("permits must be 1 to 3; given: 4"));
  });

  it.each([
    [{ permits: 1 }, /^permits and permit_limit must be 0 unless .*; given: 1 and 0$/],
    [{ permitLimit: 5 }, /; given: 0 and 5$/],
    [{ mode: LOCK_MODE_SHARED, permits: 1, permitLimit: 1 }, /; given: 1 and 1$/],
    [{ mode: 4 as never }, /^mode must be LOCK_MODE_EXCLUSIVE \(1\), .*; given: 4$/],
    [{ mode: -1 as never }, /given: -1$/],
    [{ lockDelayMs: 3_600_001 }, /^lock_delay_ms must be 0 to 3600000; given: 3600001$/],
    [{ maxHoldMs: 86_400_001 }, /^max_hold_ms must be 0 to 86400000; given: 86400001$/],
    [{ contenderId: "c".repeat(129) }, /^contender_id has 129 bytes/],
    [{ contenderId: "a\u0000" }, /^contender_id contains the control character U\+0000 at index 1/],
    [{ heldTokens: [1, 0] }, /^an entry of held_tokens must be at least 1; given: 0$/],
    [{ heldTokens: new Array(65).fill(1) }, /^the number of held_tokens must be 0 to 64; given: 65$/],
    [{ owner: "o".repeat(257) }, /^owner has 257 bytes/],
    [{ metadata: Buffer.alloc(4_097) }, /^metadata has 4097 bytes/],
    [{ waitMs: 3_600_001, requestId: "r" }, /^wait_ms must be 0 to 3600000/],
    [{ waitMs: 1 }, /^request_id must be set/],
    [{ sessionLease: 1 }, /^session_lease can only be used on a session/],
    [{ leaseId: "" }, /^lease_id must not be empty/],
    [{ ttlMs: 0 }, /^ttl_ms must be 500 to 86400000; given: 0$/],
  ] satisfies [leasehold.v1.AcquireRequest.$Properties, RegExp][])("with %j is INVALID", (fields, words) => {
    expect(one(fields)).toEqual(invalid(words));
  });

  it.each([
    { lockDelayMs: 3_600_000 },
    { maxHoldMs: 86_400_000 },
    { contenderId: "c".repeat(128) },
    { heldTokens: new Array(64).fill(1) },
  ])("may go to the limit", (fields) => {
    expect(one(fields)).toMatchObject({ kind: "acquire", ...fields });
  });
});

describe("an AcquireAll", () => {
  const names = (count: number) => Array.from({ length: count }, (_, i) => ({ name: `n${i}` }));

  it("carries every field, and its locks in their order", () => {
    const request = all({
      locks: [
        { name: "b" },
        { name: "a", mode: LOCK_MODE_SHARED },
        { name: "c", mode: LOCK_MODE_SEMAPHORE, permits: 3, permitLimit: 4 },
      ],
      ttlMs: 9_000,
      waitMs: 7,
      requestId: "r",
      owner: "o",
      metadata: Buffer.from("hi"),
      lockDelayMs: 8,
      maxHoldMs: 9,
      contenderId: "c",
      heldTokens: [3],
    });
    expect(request).toEqual({
      kind: "acquire",
      items: [
        { ...exclusive, name: "b" },
        { ...exclusive, name: "a", mode: "shared" },
        { name: "c", mode: "semaphore", permits: 3, permitLimit: 4 },
      ],
      all: true,
      holder: { kind: "own", leaseId: expect.stringMatching(/^id\d+$/), ttlMs: 9_000 },
      waitMs: 7,
      pollMs: 3_000,
      requestId: "r",
      owner: "o",
      metadata: "aGk=",
      wallMs: 1_234,
      lockDelayMs: 8,
      maxHoldMs: 9,
      contenderId: "c",
      heldTokens: [3],
    });
  });

  it("may have one lock, and 64", () => {
    expect(all({ locks: names(1) })).toMatchObject({ all: true, items: [{ name: "n0" }] });
    expect(all({ locks: names(64) })).toMatchObject({ kind: "acquire" });
  });

  const semaphore = (name: string, permits: number) => ({
    name,
    mode: LOCK_MODE_SEMAPHORE,
    permits,
    permitLimit: 10_000,
  });
  it.each([
    [{ locks: [] }, /^the number of locks must be 1 to 64; given: 0$/],
    [{ locks: names(65) }, /given: 65$/],
    [{ locks: [...names(3), { name: "n1" }] }, /^locks\[3\]\.name is there twice; names must differ$/],
    [{ locks: [{ name: "a" }, { name: "" }] }, /^locks\[1\]\.name must not be empty$/],
    [{ locks: [{ name: "a", mode: 9 as never }] }, /^locks\[0\]\.mode must be .*; given: 9$/],
    [{ locks: [{ name: "a", permits: 1 }] }, /^locks\[0\]\.permits and permit_limit must be 0/],
    [{ locks: [semaphore("a", 10_001)] }, /^locks\[0\]\.permits must be 1 to 10000/],
    [
      { locks: [semaphore("a", 6_000), semaphore("b", 4_001)] },
      /^the permits of all locks together must be 0 to 10000/,
    ],
    [{ locks: names(1), waitMs: 1 }, /^request_id must be set/],
    [{ locks: names(1), requestId: "r".repeat(129) }, /^request_id has 129 bytes/],
    [{ locks: names(1), sessionLease: 1 }, /^session_lease can only/],
    [{ locks: names(1), maxHoldMs: 86_400_001 }, /^max_hold_ms must be/],
    [{ locks: names(1), ttlMs: 499 }, /^ttl_ms must be/],
  ] satisfies [leasehold.v1.AcquireAllRequest.$Properties, RegExp][])("%# is INVALID", (fields, words) => {
    expect(all(fields)).toEqual(invalid(words));
  });
});

describe("on a session", () => {
  it("acquires need no request id and do not poll", () => {
    const fields = { sessionLease: 4, waitMs: 9, requestId: "ignored" };
    const expected = { holder: { kind: "session", seq: 4 }, waitMs: 9, pollMs: 0, requestId: "" };
    expect(command({ acquire: { name: "n", ...fields } })).toMatchObject({ ...expected, all: false });
    expect(command({ acquireAll: { locks: [{ name: "n" }], ...fields } })).toMatchObject({ ...expected, all: true });
    expect(command({ acquireAll: {} })).toEqual(invalid(/^the number of locks/));
    expect(command({ acquireAll: { locks: [{ name: "n" }], sessionLease: 0 } })).toEqual(
      invalid(/^session_lease must/),
    );
  });

  it("a holder may do everything that it may do by a call", () => {
    const hold = { name: "n", token: 5 };
    expect(command({ transfer: { ...hold, ticketId: "T12" } })).toEqual({ kind: "transfer", ...hold, ticketId: "T12" });
    expect(command({ downgrade: hold })).toEqual({ kind: "downgrade", ...hold });
    const metadata = Buffer.from("hi");
    expect(command({ setMetadata: { ...hold, metadata } })).toEqual({ kind: "setMetadata", ...hold, metadata: "aGk=" });
    expect(command({ setMetadata: hold })).toEqual({ kind: "setMetadata", ...hold, metadata: "" });
  });
});

describe("the token and the name of a hold", () => {
  it.each(["release", "transfer", "downgrade", "setMetadata", "validate"] as const)("are checked by %s", (kind) => {
    expect(command({ [kind]: { name: "", token: 1 } })).toEqual(invalid("name must not be empty"));
    expect(command({ [kind]: { name: "n", token: 0 } })).toEqual(invalid("token must be at least 1; given: 0"));
  });

  it("metadata has its limit", () => {
    const setMetadata = { name: "n", token: 1, metadata: Buffer.alloc(4_097) };
    expect(command({ setMetadata })).toEqual(invalid(/^metadata has 4097 bytes/));
  });
});

describe("a ticket id", () => {
  const transfer = (ticketId: string) => command({ transfer: { name: "n", token: 1, ticketId } });

  it.each(["T1", "T10", "T9007199254740991"])("is %s", (ticketId) => {
    expect(transfer(ticketId)).toMatchObject({ kind: "transfer", ticketId });
  });

  it.each(["", "T", "T0", "T01", "t1", "1", "T-1", "T1.5", "T1 ", " T1", "T1\n", "T9007199254740992", "T1e3", "T٣"])(
    "is not %j",
    (ticketId) => {
      expect(transfer(ticketId)).toEqual(invalid(/^ticket_id must be a T and a number/));
    },
  );

  it("is cut in the message", () => {
    expect((transfer("x".repeat(10_000)) as { message: string }).message.length).toBeLessThan(150);
  });
});

describe("leases", () => {
  const create = (m: leasehold.v1.CreateLeaseRequest.$Properties) => command({ createLease: m });

  it("may ask for progress", () => {
    expect(create({})).toMatchObject({ progressEveryMs: 0 });
    expect(create({ progressEveryMs: 500 })).toMatchObject({ progressEveryMs: 500, ttlMs: 15_000 });
    expect(create({ progressEveryMs: 86_400_000 })).toMatchObject({ progressEveryMs: 86_400_000 });
    expect(create({ progressEveryMs: 499 })).toEqual(
      invalid(/^progress_every_ms must be 500 to 86400000; given: 499$/),
    );
    expect(create({ progressEveryMs: 86_400_001 })).toEqual(invalid(/^progress_every_ms/));
  });

  it("are renewed with or without progress", () => {
    const renew = (m: leasehold.v1.RenewLeaseRequest.$Properties) =>
      check.renewLease(decode(v1.RenewLeaseRequest, encode(v1.RenewLeaseRequest, m)));
    expect(renew({ leaseId: "L" })).toEqual({ kind: "renewLease", leaseId: "L", progress: false });
    expect(renew({ leaseId: "L", progress: true })).toEqual({ kind: "renewLease", leaseId: "L", progress: true });
  });
});

describe("administrators", () => {
  const force = (m: leasehold.v1.ForceReleaseRequest.$Properties) =>
    check.forceRelease(decode(v1.ForceReleaseRequest, encode(v1.ForceReleaseRequest, m)));
  const top = (limit: number) => check.topLocks(decode(v1.TopLocksRequest, encode(v1.TopLocksRequest, { limit })));

  it("may take a lock away, from one holder or from all", () => {
    const request = { kind: "forceRelease", name: "n", token: 0, message: "", now: false };
    expect(force({ name: "n" })).toEqual(request);
    const more = { name: "n", token: 4, reason: "it hangs; ümlaut", now: true };
    expect(force(more)).toEqual({ ...request, token: 4, message: "it hangs; ümlaut", now: true });
    expect(force({ name: "n", reason: "r".repeat(256) })).toMatchObject({ kind: "forceRelease" });
  });

  it.each([
    [{ name: "" }, /^name must not be empty/],
    [{ name: "n", reason: "r".repeat(257) }, /^reason has 257 bytes/],
    [{ name: "n", reason: "a\u001b[31m" }, /^reason contains the control character U\+001B at index 1/],
  ])("%j is INVALID", (fields, words) => {
    expect(force(fields)).toEqual(invalid(words));
  });

  it("may ask for the top of the locks", () => {
    expect(top(0)).toEqual({ kind: "topLocks", limit: 10, wallMs: 1_234 });
    expect(top(100)).toMatchObject({ limit: 100 });
    expect(top(101)).toEqual(invalid("limit must be 1 to 100; given: 101"));
  });
});
