import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { describeWithServices } from "../services/vitest.js";

const script = fileURLToPath(new URL("../../examples/races/main.mjs", import.meta.url));
const RACE_MS_MAX = 120_000;

interface Outcome {
  readonly how: string;
  readonly wrong: number;
  readonly of: number;
}

interface Result {
  readonly number: number;
  readonly without: Outcome;
  readonly fixed: readonly Outcome[];
}

/** Runs one race to its end. */
function race(number: number): Promise<{ code: number | null; results: Result[]; errors: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, `${number}`, "--json"], { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    child.on("error", reject);
    child.on("close", (code) => {
      resolve({ code, results: output.startsWith("[") ? (JSON.parse(output) as Result[]) : [], errors });
    });
  });
}

const NEEDS = ["postgres", "redis", "rabbitmq", "kafka", "faketime"] as const;

describeWithServices("the six races", NEEDS, () => {
  it.each([1, 2, 3, 4, 5, 6])(
    "race %i goes wrong without protection, and never with it",
    {
      timeout: RACE_MS_MAX,
    },
    async (number) => {
      const { code, results, errors } = await race(number);
      expect(code, errors).toBe(0);
      const [result] = results as [Result];
      expect(results).toHaveLength(1);
      expect(result.number).toBe(number);
      expect(result.without.wrong).toBeGreaterThan(0);
      expect(result.fixed.length).toBeGreaterThan(0);
      for (const { wrong, of } of result.fixed) {
        expect(wrong).toBe(0);
        expect(of).toBeGreaterThan(0); // nothing is right of nothing
      }
    },
  );
});
