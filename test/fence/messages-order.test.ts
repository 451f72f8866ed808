/** The order of messages within a key: examples, and random arrivals against an oracle that knows only the arrivals. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Gap, Order, type OrderOptions } from "../../src/fence/messages/order.js";
import type { Stamp } from "../../src/fence/messages/stamp.js";

const OPTIONS: OrderOptions = { onGap: "skip", gapMs: 1_000, heldMax: 1_000, heldPerKeyMax: 1_000, keysMax: 100 };

interface Message {
  readonly stamp: Stamp;
  /** Tells copies apart. */
  readonly id: number;
}

const stamp = (key: string, token: number, sequence: number, shared = false): Stamp => ({
  key,
  token,
  sequence,
  shared,
  timestamp: undefined,
});

/** An order, and everything that came of it. */
class Bench {
  readonly gaps: Gap[] = [];
  readonly taken: Message[] = [];
  readonly order: Order<Message>;
  #ids = 0;

  constructor(options: Partial<OrderOptions> = {}) {
    this.order = new Order<Message>({ ...OPTIONS, ...options }, (gap) => this.gaps.push(gap));
  }

  offer(key: string, token: number, sequence: number, { nowMs = 0, shared = false } = {}) {
    if (!this.order.knows(key) && !this.order.learn(key, undefined)) return "no room";
    return this.order.offer({ stamp: stamp(key, token, sequence, shared), id: this.#ids++ }, nowMs);
  }

  /** Handles what can be handled; returns it as "token.sequence". */
  handle(key: string, max = Number.POSITIVE_INFINITY): string[] {
    const handled: string[] = [];
    for (let item = this.order.take(key); item; item = handled.length < max ? this.order.take(key) : undefined) {
      this.taken.push(item);
      handled.push(`${item.stamp.token}.${item.stamp.sequence}`);
      this.order.done(key);
    }
    return handled;
  }
}

describe("one producer", () => {
  test("messages in order are handled in order, one at a time", () => {
    const { order } = new Bench();
    order.learn("k", undefined);
    for (const sequence of [1, 2, 3]) expect(order.offer({ stamp: stamp("k", 5, sequence), id: 0 }, 0)).toBe("queued");
    expect(order.take("k")?.stamp.sequence).toBe(1);
    expect(order.take("k")).toBeUndefined(); // the first is not done
    order.done("k");
    expect(order.take("k")?.stamp.sequence).toBe(2);
  });

  test("what comes too early is held back, and follows when the missing one comes", () => {
    const bench = new Bench();
    expect(bench.offer("k", 5, 3)).toBe("held");
    expect(bench.offer("k", 5, 2)).toBe("held");
    expect(bench.handle("k")).toEqual([]);
    expect(bench.order.waiting).toBe(2);
    expect(bench.offer("k", 5, 1)).toBe("queued");
    expect(bench.handle("k")).toEqual(["5.1", "5.2", "5.3"]);
    expect(bench.order.waiting).toBe(0);
  });

  test("what was handled, is queued, is being handled, or is held back is a duplicate", () => {
    const bench = new Bench();
    bench.offer("k", 5, 1);
    expect(bench.offer("k", 5, 1)).toBe("duplicate"); // queued
    bench.handle("k");
    expect(bench.offer("k", 5, 1)).toBe("duplicate"); // handled
    bench.offer("k", 5, 2);
    bench.order.take("k");
    expect(bench.offer("k", 5, 2)).toBe("duplicate"); // being handled
    bench.offer("k", 5, 4);
    expect(bench.offer("k", 5, 4)).toBe("duplicate"); // held back
  });

  test("goes on after the mark that is on record", () => {
    const bench = new Bench();
    bench.order.learn("k", { token: 5, sequence: 7 });
    expect(bench.offer("k", 4, 9)).toBe("stale");
    expect(bench.offer("k", 5, 7)).toBe("duplicate");
    expect(bench.offer("k", 5, 0)).toBe("duplicate");
    expect(bench.offer("k", 5, 9)).toBe("held");
    expect(bench.offer("k", 5, 8)).toBe("queued");
    expect(bench.handle("k")).toEqual(["5.8", "5.9"]);
  });

  test("a marker is handed out before the first message, once, and only if nothing has come before it", () => {
    const bench = new Bench();
    expect(bench.offer("k", 5, 0)).toBe("queued");
    expect(bench.offer("k", 5, 0)).toBe("duplicate");
    bench.offer("k", 5, 1);
    expect(bench.handle("k")).toEqual(["5.0", "5.1"]);
    bench.offer("k", 6, 1);
    expect(bench.offer("k", 6, 0)).toBe("duplicate");
    expect(bench.handle("k")).toEqual(["6.1"]);
  });
});

describe("gaps", () => {
  test("a gap is passed over when it has been open for gapMs since the first message behind it", () => {
    const bench = new Bench({ gapMs: 1_000 });
    bench.offer("k", 5, 3, { nowMs: 100 });
    bench.offer("k", 5, 4, { nowMs: 900 });
    expect(bench.order.dueMs()).toBe(1_100);
    bench.order.overdue(1_099);
    expect(bench.handle("k")).toEqual([]);
    bench.order.overdue(1_100);
    expect(bench.handle("k")).toEqual(["5.3", "5.4"]);
    expect(bench.gaps).toEqual([{ key: "k", token: 5, from: 1, to: 2, why: "late", skipped: true }]);
    expect(bench.order.dueMs()).toBeUndefined();
    expect(bench.offer("k", 5, 2)).toBe("duplicate"); // it has come after all, and too late
  });

  test("with stop the gap is reported once, and the key stands still until the missing ones come", () => {
    const bench = new Bench({ onGap: "stop" });
    bench.offer("k", 5, 2, { nowMs: 0 });
    bench.order.overdue(5_000);
    bench.order.overdue(9_000);
    expect(bench.gaps).toEqual([{ key: "k", token: 5, from: 1, to: 1, why: "late", skipped: false }]);
    expect(bench.order.dueMs()).toBeUndefined();
    expect(bench.handle("k")).toEqual([]);
    bench.offer("k", 5, 1);
    expect(bench.handle("k")).toEqual(["5.1", "5.2"]);
  });

  test("with stop an administrator may go on behind the gap", () => {
    const bench = new Bench({ onGap: "stop" });
    bench.offer("k", 5, 2);
    expect(bench.order.skip("k")).toBe(true);
    expect(bench.handle("k")).toEqual(["5.2"]);
    expect(bench.order.skip("k")).toBe(false);
    expect(bench.order.skip("other")).toBe(false);
  });

  test("two gaps in a row are two reports", () => {
    const bench = new Bench({ gapMs: 10 });
    bench.offer("k", 5, 2, { nowMs: 0 });
    bench.offer("k", 5, 5, { nowMs: 4 });
    bench.order.overdue(10);
    expect(bench.handle("k")).toEqual(["5.2"]);
    expect(bench.order.dueMs()).toBe(14);
    bench.order.overdue(14);
    expect(bench.handle("k")).toEqual(["5.5"]);
    expect(bench.gaps.map(({ from, to }) => [from, to])).toEqual([
      [1, 1],
      [3, 4],
    ]);
  });
});

describe("a newer producer", () => {
  test("makes everything stale that comes from an older one afterwards", () => {
    const bench = new Bench();
    bench.offer("k", 33, 1);
    bench.offer("k", 34, 0);
    expect(bench.offer("k", 33, 2)).toBe("stale");
    expect(bench.order.floor("k")).toBe(34);
    expect(bench.handle("k")).toEqual(["33.1", "34.0"]); // 33.1 came in time
  });

  test("makes a gap of the older one final, and what was held back behind it goes before the newer one's", () => {
    const bench = new Bench();
    bench.offer("k", 33, 2);
    bench.offer("k", 33, 4);
    bench.offer("k", 34, 1);
    expect(bench.handle("k")).toEqual(["33.2", "33.4", "34.1"]);
    expect(bench.gaps.map(({ token, from, to, why }) => [token, from, to, why])).toEqual([
      [33, 1, 1, "newer producer"],
      [33, 3, 3, "newer producer"],
    ]);
  });

  test("with stop the key stands still at that gap, and the newer one's messages wait, in bounds", () => {
    const bench = new Bench({ onGap: "stop", heldMax: 3 });
    bench.offer("k", 33, 2);
    expect(bench.offer("k", 34, 1)).toBe("held");
    expect(bench.offer("k", 35, 1)).toBe("held");
    expect(bench.handle("k")).toEqual([]);
    expect(bench.order.waiting).toBe(3);
    expect(bench.offer("k", 35, 2)).toBe("full");
    expect(bench.gaps).toEqual([{ key: "k", token: 33, from: 1, to: 1, why: "newer producer", skipped: false }]);
    bench.order.skip("k");
    expect(bench.handle("k")).toEqual(["33.2", "34.1", "35.1"]);
    expect(bench.order.waiting).toBe(0);
  });
});

test("those who share are checked against the floor, in no order, and do not raise it", () => {
  const bench = new Bench();
  bench.offer("k", 10, 1);
  expect(bench.offer("k", 12, 1, { shared: true })).toBe("queued");
  expect(bench.offer("k", 11, 5, { shared: true })).toBe("queued");
  expect(bench.offer("k", 9, 1, { shared: true })).toBe("stale");
  expect(bench.order.floor("k")).toBe(10);
  expect(bench.handle("k").sort()).toEqual(["10.1", "11.5", "12.1"]);
  bench.offer("k", 13, 0);
  expect(bench.offer("k", 12, 2, { shared: true })).toBe("stale");
});

describe("bounds", () => {
  test("skip: the key that is over its bound goes on behind its gap", () => {
    const bench = new Bench({ heldPerKeyMax: 2 });
    bench.offer("k", 5, 5);
    bench.offer("k", 5, 6);
    bench.offer("k", 5, 3);
    expect(bench.order.waiting).toBe(2); // 3 is not lost although it came into the gap: 1 and 2 are passed over
    expect(bench.handle("k")).toEqual(["5.3"]);
    expect(bench.gaps).toEqual([{ key: "k", token: 5, from: 1, to: 2, why: "full", skipped: true }]);
  });

  test("skip: if all keys together are over the bound, the oldest gap is passed over", () => {
    const bench = new Bench({ heldMax: 2, heldPerKeyMax: 2 });
    bench.offer("a", 5, 2, { nowMs: 1 });
    bench.offer("b", 5, 2, { nowMs: 2 });
    bench.offer("c", 5, 2, { nowMs: 3 });
    expect(bench.handle("a")).toEqual(["5.2"]);
    expect(bench.handle("b")).toEqual([]);
    expect(bench.handle("c")).toEqual([]);
  });

  test("stop: what does not fit is refused, and the one that fills the gap fits always", () => {
    const bench = new Bench({ onGap: "stop", heldMax: 1, heldPerKeyMax: 1 });
    expect(bench.offer("k", 5, 2)).toBe("held");
    expect(bench.offer("k", 5, 3)).toBe("full");
    expect(bench.offer("k", 5, 1)).toBe("queued");
    expect(bench.handle("k")).toEqual(["5.1", "5.2"]);
  });

  test("the key that was used least lately is forgotten, unless something of it is waiting or being handled", () => {
    const bench = new Bench({ keysMax: 2 });
    bench.offer("waiting", 5, 2);
    bench.offer("handled", 5, 1);
    expect(bench.offer("third", 5, 1)).toBe("no room");
    bench.order.take("handled");
    expect(bench.offer("third", 5, 1)).toBe("no room");
    bench.order.done("handled");
    expect(bench.offer("third", 5, 1)).toBe("queued");
    expect(bench.order.knows("handled")).toBe(false);
    expect(bench.order.knows("waiting")).toBe(true);
    expect(bench.order.size).toBe(2);
  });

  test("forgotten keys give back what was not handed out, and count no more", () => {
    const bench = new Bench();
    for (const one of ["5.1", "5.3", "6.0", "6.4"]) {
      const [token, sequence] = one.split(".").map(Number) as [number, number];
      bench.offer("k", token, sequence);
    }
    bench.offer("k", 6, 9, { shared: true });
    bench.offer("other", 1, 2);
    expect(bench.order.clear(({ stamp: { key } }) => key === "k")).toHaveLength(5);
    expect(bench.order.waiting).toBe(1);
    expect(bench.order.clear()).toHaveLength(1);
    expect(bench.order.waiting).toBe(0);
  });
});

/** What comes of arrivals, from nothing but their list: written without a look at the implementation. */
function oracle(arrivals: readonly Stamp[], onGap: "skip" | "stop"): string[] {
  const expected: string[] = [];
  const tokens = [...new Set(arrivals.map(({ token }) => token))].sort((a, b) => a - b);
  for (const token of tokens) {
    const newer = arrivals.findIndex((one) => one.token > token);
    const inTime = arrivals.slice(0, newer < 0 ? undefined : newer).filter((one) => one.token === token);
    if (inTime.length === 0) continue;
    const sequences = new Set(inTime.map(({ sequence }) => sequence));
    if (inTime[0]?.sequence === 0) expected.push(`${token}.0`); // a marker that is not the first means nothing
    sequences.delete(0);
    const sorted = [...sequences].sort((a, b) => a - b);
    const prefix = sorted.findIndex((sequence, i) => sequence !== i + 1);
    const complete = prefix < 0;
    // While no newer one has come, more may come: what is behind a gap waits.
    const handled = complete || (onGap === "skip" && newer >= 0) ? sorted : sorted.slice(0, prefix);
    expected.push(...handled.map((sequence) => `${token}.${sequence}`));
    if (!complete && onGap === "stop") break;
  }
  return expected;
}

/** Arrivals of one key: producers one after the other, their messages reordered, repeated, lost. */
const arrivals = (loss: boolean) =>
  fc
    .array(
      fc.record({
        token: fc.integer({ min: 1, max: 5 }),
        sequence: fc.integer({ min: 0, max: 6 }),
        copies: fc.integer({ min: loss ? 0 : 1, max: 3 }),
      }),
      { minLength: 1, maxLength: 40 },
    )
    .chain((messages) => {
      const copies = messages.flatMap(({ token, sequence, copies: n }) => Array(n).fill(stamp("k", token, sequence)));
      return fc.shuffledSubarray(copies, { minLength: copies.length });
    });

/** Whole producers: 1 to n without a gap, so that only the order and the copies are random. */
const wholeProducers = fc
  .array(fc.record({ count: fc.integer({ min: 1, max: 8 }), marker: fc.boolean() }), { minLength: 1, maxLength: 4 })
  .chain((producers) => {
    const streams = producers.map(({ count, marker }, i) => {
      const own = Array.from({ length: count }, (_, n) => stamp("k", i + 1, n + 1));
      return fc
        .tuple(fc.shuffledSubarray([...own, ...own], { minLength: own.length * 2 }), fc.constant(marker))
        .map(([mixed, first]) => [...(first ? [stamp("k", i + 1, 0)] : []), ...mixed]);
    });
    return fc.tuple(...streams).map((each) => each.flat());
  });

const seed = process.env.LEASEHOLD_SEED === undefined ? {} : { seed: Number(process.env.LEASEHOLD_SEED) };
const RUNS = { numRuns: 2_000, ...seed };

function run(stamps: readonly Stamp[], options: Partial<OrderOptions>, pauses: readonly boolean[], stepMs = 0) {
  const bench = new Bench(options);
  const outcomes: string[] = [];
  const handled: string[] = [];
  for (const [i, { token, sequence }] of stamps.entries()) {
    const nowMs = i * stepMs;
    outcomes.push(bench.offer("k", token, sequence, { nowMs }));
    if (stepMs > 0) bench.order.overdue(nowMs);
    if (!pauses[i % Math.max(1, pauses.length)]) handled.push(...bench.handle("k", 2)); // some of it, now and then
  }
  handled.push(...bench.handle("k"));
  return { bench, outcomes, handled };
}

function expectOrdered(handled: readonly string[]): void {
  const pairs = handled.map((one) => one.split(".").map(Number) as [number, number]);
  for (let i = 1; i < pairs.length; i++) {
    const [before, after] = [pairs[i - 1], pairs[i]] as [[number, number], [number, number]];
    const inOrder = before[0] < after[0] || (before[0] === after[0] && before[1] < after[1]);
    expect(inOrder, `${before.join(".")} before ${after.join(".")} in ${handled.join(" ")}`).toBe(true);
  }
}

describe.each(["skip", "stop"] as const)("random arrivals, %s", (onGap) => {
  test("what is handled is what the oracle says, in its order", () => {
    fc.assert(
      fc.property(arrivals(true), fc.array(fc.boolean()), (stamps, pauses) => {
        const { handled } = run(stamps, { onGap }, pauses);
        expect(handled).toEqual(oracle(stamps, onGap));
      }),
      RUNS,
    );
  });

  test("without loss and with producers that flush, everything is handled, once and in order", () => {
    fc.assert(
      fc.property(wholeProducers, fc.array(fc.boolean()), (stamps, pauses) => {
        const { handled, bench } = run(stamps, { onGap }, pauses);
        const all = new Set(stamps.filter((one) => one.sequence > 0).map((one) => `${one.token}.${one.sequence}`));
        expectOrdered(handled);
        expect(new Set(handled.filter((one) => !one.endsWith(".0")))).toEqual(all);
        expect(bench.gaps).toEqual([]);
        expect(bench.order.waiting).toBe(0);
      }),
      RUNS,
    );
  });

  test("with time limits and small bounds it stays in order, in bounds, and nothing gets lost unsaid", () => {
    const bounds = fc.record({ heldMax: fc.integer({ min: 1, max: 4 }), stepMs: fc.integer({ min: 0, max: 400 }) });
    fc.assert(
      fc.property(arrivals(true), fc.array(fc.boolean()), bounds, (stamps, pauses, { heldMax, stepMs }) => {
        const options = { onGap, heldMax, heldPerKeyMax: heldMax };
        const { bench, outcomes, handled } = run(stamps, options, pauses, stepMs);
        expectOrdered(handled);
        expect(bench.order.waiting).toBeLessThanOrEqual(heldMax);
        // Every arrival has one fate.
        const fates = (...fate: string[]) => outcomes.filter((one) => fate.includes(one)).length;
        expect(fates("queued", "held")).toBe(handled.length + bench.order.clear().length);
        expect(fates("duplicate", "stale", "full", "queued", "held")).toBe(stamps.length);
        expect(bench.order.waiting).toBe(0);
        // Behind every sequence that is handled all earlier ones are handled, or told to be missing.
        for (const one of handled) {
          const [token, sequence] = one.split(".").map(Number) as [number, number];
          for (let earlier = 1; earlier < sequence; earlier++) {
            const told = bench.gaps.some(
              (gap) => gap.skipped && gap.token === token && gap.from <= earlier && earlier <= gap.to,
            );
            expect(told, `${token}.${earlier} before ${one}`).toBe(!handled.includes(`${token}.${earlier}`));
          }
        }
      }),
      RUNS,
    );
  });
});
