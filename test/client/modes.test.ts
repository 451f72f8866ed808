/** How a lock is held: shared, in permits, with a maximum, with a delay after it; and what refusals say. */
import { describe, expect, it } from "vitest";
import { setup, take, watch } from "./support.js";

describe("the mode of a lock", () => {
  it("goes to the server, and stays with the lock", async () => {
    const s = setup();
    const shared = await take(s, "a", { mode: "shared" });
    const alone = await take(s, "b", { mode: "exclusive" });
    s.server.answers.acquire = () => ({ acquire: { grant: { token: 7, timestamp: 9, slots: [1, 4] } } });
    const permits = await take(s, "c", { permits: { of: 5, take: 2 } });
    expect([shared.mode, alone.mode, permits.mode]).toEqual(["shared", "exclusive", "semaphore"]);
    expect([shared.grant.slots, permits.grant.slots]).toEqual([[], [1, 4]]);
    expect(s.server.connection.commands.slice(1)).toMatchObject([
      { acquire: { name: "a", mode: 2, permits: 0, permitLimit: 0 } },
      { acquire: { name: "b", mode: 1 } },
      { acquire: { name: "c", mode: 3, permits: 2, permitLimit: 5 } },
    ]);
  });

  it("of permits is one of them unless more are wanted", async () => {
    const s = setup();
    await take(s, "c", { permits: { of: 5 } });
    expect(s.server.connection.commands[1]).toMatchObject({ acquire: { permits: 1, permitLimit: 5 } });
  });

  it.each([
    { mode: "semaphore" },
    { mode: 2 },
    { mode: "shared", permits: { of: 2 } },
    { permits: { of: 0 } },
    { permits: { of: 2, take: 3 } },
    { permits: { of: 2, take: 0 } },
    { permits: { of: 1.5 } },
    { permits: {} },
    { permits: 5 },
    { permits: { of: 2, tkae: 1 } },
    { maxHold: 0 },
    { maxHold: "soon" },
    { lockDelay: -1 },
    { holding: {} },
    { holding: ["a"] },
  ])("%j is wrong", async (options) => {
    await expect(setup().client.acquire("a", options as never)).rejects.toMatchObject({ code: "INVALID" });
  });

  it("and the terms go with a try as well", async () => {
    const s = setup();
    const tried = s.client.tryAcquire("a", { mode: "shared", maxHold: "30m", lockDelay: "5s" });
    s.server.answers.acquire = () => ({
      acquire: { grant: { token: 1, timestamp: 1, maxHoldRemainingMs: 1_800_000 } },
    });
    await s.time.settle();
    expect((await tried).acquired).toBe(true);
    expect(s.server.connection.commands[1]?.acquire).toMatchObject({
      ...{ mode: 2, waitMs: 0, maxHoldMs: 1_800_000, lockDelayMs: 5_000 },
    });
    await expect(s.client.tryAcquire("a", { holding: [] } as never)).rejects.toThrow(/the options of a try have no/);
  });
});

describe("a refusal", () => {
  it("says that the lock is kept free after an expiry", async () => {
    const s = setup();
    s.server.answers.acquire = () => ({ acquire: { busy: { delayRemainingMs: 3_000, timedOut: true } } });
    const taken = watch(s.client.acquire("a", { wait: "1s" }));
    await s.time.settle();
    expect(taken.error).toMatchObject({
      message: 'waited 1 s: the lock "a" is kept free for 3 s more, since its last holder did not give it back',
      busy: { name: "a", delayRemainingMs: 3_000, holdersTotal: 0 },
    });
  });

  it("says how many hold it when not all are listed", async () => {
    const s = setup();
    const holders = [{ token: 3, owner: "x/1", mode: 2, heldMs: 1_000 }];
    s.server.answers.acquire = () => ({ acquire: { busy: { holders, holdersTotal: 12 } } });
    const taken = watch(s.client.acquire("a"));
    await s.time.settle();
    expect(taken.error).toMatchObject({
      message: 'the lock "a" is held by x/1 (for 1 s) and 11 more',
      busy: { holders: [{ mode: "shared", slots: [], revoking: false, maxHoldRemainingMs: 0 }] },
    });
  });

  it("for a deadlock names the knot", async () => {
    const s = setup();
    const knot = [
      { ticketId: "T3", owner: "host/1", contenderId: "", waitsFor: ["b"], holds: ["a"] },
      { ticketId: "T5", owner: "", contenderId: "c", waitsFor: ["a"], holds: [] },
    ];
    s.server.answers.acquire = () => ({ failure: { reason: "DEADLOCK", message: "the wait would never end", knot } });
    const taken = watch(s.client.acquire("a"));
    await s.time.settle();
    expect(taken.error).toMatchObject({
      code: "DEADLOCK",
      retryable: false,
      knot,
      message: 'this wait would never end: host/1 (T3) waits for "b" and holds "a"; somebody (T5) waits for "a"',
    });
  });
});

describe("describe", () => {
  it("tells what the server tells", async () => {
    const s = setup();
    const blockedBy = { lock: "b", ticketId: "T9", owner: "y/2", hops: 2 };
    s.server.answers.describeLock = () => ({
      describeLock: {
        name: "a",
        holders: [
          { token: 3, mode: 3, permits: 2, permitLimit: 5, slots: [0, 1], revoking: true, maxHoldRemainingMs: 7 },
        ],
        waiters: [{ ticketId: "T4", position: 1, mode: 2, locks: 3, blockedBy }],
        waitersTotal: 1,
        holdersTotal: 1,
      },
    });
    const described = watch(s.client.describe("a"));
    await s.time.settle();
    expect(described.value).toMatchObject({
      holders: [
        { mode: "semaphore", permits: 2, permitLimit: 5, slots: [0, 1], revoking: true, maxHoldRemainingMs: 7 },
      ],
      waiters: [
        { ticketId: "T4", mode: "shared", locks: 3, blockedBy: { lock: "b", token: null, ticketId: "T9", hops: 2 } },
      ],
      holdersTotal: 1,
      delayRemainingMs: 0,
    });
  });
});
