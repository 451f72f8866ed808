import { expect, it } from "vitest";
import { Shares } from "../../src/server/rpc/shares.js";
import { RefusalPace } from "../../src/server/security/refusals.js";

it("refuses calls one after the other, at once after a pause, and holds none back for more than ten seconds", () => {
  const pace = new RefusalPace();
  expect([pace.call(1, 0), pace.call(1, 0), pace.call(1, 0), pace.call(1, 5)]).toEqual([5, 10, 15, 15]);
  expect(pace.call(1, 1_000)).toBe(5);
  let last = 0;
  for (let i = 0; i < 4_000; i++) last = pace.call(1, 2_000);
  expect(last).toBe(10_000);
});

it("in a second refuses about as many calls as the twentieth part of a processor can, however many there are", () => {
  const pace = new RefusalPace();
  const dueMs = Array.from({ length: 5_000 }, (_, i) => i / 5 + pace.call(1, i / 5)); // 5,000 in a second
  expect(dueMs.filter((ms) => ms <= 1_000).length).toBeLessThanOrEqual(200);
  expect(dueMs.filter((ms) => ms <= 1_000).length).toBeGreaterThan(190);
});

it("holds so many calls back, and refuses more at once", () => {
  const pace = new RefusalPace();
  const held = Array.from({ length: 10_001 }, () => pace.call(1, 0));
  expect(held.indexOf(0)).toBe(10_000);
  expect(pace.call(1, 9_999)).toBeGreaterThan(0); // some were refused meanwhile
});

it("has a stream rest the longer, the more commands its frame had", () => {
  const pace = new RefusalPace();
  expect(pace.frame(1, 0)).toBeCloseTo(0.56);
  expect(pace.frame(100, 0)).toBeCloseTo(0.56 + 6.5);
  expect(pace.frame(16_384, 1_000)).toBeCloseTo(983.5, 0);
});

it("gives each principal a share, and takes back what is given back once", () => {
  const shares = new Shares("watches", 2);
  const take = (name: string) => {
    const taken = shares.take(name);
    return "reason" in taken ? taken.message : taken;
  };
  const first = take("token/ci");
  take("token/ci");
  expect(take("token/ci")).toBe("token/ci has 2 watches open");
  expect(take("token/ops")).toBeTypeOf("function");
  if (typeof first === "function") for (let i = 0; i < 2; i++) first();
  expect(take("token/ci")).toBeTypeOf("function");
  expect(take("token/ci")).toBe("token/ci has 2 watches open");
  for (let i = 0; i < 10; i++) expect(take("")).toBeTypeOf("function"); // nobody was asked who he is
});

it("a refusal that costs as much as eight takes as long as eight", () => {
  const pace = new RefusalPace();
  expect([pace.call(8, 0), pace.call(1, 0)]).toEqual([40, 45]);
});
