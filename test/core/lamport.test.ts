import fc from "fast-check";
import { expect, test } from "vitest";
import { LamportClock } from "../../src/server/core/lamport.js";

const PER_SECOND_MAX = 1_000;

type Action =
  | { kind: "take"; count: number }
  | { kind: "observe"; ahead: number }
  | { kind: "pass"; ms: number }
  | { kind: "raise" };

const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({ kind: fc.constant("take" as const), count: fc.integer({ min: 1, max: 1_000_000 }) }),
  fc.record({ kind: fc.constant("observe" as const), ahead: fc.integer({ min: -100, max: 1_500 }) }),
  fc.record({ kind: fc.constant("pass" as const), ms: fc.nat({ max: 3_000 }) }),
  fc.constant({ kind: "raise" as const }),
);

// A failure prints the seed that repeats it.
test("it never goes back, and is pushed no further than its budget", () => {
  fc.assert(
    fc.property(fc.nat({ max: 10_000 }), fc.array(action, { maxLength: 200 }), (start, actions) => {
      let nowMs = 500;
      const clock = new LamportClock(start, PER_SECOND_MAX, nowMs);
      let pushed = 0;
      for (const next of actions) {
        const before = clock.now;
        if (next.kind === "take") {
          expect(clock.take(next.count)).toBe(before + next.count);
          expect(clock.now).toBe(before + next.count);
        } else if (next.kind === "pass") nowMs += next.ms;
        else if (next.kind === "raise") {
          const ceiling = clock.ceiling;
          const raised = clock.raiseCeiling();
          expect(clock.ceiling !== ceiling).toBe(raised);
          expect(clock.ceiling).toBeGreaterThanOrEqual(ceiling);
          expect(clock.now).toBeLessThan(clock.ceiling);
        } else {
          const ahead = clock.observe(before + next.ahead, nowMs);
          if (next.ahead <= 0) expect(ahead).toBe(0);
          if (ahead > 0) expect([ahead, clock.now]).toEqual([next.ahead, before]);
          else expect(clock.now).toBe(Math.max(before, before + next.ahead));
          pushed += clock.now - before;
        }
        expect(clock.now).toBeGreaterThanOrEqual(before);
        // One second's worth at once, and what has been earned since.
        expect(pushed).toBeLessThanOrEqual(PER_SECOND_MAX * (1 + (nowMs - 500) / 1000) + 1e-6);
      }
    }),
  );
});

test("what is within the budget is always taken", () => {
  const clock = new LamportClock(0, PER_SECOND_MAX, 0);
  expect(clock.observe(1_000, 0)).toBe(0);
  expect(clock.observe(1_001, 0)).toBe(1);
  expect(clock.observe(1_500, 499)).toBe(500);
  expect(clock.observe(1_500, 500)).toBe(0);
  // Time does not save up more than one second's worth.
  expect(clock.observe(2_501, 60_000)).toBe(1_001);
  expect(clock.observe(2_500, 60_000)).toBe(0);
});

test("a clock that starts at the ceiling of another one is above all that the other told", () => {
  const clock = new LamportClock(0, PER_SECOND_MAX, 0);
  clock.take(5_000_000);
  clock.raiseCeiling();
  const { ceiling } = clock;
  while (!clock.raiseCeiling()) expect(clock.take(100_000)).toBeLessThanOrEqual(ceiling);
});
