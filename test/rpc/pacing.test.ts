import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RenewalPacing } from "../../src/server/rpc/pacing.js";

const renewal = (remainingMs: number, load: number, random: number) =>
  new RenewalPacing(
    () => load,
    () => random,
  ).renewAfterMs(remainingMs);

describe("the next renewal", () => {
  it("comes at a third of what remains, a tenth earlier or later", () => {
    expect([0, 0.5, 1].map((random) => renewal(30_000, 0, random))).toEqual([9_000, 10_000, 11_000]);
  });

  it("comes later under load, up to half of what remains", () => {
    const middle = [0, 0.25, 0.5, 0.75, 1].map((load) => renewal(30_000, load, 0.5));
    expect(middle).toEqual([...middle].sort((a, b) => a - b));
    expect(new Set(middle).size).toBe(5);
    expect(renewal(30_000, 1, 1)).toBe(15_000);
    expect(renewal(30_000, 1, 0)).toBeLessThan(13_000);
  });

  it("leaves room for two more tries before a client's own margin, whatever the load and the random number", () => {
    const wild = fc.oneof(fc.double(), fc.double({ min: 0, max: 1, noNaN: true }));
    fc.assert(
      fc.property(fc.nat(86_400_000), wild, wild, (remainingMs, load, random) => {
        const afterMs = renewal(remainingMs, load, random);
        expect(Number.isSafeInteger(afterMs)).toBe(true);
        expect(afterMs).toBeLessThanOrEqual(remainingMs / 2);
        expect(afterMs).toBeGreaterThanOrEqual(Math.floor(remainingMs * 0.3) - 1);
      }),
      { verbose: true },
    );
  });

  it("is spread, idle and under full load", () => {
    for (const load of [0, 1]) {
      const draws = Array.from({ length: 100 }, (_, i) => renewal(60_000, load, i / 100));
      expect(new Set(draws).size).toBe(100);
      expect(Math.max(...draws) - Math.min(...draws)).toBeGreaterThan(60_000 / 20);
    }
  });

  it("asks for the load and a random number each time", () => {
    let asked = 0;
    const pacing = new RenewalPacing(
      () => (asked++ === 0 ? 0 : 1),
      () => 0.5,
    );
    expect(pacing.renewAfterMs(3_000)).toBe(1_000);
    expect(pacing.renewAfterMs(3_000)).toBeGreaterThan(1_300);
  });
});
