import { expect, test } from "vitest";
import { loadMutant, mutants } from "./mutants.js";
import { simulate } from "./simulator.js";

const SEEDS = 70;
const STEPS = 2_500;

function firstViolation(core: Parameters<typeof simulate>[0]["core"]): string | null {
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      simulate(core === undefined ? { seed, steps: STEPS } : { seed, steps: STEPS, core });
    } catch (error) {
      // A broken invariant, a disagreement with the model, or the core itself stumbles.
      return (error as Error).message;
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
