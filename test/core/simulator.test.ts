import { randomInt } from "node:crypto";
import { expect, test } from "vitest";
import { simulate } from "./simulator.js";

const SEEDS = 300;
const given = process.env.LEASEHOLD_SIM_SEED;
const steps = Number(process.env.LEASEHOLD_SIM_STEPS ?? 4_000);

test("the core keeps its invariants, whatever clients, network and disk do", () => {
  const first = given === undefined ? randomInt(2 ** 31) : Number(given);
  const seeds = given === undefined ? SEEDS : 1;
  console.log(`seeds from ${first}: ${seeds}`);
  const total = { grants: 0, resumes: 0, crashes: 0, failedAppends: 0 };
  for (let seed = first; seed < first + seeds; seed++) {
    const stats = simulate({ seed, steps });
    total.grants += stats.grants;
    total.resumes += stats.resumes;
    total.crashes += stats.crashes;
    total.failedAppends += stats.failedAppends;
  }
  if (given !== undefined) return;
  // A simulation in which nothing happens would prove nothing.
  expect(total.grants).toBeGreaterThan(SEEDS * 10);
  expect(total.resumes).toBeGreaterThan(SEEDS);
  expect(total.crashes).toBeGreaterThan(SEEDS);
  expect(total.failedAppends).toBeGreaterThan(SEEDS / 10);
});
