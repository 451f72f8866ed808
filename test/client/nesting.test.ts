/** What an acquire tells the server of what its caller keeps. */
import { describe, expect, it } from "vitest";
import { type Setup, setup, take, watch } from "./support.js";

/** The tokens that the acquires of this name told of, one list for each. */
const held = (s: Setup, name: string) =>
  s.server.connections
    .flatMap((c) => c.commands)
    .flatMap(({ acquire, acquireAll }) => {
      const asked =
        acquire?.name === name ? acquire : acquireAll?.locks?.some((one) => one.name === name) && acquireAll;
      return asked ? [asked.heldTokens ?? []] : [];
    });

describe("a nested acquire", () => {
  it("tells of the locks of the callbacks around, the innermost first", async () => {
    const s = setup();
    const ran = watch(
      s.client.withLock("a", () =>
        s.client.withLocks(["b", "c"], () => s.client.withLock("d", () => s.client.acquireAll(["e", "f"]))),
      ),
    );
    await s.time.settle();
    expect(ran.settled).toBe(true);
    expect([held(s, "a"), held(s, "b"), held(s, "d"), held(s, "e")]).toEqual([
      [[]],
      [[1]],
      [[2, 3, 1]],
      [[4, 2, 3, 1]],
    ]);
  });

  it("of a parallel task does not tell of the others' locks", async () => {
    const s = setup();
    const ran = watch(
      s.client.withLock("a", () =>
        Promise.all([
          s.client.withLock("b", () => s.client.withLock("x", () => 1)),
          s.client.withLock("c", () => s.client.withLock("y", () => 2)),
        ]),
      ),
    );
    await s.time.settle();
    expect(ran.value).toEqual([1, 2]);
    expect([held(s, "b"), held(s, "c")]).toEqual([[[1]], [[1]]]);
    const [[b], [c]] = [held(s, "x"), held(s, "y")];
    expect([b, c].map((tokens) => tokens?.length)).toEqual([2, 2]);
    expect(b?.[0]).not.toBe(c?.[0]);
  });

  it("does not tell of what has been given back, lost, or is left behind by its callback", async () => {
    const s = setup();
    let later = () => {};
    let left: Promise<unknown> | undefined;
    const ran = watch(
      s.client.withLocks(["a", "b", "c"], async (set) => {
        left = new Promise<void>((resolve) => (later = resolve)).then(() => s.client.acquire("y"));
        void set.get("a").release();
        s.server.connection.push({ holdEnds: [{ token: 2, reason: 3 }] });
        await s.client.acquire("x");
      }),
    );
    await s.time.settle();
    expect(ran.error).toMatchObject({ code: "LOST" });
    expect(held(s, "x")).toEqual([[3]]);
    later();
    await s.time.settle();
    await left;
    expect(held(s, "y")).toEqual([[]]);
  });

  it("tells of what is held when it is sent, not when it was asked for", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.connection.break();
    const taken = watch(s.client.acquire("x", { holding: [lock] }));
    void lock.release();
    await s.time.advance(200);
    expect(taken.settled).toBe(true);
    expect(held(s, "x")).toEqual([[]]);
  });

  it("that does not wait claims nothing", async () => {
    const s = setup();
    const ran = watch(s.client.withLock("a", () => s.client.tryAcquire("x")));
    const zero = watch(s.client.withLock("b", () => s.client.acquire("y", { wait: 0 })));
    await s.time.settle();
    expect([ran.settled, zero.settled]).toEqual([true, true]);
    expect([held(s, "x"), held(s, "y")]).toEqual([[[]], [[]]]);
  });

  it("tells of 64 locks at most, the nearest ones", async () => {
    const s = setup();
    s.server.commandsInFlightMax = 1_024;
    const names = Array.from({ length: 60 }, (_, i) => `n/${i}`);
    const ran = watch(
      s.client.withLocks(names, () =>
        s.client.withLocks(
          names.map((n) => `m${n}`),
          () => s.client.acquire("x"),
        ),
      ),
    );
    await s.time.settle();
    expect(ran.settled).toBe(true);
    const [tokens] = held(s, "x");
    expect(tokens).toEqual([...Array.from({ length: 60 }, (_, i) => 61 + i), 1, 2, 3, 4]);
  });
});

describe("holding", () => {
  it("names locks of the caller's, before those around", async () => {
    const s = setup();
    const [a, b] = [await take(s, "a"), await take(s, "b")];
    const ran = watch(s.client.withLock("c", () => s.client.acquire("x", { holding: [b, a, b] })));
    await s.time.settle();
    expect(ran.settled).toBe(true);
    expect(held(s, "x")).toEqual([[2, 1, 3]]);
  });

  it("refuses locks that are not held, or another client's", async () => {
    const [s, other] = [setup(), setup()];
    const gone = await take(s, "a");
    void gone.release();
    const foreign = await take(other, "b");
    const own = await take(s, "c");
    for (const holding of [[gone], [foreign], [own, gone], Array(65).fill(own)]) {
      await expect(s.client.acquire("x", { holding })).rejects.toMatchObject({ code: "INVALID" });
    }
  });
});

describe("the same name again", () => {
  const nest = async (s: Setup, outer: object, inner: object) => {
    const ran = watch(s.client.withLock("a", outer, () => s.client.withLock("a", inner, () => "both")));
    await s.time.settle();
    return ran;
  };

  it("fails at once when the outer holds it alone, however the inner asks", async () => {
    const s = setup();
    expect((await nest(s, {}, {})).error).toMatchObject({ code: "DEADLOCK" });
    expect((await nest(s, {}, { mode: "shared" })).error).toMatchObject({ code: "DEADLOCK" });
    expect(held(s, "a")).toEqual([[], []]);
  });

  it.each([
    [{ mode: "shared" }, { mode: "shared" }],
    [{ mode: "shared" }, {}],
    [{ permits: { of: 2 } }, { permits: { of: 2 } }],
  ])("%j around %j is the server's to decide", async (outer, inner) => {
    const s = setup();
    expect((await nest(s, outer, inner)).value).toBe("both");
    expect(held(s, "a")).toEqual([[], [1]]);
  });

  it("is fine when the outer has given it up", async () => {
    const s = setup();
    const ran = watch(
      s.client.withLock("a", async (lock) => {
        await lock.release();
        return s.client.withLock("a", () => "again");
      }),
    );
    await s.time.settle();
    expect(ran.value).toBe("again");
    const shared = watch(
      s.client.withLock("b", async (lock) => {
        await lock.downgrade();
        return s.client.withLock("b", { mode: "shared" }, () => "shared");
      }),
    );
    await s.time.settle();
    expect(shared.value).toBe("shared");
  });
});
