/** Which timestamps belong to which time of day. */
import { expect, test } from "vitest";
import { WallTimes } from "../../src/server/ops/wall-times.js";

test("an event has the time at which its batch was told, to 50 ms", () => {
  let nowMs = 1_000;
  const times = new WallTimes(() => nowMs);
  expect(times.of(1)).toBe(0);
  for (const [atMs, timestamp] of [
    [1_000, 10],
    [1_049, 20], // in the same slice
    [1_050, 30],
    [9_000, 40],
    [8_000, 50], // somebody has set the clock
  ] as const) {
    nowMs = atMs;
    times.told(timestamp);
  }
  expect([1, 10, 20, 21, 30, 31, 40, 50, 51].map((timestamp) => times.of(timestamp))).toEqual([
    1_000, 1_000, 1_000, 1_050, 1_050, 9_000, 9_000, 8_000, 0,
  ]);
});

test("it is bounded, and does not tell a wrong time of what it has forgotten", () => {
  let nowMs = 0;
  const times = new WallTimes(() => nowMs);
  const slices = 20_000;
  for (let i = 1; i <= slices; i++) {
    nowMs = i * 100;
    times.told(i);
  }
  expect(times.of(1)).toBe(0);
  expect(times.of(slices - 16_384)).toBe(0);
  expect(times.of(slices - 16_000)).toBe((slices - 16_000) * 100);
  expect(times.of(slices)).toBe(nowMs);
});
