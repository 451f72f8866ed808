import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const script = fileURLToPath(new URL("../../examples/counter/counter.mjs", import.meta.url));

/** Runs the demonstration to its end. */
function demo(...args: string[]): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    const keep = (chunk: Buffer) => {
      output += chunk.toString();
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, output }));
  });
}

/** A line of the table by the headings of its columns. */
function row(output: string, phase: string): Record<string, string> {
  const cells = (line: string | undefined) => (line ?? "").trim().split(/ {2,}/);
  const lines = output.split("\n");
  const headings = cells(lines.find((line) => line.startsWith("phase")));
  const values = cells(lines.find((line) => line.startsWith(phase)));
  return Object.fromEntries(headings.map((heading, i) => [heading, values[i] ?? ""]));
}

const DEMO_MS_MAX = 120_000;
const QUICK = ["--processes", "4", "--increments", "24"];

describe("the counter that several processes increment", () => {
  it("loses increments without a lock and none with Leasehold, whatever is paused or killed", {
    timeout: DEMO_MS_MAX,
  }, async () => {
    const { code, output } = await demo(...QUICK);
    expect(code, output).toBe(0);

    const without = row(output, "without a lock");
    expect(without).toMatchObject({ processes: "4", wanted: "96", committed: "96" });
    expect(Number(without.lost)).toBeGreaterThan(0);
    expect(Number(without["final value"]) + Number(without.lost)).toBe(96);

    expect(row(output, "with Leasehold")).toMatchObject({
      wanted: "96",
      committed: "96",
      "final value": "96",
      lost: "0",
      "server restarts": "2",
      "holders killed": "1",
      "holders paused": "2",
    });
    expect(Number(row(output, "with Leasehold")["stale refused"])).toBeGreaterThanOrEqual(2);
  });

  it("fails when the database does not check the token", { timeout: DEMO_MS_MAX }, async () => {
    const { code, output } = await demo(...QUICK, "--without-fence");
    expect(code, output).toBe(1);
    expect(output).toMatch(/FAILED: with Leasehold [1-9]\d* increments were lost/);
    expect(output).toMatch(/FAILED: [1-9]\d* stale writes got through/);
    expect(output).toMatch(/FAILED: the late write with the token \d+ was not refused/);
  });
});
