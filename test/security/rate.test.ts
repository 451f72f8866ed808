import { expect, it } from "vitest";
import { connectionRequests, FreeRate, RequestRate } from "../../src/server/security/rate.js";
import { randomOf } from "../fuzz/mutate.js";

it("gives the burst at once, then the rate, and says exactly when there is more", () => {
  const rate = new RequestRate(10, 0);
  for (let i = 0; i < 10; i++) expect(rate.take(1, 100, 10, 0)).toBe(0);
  expect(rate.take(1, 100, 10, 0)).toBe(10);
  expect(rate.take(1, 100, 10, 9)).toBe(1);
  expect(rate.take(1, 100, 10, 10)).toBe(0);
  expect(rate.take(5, 100, 10, 10)).toBe(50);
  expect(rate.take(5, 100, 10, 60)).toBe(0);
  expect(rate.take(1, 100, 10, 60)).toBe(10);
});

it("never holds more than the burst, however long the pause", () => {
  const rate = new RequestRate(10, 0);
  expect(rate.take(10, 100, 10, 1e9)).toBe(0);
  expect(rate.take(1, 100, 10, 1e9)).toBe(10);
});

it("gives of a frame what there is, and says when there is as much as the rest, or as there ever is", () => {
  const rate = new RequestRate(10, 0);
  expect(rate.takeSome(4, 100, 10, 0)).toEqual({ taken: 4, waitMs: 0 });
  expect(rate.takeSome(8, 100, 10, 0)).toEqual({ taken: 6, waitMs: 20 });
  expect(rate.takeSome(2, 100, 10, 20)).toEqual({ taken: 2, waitMs: 0 });
  expect(rate.takeSome(8_192, 100, 10, 20)).toEqual({ taken: 0, waitMs: 100 });
  expect(rate.takeSome(8_192, 100, 10, 120)).toEqual({ taken: 10, waitMs: 100 });
  expect(rate.take(50, 100, 10, 220)).toBe(0); // a debt
  expect(rate.takeSome(1, 100, 10, 220)).toEqual({ taken: 0, waitMs: 410 });
});

it("lets what is sent again through, and is owed a burst for it at most", () => {
  const rate = new RequestRate(10, 0);
  rate.owe(4, 100, 10, 0);
  expect(rate.take(6, 100, 10, 0)).toBe(0);
  rate.owe(1_000, 100, 10, 0);
  rate.owe(1_000, 100, 10, 0);
  expect(rate.take(1, 100, 10, 0)).toBe(110);
  expect(rate.take(50, 100, 10, 200)).toBe(0); // a debt of more than a burst
  rate.owe(1, 100, 10, 200);
  expect(rate.take(1, 100, 10, 200)).toBe(410); // which stays what it was
});

it("lets what cannot be divided and is larger than the burst through when it is full, as a debt", () => {
  const rate = new RequestRate(10, 0);
  expect(rate.take(1, 100, 10, 0)).toBe(0);
  expect(rate.take(50, 100, 10, 0)).toBe(10);
  expect(rate.take(50, 100, 10, 10)).toBe(0);
  expect(rate.take(1, 100, 10, 10)).toBe(410);
  expect(rate.take(1, 100, 10, 420)).toBe(0);
});

it("follows a rate and a burst that have changed", () => {
  const rate = new RequestRate(100, 0);
  expect(rate.take(6, 10, 5, 0)).toBe(0); // 100 are cut to 5, which is full
  expect(rate.take(1, 10, 5, 0)).toBe(200);
});

it("counts a new connection as up to eight requests, and where the rate is low as one", () => {
  expect([1, 25, 49, 50, 100, 199, 200, 1e6].map(connectionRequests)).toEqual([1, 1, 1, 2, 4, 7, 8, 8]);
});

it("what is free of charge goes on at a thousand a second, fifty renewals counted as one frame more", () => {
  const free = new FreeRate(0);
  for (let i = 0; i < 100; i++) expect(free.take(0, 10, 0)).toBe(0);
  expect(free.take(0, 10, 0)).toBe(1);
  expect(free.take(450, 10, 5)).toBe(5);
  expect(free.take(450, 10, 10)).toBe(0);
  expect(free.take(1_000_000, 10, 1_010)).toBe(0); // more than there ever is, once all of it is there
  expect(free.take(0, 10, 1_010)).toBe(19_902);
});

const SEED = Number(process.env.LEASEHOLD_SEED ?? Math.floor(Math.random() * 2 ** 31));

it(`nobody gets more than burst and rate together, or waits for nothing (seed ${SEED})`, () => {
  const random = randomOf(SEED);
  for (let round = 0; round < 200; round++) {
    const burst = 1 + Math.floor(random() * 50);
    const perSecond = 1 + Math.floor(random() * 1_000);
    const rate = new RequestRate(burst, 0);
    let [nowMs, taken, largest] = [0, 0, 0];
    for (let i = 0; i < 200; i++) {
      const requests = 1 + Math.floor(random() * 80);
      const waitMs = rate.take(requests, perSecond, burst, nowMs);
      if (waitMs === 0) {
        taken += requests;
        largest = Math.max(largest, requests);
      } else {
        expect(rate.take(requests, perSecond, burst, nowMs + waitMs)).toBe(0);
        taken += requests;
        largest = Math.max(largest, requests);
        nowMs += waitMs;
      }
      nowMs += Math.floor(random() * 20);
      expect(taken).toBeLessThanOrEqual(burst + (nowMs * perSecond) / 1_000 + largest);
    }
  }
});

it(`of frames nobody gets one request more than burst and rate together (seed ${SEED})`, () => {
  const random = randomOf(SEED);
  for (let round = 0; round < 200; round++) {
    const burst = 1 + Math.floor(random() * 50);
    const perSecond = 1 + Math.floor(random() * 1_000);
    const rate = new RequestRate(burst, 0);
    let [nowMs, sum] = [0, 0];
    for (let i = 0; i < 200; i++) {
      const requests = 1 + Math.floor(random() * 80);
      const { taken, waitMs } = rate.takeSome(requests, perSecond, burst, nowMs);
      sum += taken;
      expect(sum).toBeLessThanOrEqual(burst + (nowMs * perSecond) / 1_000 + 1e-6);
      if (waitMs > 0) {
        const others = Math.min(requests - taken, burst);
        nowMs += waitMs;
        expect(rate.takeSome(others, perSecond, burst, nowMs)).toEqual({ taken: others, waitMs: 0 });
        sum += others;
      }
      nowMs += Math.floor(random() * 20);
    }
  }
});
