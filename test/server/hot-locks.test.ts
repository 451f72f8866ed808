import { describe, expect, it } from "vitest";
import { HotLocks } from "../../src/server/metrics/hot-locks.js";

const SECOND = 1_000;

/** A grant of each of `names` in turn, `perSecond` of each, for `seconds`. */
function load(hot: HotLocks, names: readonly string[], perSecond: number, fromMs: number, seconds: number): number {
  const stepMs = SECOND / perSecond;
  for (let i = 0; i < perSecond * seconds; i++) for (const name of names) hot.granted(name, fromMs + i * stepMs);
  return fromMs + seconds * SECOND;
}

/** Repeatable numbers from 0 to 1. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("the hottest locks", () => {
  it("are none when nothing is granted", () => {
    expect(new HotLocks().hottest(10, 5)).toEqual([]);
  });

  it("come with their rates, the hottest first", () => {
    const hot = new HotLocks();
    load(hot, ["slow"], 1, 0, 300);
    const endMs = load(hot, ["fast"], 20, 0, 300);
    const [first, second, ...rest] = hot.hottest(10, endMs);
    expect([first?.name, second?.name, rest.length]).toEqual(["fast", "slow", 0]);
    expect(first?.grantsPerSecond).toBeCloseTo(20, 0);
    expect(second?.grantsPerSecond).toBeCloseTo(1, 1);
    expect(hot.hottest(1, endMs).map(({ name }) => name)).toEqual(["fast"]);
  });

  it("cool down and are forgotten", () => {
    const hot = new HotLocks();
    const endMs = load(hot, ["a"], 10, 0, 300);
    const rate = (atMs: number) => hot.hottest(1, atMs)[0]?.grantsPerSecond ?? 0;
    const hotRate = rate(endMs);
    expect(rate(endMs + 30 * SECOND)).toBeCloseTo(hotRate / Math.E, 5);
    expect(rate(endMs + 3_600 * SECOND)).toBe(0);
  });

  it("of today win against those of yesterday", () => {
    const hot = new HotLocks();
    const noonMs = load(hot, ["yesterday"], 100, 0, 300);
    const endMs = load(hot, ["today"], 5, noonMs + 86_400 * SECOND, 60);
    expect(hot.hottest(10, endMs).map(({ name }) => name)).toEqual(["today"]);
  });

  it("keep their rates over the times at which the origin of the weights moves", () => {
    const hot = new HotLocks();
    let nowMs = 0;
    for (let hour = 0; hour < 5; hour++) {
      nowMs = load(hot, ["b"], 1, nowMs, 3_600);
      expect(hot.hottest(1, nowMs)[0]?.grantsPerSecond).toBeCloseTo(1, 1);
    }
  });

  it("are found among a million others that are granted once", () => {
    const seed = 7;
    const next = random(seed);
    const hot = new HotLocks();
    const heavy = new Map<string, number>();
    let nowMs = 0;
    for (let i = 0; i < 1_000_000; i++) {
      nowMs += 0.05;
      // Ten names share a tenth of all grants: a thousand a second, where the others have one each.
      const name = next() < 0.1 ? `hot${Math.floor(next() * 10)}` : `once${i}`;
      if (name.startsWith("hot")) heavy.set(name, (heavy.get(name) ?? 0) + 1);
      hot.granted(name, nowMs);
    }
    const top = hot.hottest(10, nowMs);
    expect(top.map(({ name }) => name).sort(), `seed ${seed}`).toEqual([...heavy.keys()].sort());
    for (const { grantsPerSecond } of top) {
      // 200 a second each, of which the decay has seen the last 50 s; never more than that, and not much less.
      expect(grantsPerSecond).toBeGreaterThan(80);
      expect(grantsPerSecond).toBeLessThan(210);
    }
  });

  it("are never told a rate above the true one", () => {
    const seed = 11;
    const next = random(seed);
    const hot = new HotLocks();
    const exact = new Map<string, number>();
    let nowMs = 0;
    for (let i = 0; i < 50_000; i++) {
      const stepMs = next() * 4;
      nowMs += stepMs;
      // The lower the number, the more often; far more names than counters.
      const name = `n${Math.floor(2_000 * next() ** 3)}`;
      hot.granted(name, nowMs);
      // Without decay: what is told for a short time cannot be above that.
      exact.set(name, (exact.get(name) ?? 0) + 1);
    }
    const told = hot.hottest(256, nowMs);
    expect(told.length).toBeGreaterThan(10);
    for (const { name, grantsPerSecond } of told) {
      expect(grantsPerSecond * 30, `${name}, seed ${seed}`).toBeLessThanOrEqual((exact.get(name) ?? 0) + 1e-6);
    }
    expect(told[0]?.name).toBe("n0");
  });
});
