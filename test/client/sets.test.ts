/** Several locks taken together. */
import { describe, expect, it } from "vitest";
import type { HeldSet } from "../../src/client/lock-set.js";
import { type Setup, setup, thrown, watch } from "./support.js";

async function takeAll(s: Setup, names: Parameters<Setup["client"]["acquireAll"]>[0], options?: object) {
  const taken = s.client.acquireAll(names, options);
  await s.time.settle();
  return taken;
}

const released = (s: Setup) =>
  s.server.connections.flatMap((c) => c.commands).flatMap(({ release }) => (release ? [release.name] : []));

describe("acquireAll", () => {
  it("asks for all in one command and gives one lock for each, in their order", async () => {
    const s = setup();
    await takeAll(s, ["b", { name: "a", mode: "shared" }, { name: "c", permits: { of: 3 } }], {
      wait: "5s",
      lockDelay: "2s",
    });
    expect(s.server.connection.commands).toMatchObject([
      { seq: 1, createLease: {} },
      {
        seq: 2,
        acquireAll: {
          locks: [
            { name: "b", mode: 1 },
            { name: "a", mode: 2 },
            { name: "c", mode: 3, permits: 1, permitLimit: 3 },
          ],
          sessionLease: 1,
          waitMs: 5_000,
          lockDelayMs: 2_000,
        },
      },
    ]);
  });

  it("gives a set of locks that are held", async () => {
    const s = setup();
    const set = await takeAll(s, ["b", { name: "a", mode: "shared" }]);
    expect(set.names).toEqual(["b", "a"]);
    expect(set.locks.map((lock) => [lock.name, lock.token, lock.mode])).toEqual([
      ["b", 1, "exclusive"],
      ["a", 2, "shared"],
    ]);
    expect(set.get("a").token).toBe(2);
    expect(thrown(() => set.get("x")).code).toBe("INVALID");
    expect(set.state).toEqual({ is: "held", remainingMs: 14_850 });
    set.assertHeld({ forMs: "14s" });
    expect(thrown(() => set.assertHeld({ forMs: "15s" })).code).toBe("LOST");
  });

  it("refuses bad lists before it asks", async () => {
    const s = setup();
    const many = Array.from({ length: 65 }, (_, i) => `${i}`);
    for (const names of [[], many, ["a", "a"], ["a", { name: "a" }], [""], [5], [{ nmae: "a" }], "abc", null]) {
      await expect(s.client.acquireAll(names as never)).rejects.toMatchObject({ code: "INVALID" });
    }
    await expect(s.client.acquireAll(["a"], { mode: "shared" } as never)).rejects.toMatchObject({ code: "INVALID" });
    expect(s.server.connections).toHaveLength(0);
  });

  it("is busy by the first that is not free", async () => {
    const s = setup();
    s.server.answers.acquireAll = () => ({ acquireAll: { busy: { name: "b", reserved: true } } });
    const taken = watch(s.client.acquireAll(["a", "b"]));
    await s.time.settle();
    expect(taken.error).toMatchObject({ code: "BUSY", busy: { name: "b" } });
    expect(taken.error).toMatchObject({ message: expect.stringMatching(/^the lock "b" is kept for a waiter/) });
  });

  it("names all of them when it cannot take them, and says who is ahead", async () => {
    const s = setup();
    s.server.answers.acquireAll = () => null;
    s.server.answers.describeLock = ({ describeLock }) => ({
      describeLock: { name: describeLock?.name ?? "", waitersTotal: describeLock?.name === "b" ? 3 : 1 },
    });
    const queues: unknown[] = [];
    const taken = watch(s.client.acquireAll(["a", "b", "c"], { wait: "1s", onQueued: (queue) => queues.push(queue) }));
    await s.time.advance(6_000);
    expect(queues).toMatchObject([{ name: "b", waiters: 3 }]);
    expect(taken.error).toMatchObject({
      code: "UNREACHABLE",
      message: 'the server did not answer for the locks "a" and 2 more within its wait',
    });
    const withdrawn = s.server.connection.commands.flatMap(({ cancelAcquire }) => cancelAcquire?.sessionAcquire ?? []);
    expect(withdrawn).toEqual([2]);
  });

  it("does not take part of a set for one", async () => {
    const s = setup();
    s.server.answers.acquireAll = () => ({ acquireAll: { grants: { grants: [{ token: 1 }] } } });
    const taken = watch(s.client.acquireAll(["a", "b"]));
    await s.time.settle();
    expect(taken.error).toMatchObject({ code: "INTERNAL" });
  });

  it("whose grants have ended in part before they were delivered is withdrawn and tried again", async () => {
    const s = setup();
    s.server.answers.acquireAll = () => ({ failure: { reason: "STALE_TOKEN", message: "one has ended" } });
    const taken = watch(s.client.acquireAll(["a", "b"], { ttl: "5s" }));
    await s.time.settle();
    expect(taken.error).toMatchObject({ code: "LOST" });
    const cancelled = s.server.connection.commands.flatMap(({ cancelAcquire }) => cancelAcquire?.sessionAcquire ?? []);
    const asked = s.server.connection.commands.filter((command) => command.acquireAll).map(({ seq }) => seq);
    expect(asked).toHaveLength(3);
    expect(cancelled).toEqual(asked);
    expect(s.server.leases.size).toBe(0);
  });

  it("with a lease of its own ends that with the last lock", async () => {
    const s = setup();
    const set = await takeAll(s, ["a", "b"], { ttl: "5s" });
    void set.get("a").release();
    await s.time.settle();
    expect(s.server.leases.size).toBe(1);
    const rest = set.release();
    await s.time.settle();
    expect(await rest).toBe(true);
    expect(s.server.leases.size).toBe(0);
  });
});

describe("a set", () => {
  const reading: [string, (set: HeldSet, s: Setup) => unknown, string][] = [
    ["lost", (_, s) => s.server.connection.push({ holdEnds: [{ token: 2, reason: 3 }] }), "lost"],
    ["released", (set) => void set.get("a").release(), "released"],
    ["handed on", (set) => void set.get("a").transfer({ ticketId: "T1" }), "released"],
  ];
  it.each(reading)("of which one is %s is as that one is", async (_, happens, is) => {
    const s = setup();
    const set = await takeAll(s, ["a", "b"]);
    happens(set, s);
    expect(set.state.is).toBe(is);
    expect(thrown(() => set.assertHeld()).code).toBe("LOST");
  });

  it("is lost rather than released when it is both", async () => {
    const s = setup();
    const set = await takeAll(s, ["a", "b", "c"]);
    void set.get("a").release();
    s.server.connection.push({ holdEnds: [{ token: 2, reason: 4 }] });
    expect(set.state).toEqual({ is: "lost", reason: "max_hold" });
  });

  it("aborts its signal when any of them is lost, not when one is released", async () => {
    const s = setup();
    const set = await takeAll(s, ["a", "b"]);
    const { signal } = set;
    void set.get("a").release();
    await s.time.settle();
    expect(signal.aborted).toBe(false);
    s.server.connection.push({ holdEnds: [{ token: 2, reason: 3, message: "x" }] });
    expect(signal.reason).toMatchObject({ code: "LOST", lost: "forced" });
    expect(set.signal).toBe(signal);
  });

  it("notices at the reading of its signal what a stall has brought", async () => {
    const s = setup();
    const set = await takeAll(s, ["a", "b"]);
    s.time.stall(15_000);
    expect(set.signal.reason).toMatchObject({ code: "LOST", lost: "expired" });
    expect(set.state).toEqual({ is: "lost", reason: "expired" });
    expect(await set.release()).toBe(false);
  });

  it("is released in whole", async () => {
    const s = setup();
    const set = await takeAll(s, ["a", "b"]);
    const done = set.release();
    expect(set.state).toEqual({ is: "released" });
    await s.time.settle();
    expect(await done).toBe(true);
    expect(released(s)).toEqual(["a", "b"]);
  });
});

describe("withLocks", () => {
  it("runs under all of them and gives them back", async () => {
    const s = setup();
    const ran = watch(s.client.withLocks(["a", "b"], (set) => set.locks.map((lock) => lock.token)));
    await s.time.settle();
    expect(ran.value).toEqual([1, 2]);
    expect(released(s)).toEqual(["a", "b"]);
    const options = watch(s.client.withLocks(["a"], { wait: "1s" }, () => "done"));
    await s.time.settle();
    expect(options.value).toBe("done");
  });

  it("rejects LOST when one was lost, and gives the others back", async () => {
    const s = setup();
    const ran = watch(
      s.client.withLocks(["a", "b", "c"], () => {
        s.server.connection.push({ holdEnds: [{ token: 2, reason: 3, confirm: true }] });
      }),
    );
    await s.time.settle();
    expect(ran.error).toMatchObject({ code: "LOST", lost: "forced" });
    expect(released(s)).toEqual(["a", "b", "c"]);
  });

  it("inside of one of its names fails at once", async () => {
    const s = setup();
    const ran = watch(s.client.withLock("b", () => s.client.withLocks(["a", "b"], () => 1)));
    await s.time.settle();
    expect(ran.error).toMatchObject({ code: "DEADLOCK" });
    expect(s.server.connection.commands.some((command) => command.acquireAll)).toBe(false);
  });
});
