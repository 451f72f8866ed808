import { describe, expect, it } from "vitest";
import { Belief, HoldLimit, marginMs } from "../../src/client/belief.js";
import { elapsedClock } from "../../src/client/clock/elapsed.js";
import { backoffMs } from "../../src/client/session/backoff.js";
import { Renewals } from "../../src/client/session/renewals.js";

describe("the belief in a lease", () => {
  it("ends a margin before the time that counts from the send", () => {
    const belief = new Belief(15_000, 1_000, 15_000);
    expect(marginMs(15_000)).toBe(150);
    expect(marginMs(2_000)).toBe(100);
    expect(belief.at(1_000 + 15_000 - 150 - 1)).toBe("jeopardy");
    expect(belief.at(1_000 + 15_000 - 150)).toBe("lost");
  });

  it("is in jeopardy after two thirds of the TTL", () => {
    const belief = new Belief(15_000, 0, 15_000);
    expect(belief.at(9_999)).toBe("held");
    expect(belief.at(10_000)).toBe("jeopardy");
  });

  it("does not move back for an older answer that comes later", () => {
    const belief = new Belief(15_000, 0, 15_000);
    expect(belief.confirm(5_000, 15_000, 5_010)).toBe(true);
    expect(belief.confirm(3_000, 15_000, 5_020)).toBe(true);
    expect(belief.deadlineMs).toBe(5_000 + 15_000 - 150);
  });

  it("is not revived by an answer that comes after its end", () => {
    const belief = new Belief(15_000, 0, 15_000);
    expect(belief.confirm(14_000, 15_000, 14_850)).toBe(false);
    expect(belief.at(14_851)).toBe("lost");
    expect(belief.remainingMs(14_851)).toBe(0);
  });

  it("stays lost once it was seen to be", () => {
    const belief = new Belief(1_000, 0, 1_000);
    expect(belief.at(900)).toBe("lost");
    expect(belief.at(0)).toBe("lost");
  });
});

describe("elapsed time", () => {
  function clock() {
    const now = { monotonic: 5_000, uptime: 100_000 };
    const read = elapsedClock(
      () => now.monotonic,
      () => Math.floor(now.uptime / 10) * 10,
    );
    const run = (ms: number) => {
      now.monotonic += ms;
      now.uptime += ms;
    };
    return { now, read, run };
  }

  it("runs with the monotonic clock, the coarse uptime notwithstanding", () => {
    const { read, run } = clock();
    const start = read();
    for (let i = 1; i <= 1_000; i++) {
      run(7);
      expect(read() - start).toBe(7 * i);
    }
  });

  it("counts the time that the machine slept, less the tolerance", () => {
    const { now, read, run } = clock();
    const start = read();
    now.uptime += 60_000;
    run(10);
    const elapsed = read() - start;
    expect(elapsed).toBeGreaterThanOrEqual(60_010 - 40);
    expect(elapsed).toBeLessThanOrEqual(60_010);
  });

  it("adds up many short sleeps", () => {
    const { now, read, run } = clock();
    const start = read();
    for (let i = 0; i < 100; i++) {
      now.uptime += 15;
      run(10);
      read();
    }
    expect(read() - start).toBeGreaterThanOrEqual(100 * 25 - 40);
  });

  it("never goes backwards", () => {
    const { now, read, run } = clock();
    now.uptime += 10_000;
    run(10);
    const before = read();
    now.uptime -= 10_000;
    run(10);
    expect(read()).toBeGreaterThanOrEqual(before);
  });

  it("is not led astray by being held up between its two readings", () => {
    let monotonic = 0;
    let uptime = 0;
    let holdUp = 0;
    const read = elapsedClock(
      () => monotonic,
      () => {
        monotonic += holdUp;
        uptime += holdUp;
        holdUp = 0;
        return uptime;
      },
    );
    monotonic += 10;
    uptime += 10;
    holdUp = 3_000;
    read();
    monotonic += 10;
    uptime += 10;
    expect(read()).toBe(monotonic);
  });
});

describe("the delay before the next try", () => {
  it("is random from zero, grows, and is bounded", () => {
    expect(backoffMs(0, 0)).toBe(0);
    expect(backoffMs(0, 1)).toBe(100);
    expect(backoffMs(3, 1)).toBe(800);
    expect(backoffMs(3, 0.5)).toBe(400);
    expect(backoffMs(1_000, 1)).toBe(2_000);
  });
});

describe("the schedule of renewals", () => {
  it("renews at a third of the TTL, rides along from a sixth, repeats soon what is not answered", () => {
    const renewals = new Renewals();
    expect(renewals.rides(0, 15_000)).toBe(true);
    renewals.sent(2, 0, true);
    expect(renewals.rides(2_499, 15_000)).toBe(false);
    expect(renewals.rides(2_500, 15_000)).toBe(true);
    expect(renewals.dueAtMs(15_000)).toBe(1_500);
    expect(renewals.deadAtMs(15_000)).toBe(5_000);
    expect(renewals.answered(2)).toBe(0);
    expect(renewals.dueAtMs(15_000)).toBe(5_000);
    expect(renewals.deadAtMs(15_000)).toBe(Number.POSITIVE_INFINITY);
  });

  it("knows the send time of the frame that is answered, and of no other", () => {
    const renewals = new Renewals();
    renewals.sent(2, 10, true);
    renewals.sent(5, 20, true);
    expect(renewals.answered(2)).toBe(10);
    expect(renewals.answered(2)).toBe(10);
    expect(renewals.deadAtMs(3_000)).toBe(20 + 1_000);
    expect(renewals.answered(5)).toBe(20);
    expect(renewals.answered(2)).toBeUndefined();
    expect(renewals.answered(4)).toBeUndefined();
    renewals.reset();
    expect(renewals.answered(5)).toBeUndefined();
  });

  it("remembers a bounded number of frames that are never answered", () => {
    const renewals = new Renewals();
    for (let frame = 1; frame <= 1_000; frame++) renewals.sent(frame, frame, true);
    expect(renewals.answered(900)).toBeUndefined();
    expect(renewals.answered(1_000)).toBe(1_000);
  });

  it("follows the server between a sixth and half of the TTL", () => {
    for (const [wantedMs, dueMs] of [
      [100, 2_500],
      [4_000, 4_000],
      [60_000, 7_500],
    ] as const) {
      const renewals = new Renewals();
      renewals.sent(2, 1_000, true);
      renewals.answered(2);
      renewals.wanted(1_000 + wantedMs);
      expect(renewals.dueAtMs(15_000)).toBe(1_000 + dueMs);
    }
  });

  it("follows the earliest of several wishes, each for one round", () => {
    const renewals = new Renewals();
    renewals.sent(2, 0, true);
    renewals.answered(2);
    renewals.wanted(6_000);
    renewals.wanted(4_000);
    renewals.wanted(7_000);
    expect(renewals.dueAtMs(15_000)).toBe(4_000);
    renewals.sent(3, 4_000, true);
    renewals.answered(3);
    expect(renewals.dueAtMs(15_000)).toBe(9_000);
  });

  it("leaves as much time for another connection as without the server's wish", () => {
    for (const ttlMs of [1_000, 1_500, 3_000, 15_000, 60_000]) {
      const renewals = new Renewals();
      renewals.sent(2, 0, true);
      renewals.answered(2);
      renewals.wanted(ttlMs);
      const dueMs = renewals.dueAtMs(ttlMs);
      expect(dueMs).toBeLessThanOrEqual(ttlMs / 2);
      renewals.sent(3, dueMs, true);
      expect(renewals.deadAtMs(ttlMs)).toBeLessThanOrEqual(Math.max((ttlMs * 2) / 3, (ttlMs * 5) / 6) + 1e-6);
      expect(renewals.deadAtMs(ttlMs) - dueMs).toBeGreaterThanOrEqual(Math.max(500, ttlMs / 6) - 1e-6);
    }
  });

  it("does not give a stream up sooner because a renewal was late", () => {
    const renewals = new Renewals();
    renewals.sent(2, 0, true);
    renewals.answered(2);
    renewals.sent(3, 9_900, true);
    expect(renewals.deadAtMs(15_000)).toBe(9_900 + 2_500);
  });

  it("of reports of progress renews nothing else, but is answered like any other", () => {
    const renewals = new Renewals();
    renewals.sent(2, 0, true);
    renewals.answered(2);
    renewals.sent(3, 2_000, false);
    expect(renewals.deadAtMs(15_000)).toBe(7_000);
    expect(renewals.answered(3)).toBe(2_000);
    expect(renewals.dueAtMs(15_000)).toBe(5_000);
  });
});

describe("the belief in a maximum hold", () => {
  it("ends a margin before the time that counts from the send", () => {
    const limit = new HoldLimit(60_000, 1_000, 60_000);
    expect(limit.deadlineMs).toBe(1_000 + 60_000 - 600);
    expect(limit.yieldAtMs).toBe(limit.deadlineMs - 12_000);
    expect(limit.remainingMs(limit.deadlineMs - 1)).toBe(1);
    expect(limit.remainingMs(limit.deadlineMs + 1)).toBe(0);
    expect(new HoldLimit(1_000, 0, 1_000).deadlineMs).toBe(900);
  });
});
