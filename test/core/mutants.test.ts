import { expect, test } from "vitest";
import { loadMutant, mutants } from "./mutants.js";
import { Violation } from "./sim/violation.js";
import { simulate } from "./simulator.js";

const SEEDS = 120;
const STEPS = 3_000;

function firstViolation(core: Parameters<typeof simulate>[0]["core"]): string | null {
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      simulate(core === undefined ? { seed, steps: STEPS } : { seed, steps: STEPS, core });
    } catch (error) {
      const { message, cause } = error as Error;
      if (!(cause instanceof Violation)) throw error;
      return message;
    }
  }
  return null;
}

test("the real core passes the seeds that the mutants are judged by", () => {
  expect(firstViolation(undefined)).toBeNull();
});

test.each(mutants)("the simulator notices when $bug", async (mutant) => {
  const { core, dispose } = await loadMutant(mutant);
  try {
    const violation = firstViolation(core);
    console.log(`${mutant.bug}: ${violation?.split("\n")[0] ?? "not noticed"}`);
    expect(violation).not.toBeNull();
  } finally {
    dispose();
  }
});
