/**
 * One principal asks for 50 times its quota, in every way there is, and four others that ask for half of theirs are served
 * as before: the benchmark of fairness, in short, with its server and its clients in processes of their own.
 *
 * Beside other tests it is asserted that nobody's request fails and that the noisy one gets no more than its quota. That the
 * 99th percentile of the others at most doubles says something only where the processors do nothing else:
 * `npm run test:fairness` asserts that too. Both sides of it have outliers, so a tenth of a second is added; where a server
 * refuses at once it is half a second and more, and a whole processor.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { root, temporaryFolder } from "./support.js";

interface Result {
  readonly kind: string;
  /** Requests of the noisy one, in so many seconds. */
  readonly served: number;
  readonly wallSeconds: number;
  readonly askedPerSecond: number;
  readonly rounds: readonly { readonly quietP99: number; readonly besideP99: number }[];
  readonly cpu: { readonly quiet: number | null; readonly noise: number | null };
  readonly failures: readonly string[];
}

/** Of requests in a second, and at once. */
const QUOTA = 200;
/** There is nothing else to do for this machine. */
const ALONE = process.env.LEASEHOLD_FAIRNESS === "1";
/** Of the machine, not of the noise. */
const OUTLIERS_MS = 100;

test("the others do not notice one who asks for 50 times its quota", { timeout: 300_000 }, async () => {
  const report = join(await temporaryFolder(), "report.json");
  const rounds = ALONE ? "3" : "1";
  const bench = spawn(
    process.execPath,
    ["bench/fairness.mjs", "--rounds", rounds, "--seconds", "1", "--json", report],
    {
      cwd: root,
      stdio: ["ignore", "ignore", "inherit"],
    },
  );
  onTestFinished(() => void bench.kill("SIGTERM"));
  expect(await once(bench, "exit")).toEqual([0, null]);
  const results = JSON.parse(readFileSync(report, "utf8")) as Result[];
  expect(results.map(({ kind }) => kind)).toHaveLength(7);
  for (const { kind, served, wallSeconds, askedPerSecond, rounds, cpu, failures } of results) {
    expect({ kind, failures }).toEqual({ kind, failures: [] });
    expect(served, kind).toBeLessThanOrEqual(QUOTA + QUOTA * wallSeconds);
    if (!ALONE) continue;
    // Who is refused at a pace, and waits for it, cannot ask as often as it would like to; but it uses its quota up.
    expect(askedPerSecond).toBeGreaterThan(0.9 * QUOTA);
    const fair = rounds.filter(({ quietP99, besideP99 }) => besideP99 <= 2 * quietP99 + OUTLIERS_MS);
    expect({ kind, rounds, fair: fair.length }).toMatchObject({ kind, fair: expect.toSatisfy((n) => n >= 2) });
    if (cpu.quiet !== null && cpu.noise !== null) expect(cpu.noise - cpu.quiet).toBeLessThan(0.6);
  }
});
