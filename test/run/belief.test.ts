import { describe, expect, test } from "vitest";
import { elapsedMs, planFor, remainingMs, stamp } from "../../src/cli/run/belief.js";

const at = (monotonicMs: number, sleptMs = 5_000) => ({ monotonicMs, sleptMs });

describe("elapsed time", () => {
  test("is that of the monotonic clock", () => {
    expect(elapsedMs(at(1_000), at(1_250))).toBe(250);
  });

  test("counts the machine's sleep, during which the monotonic clock stands still, less the tolerance", () => {
    expect(elapsedMs(at(1_000, 5_000), at(1_250, 9_000))).toBe(250 + 4_000 - 20);
  });

  test("takes the coarseness of the uptime for no sleep", () => {
    expect(elapsedMs(at(1_000, 5_000), at(1_250, 5_019))).toBe(250);
    expect(elapsedMs(at(1_000, 5_000), at(1_250, 4_990))).toBe(250);
  });

  test("never runs backwards between two readings", () => {
    let last = stamp();
    for (let i = 0; i < 1_000; i++) {
      const next = stamp();
      expect(elapsedMs(last, next)).toBeGreaterThanOrEqual(0);
      last = next;
    }
  });
});

test("a belief that was under way for long is no longer than one that was not", () => {
  const belief = { stamp: at(1_000), remainingMs: 400 };
  expect(remainingMs(belief, at(1_100))).toBe(300);
  expect(remainingMs(belief, at(9_000))).toBe(-7_600);
  expect(remainingMs(belief, at(1_100, 6_000))).toBe(300 - 980);
});

describe("the plan", () => {
  test.each([
    { ttlMs: 15_000, graceMs: 3_000, marginMs: 150 },
    { ttlMs: 9_300, graceMs: 3_000, marginMs: 100 },
    { ttlMs: 2_000, graceMs: 300, marginMs: 100 },
    { ttlMs: 60_000, graceMs: 0, marginMs: 600 },
  ])("$ttlMs ms with a grace of $graceMs ms: margin $marginMs ms", ({ ttlMs, graceMs, marginMs }) => {
    expect(planFor(ttlMs, graceMs)).toEqual({ ok: true, plan: { graceMs, marginMs } });
  });

  test.each([
    { ttlMs: 9_299, graceMs: 3_000, marginMs: 100, ttlMsMin: 9_300 },
    { ttlMs: 299, graceMs: 0, marginMs: 100, ttlMsMin: 300 },
    { ttlMs: 60_000, graceMs: 19_401, marginMs: 600, ttlMsMin: 60_003 },
  ])("$ttlMs ms is too short for a grace of $graceMs ms", ({ ttlMs, graceMs, marginMs, ttlMsMin }) => {
    expect(planFor(ttlMs, graceMs)).toEqual({ ok: false, marginMs, ttlMsMin });
  });
});
