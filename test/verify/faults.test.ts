import { expect, test } from "vitest";
import { rules } from "../../src/verify/rules.js";
import { mulberry32 } from "../e2e/told.js";
import { faults } from "./faults.js";
import { Generator } from "./generator.js";
import { rulesOf, violationsOf } from "./support.js";

const SEED = Number(process.env.LEASEHOLD_SEED ?? Date.now() % 1e9);
const EACH = 30;

test.each(Object.entries(faults))("%s is found", async (_what, { rule, plant }) => {
  let planted = 0;
  for (let seed = SEED; planted < EACH; seed++) {
    expect(seed, "a history in which the fault can be planted").toBeLessThan(SEED + 50 * EACH);
    const random = mulberry32(seed);
    const events = plant(new Generator(random, 4).run(300), random);
    if (!events) continue;
    planted++;
    const violations = await violationsOf(events);
    expect(rulesOf(violations), `seed ${seed}`).toContain(rule);
    for (const { events: timeline } of violations) expect(timeline.length, `seed ${seed}`).toBeGreaterThan(0);
  }
});

test("there is a fault for every rule", () => {
  expect(new Set(Object.values(faults).map(({ rule }) => rule))).toEqual(new Set(Object.keys(rules)));
});
