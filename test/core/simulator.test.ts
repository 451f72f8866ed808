import { randomInt } from "node:crypto";
import { expect, test } from "vitest";
import { type SimStats, simulate } from "./simulator.js";

const SEEDS = 80;
const given = process.env.LEASEHOLD_SIM_SEED;
const steps = Number(process.env.LEASEHOLD_SIM_STEPS ?? 3_000);

/** How often a thing must happen, in all seeds together: a simulation in which it does not would prove nothing of it. */
const leastOf: Record<keyof SimStats, number> = {
  grants: SEEDS * 15,
  resumes: SEEDS,
  crashes: SEEDS,
  failedAppends: SEEDS / 5,
  sets: SEEDS,
  shared: SEEDS,
  semaphores: SEEDS,
  transfers: SEEDS / 4,
  downgrades: SEEDS / 4,
  deadlocks: SEEDS,
  taken: SEEDS,
  maxHolds: SEEDS,
  hung: SEEDS,
  delays: SEEDS,
  denied: SEEDS,
  overQuota: SEEDS,
};

test("the core keeps its invariants and agrees with the model, whatever clients, network and disk do", () => {
  const first = given === undefined ? randomInt(2 ** 31) : Number(given);
  const seeds = given === undefined ? SEEDS : 1;
  console.log(`seeds from ${first}: ${seeds}`);
  const names = Object.keys(leastOf) as (keyof SimStats)[];
  const total = Object.fromEntries(names.map((name) => [name, 0])) as Record<keyof SimStats, number>;
  for (let seed = first; seed < first + seeds; seed++) {
    const stats = simulate({ seed, steps });
    for (const name of names) total[name] += stats[name];
  }
  console.log(JSON.stringify(total));
  if (given !== undefined || process.env.LEASEHOLD_SIM_STEPS !== undefined) return;
  for (const name of names) expect(total[name], name).toBeGreaterThan(leastOf[name]);
}, 3_600_000); // for the long runs; one of ordinary length takes seconds
