import { expect, test } from "vitest";
import { ServedClock } from "../../src/server/sequencer/served-clock.js";
import { FakeTurns } from "./harness.js";

test("follows real time while turns are short", async () => {
  const turns = new FakeTurns();
  const clock = new ServedClock(turns);
  for (let i = 0; i < 100; i++) {
    turns.pass(10);
    await turns.turn(() => void clock.now());
  }
  expect(clock.now()).toBe(1_000);
  expect(clock.stalls).toBe(0);
  expect(clock.mayExpire()).toBe(true);
});

test("a long turn counts as 100 ms, and nothing expires for 250 ms after it", async () => {
  const turns = new FakeTurns();
  const clock = new ServedClock(turns);
  turns.pass(60_000);
  await turns.turn(() => {
    expect(clock.now()).toBe(100);
    expect(clock.stalls).toBe(1);
    expect(clock.mayExpire()).toBe(false);
  });
  for (const [ms, may] of [
    [90, false],
    [90, false],
    [80, true],
  ] as const) {
    turns.pass(ms);
    await turns.turn(() => expect(clock.mayExpire()).toBe(may));
  }
});

test("what is read late in a turn is not stamped with the time of the turn's beginning", async () => {
  // Else: sent at 95 ms, read at 96 ms, stamped 0: its lease would end 95 ms earlier than the client believes.
  const turns = new FakeTurns();
  const clock = new ServedClock(turns);
  await turns.turn(() => {
    expect(clock.now()).toBe(0);
    turns.pass(96);
    expect(clock.now()).toBe(96);
    turns.pass(500);
    expect(clock.now()).toBe(100);
  });
  await turns.turn(() => expect(clock.now()).toBe(100));
});

test("never goes back", async () => {
  const turns = new FakeTurns();
  const clock = new ServedClock(turns);
  let before = 0;
  for (const ms of [0, 5, 99, 100, 101, 3_000, 1, 50, 0, 250, 99]) {
    await turns.turn(() => {
      for (const part of [0.3, 0.7]) {
        turns.pass(ms * part);
        const now = clock.now();
        expect(now).toBeGreaterThanOrEqual(before);
        before = now;
      }
    });
  }
});
