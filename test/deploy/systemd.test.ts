// The units: what they say, and what systemd thinks of them.
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { defaultConfig } from "../../src/server/config/schema.js";
import { parseDurationMs } from "../../src/server/config/units.js";
import { leasehold } from "../cli/support.js";
import { temporaryFolder } from "../e2e/support.js";
import { configOf, deployFile, present } from "./support.js";

const units = ["leasehold.service", "leasehold-sidecar@.service"];
/** Of 10; what is left is that it uses the network and compiles JavaScript. */
const EXPOSURE_MAX = 1.5;

const values = (unit: string, key: string) =>
  [...deployFile(`systemd/${unit}`).matchAll(new RegExp(`^${key}=(.*)$`, "gm"))].map(([, value = ""]) => value);

describe.each(units)("the unit %s", (unit) => {
  it("gives its process the time to end well, and does not restart a wrong configuration", () => {
    expect(values(unit, "Type")).toEqual(["exec"]);
    expect(values(unit, "KillSignal")).toEqual(["SIGTERM"]);
    expect(parseDurationMs(values(unit, "TimeoutStopSec")[0])).toBeGreaterThan(defaultConfig().drainMsMax + 2_000);
    expect(values(unit, "RestartPreventExitStatus")[0]?.split(" ")).toContain("78");
    expect(values(unit, "MemoryDenyWriteExecute")).toEqual([]); // V8 would not start
  });

  /** In a folder of its own, with a program that is there, as ours need not be. */
  async function installed(): Promise<string> {
    const path = join(await temporaryFolder(), unit);
    writeFileSync(path, deployFile(`systemd/${unit}`).replace("/usr/bin/leasehold", process.execPath));
    return path;
  }

  const there = present("systemd-analyze");
  it.skipIf(!there)(`pleases systemd-analyze${there ? "" : " (not installed: not asked)"}`, async () => {
    const verified = spawnSync("systemd-analyze", ["verify", "--man=no", await installed()], { encoding: "utf8" });
    expect({ status: verified.status, stderr: verified.stderr }).toEqual({ status: 0, stderr: "" });
  });

  it.skipIf(!there)(`exposes little${there ? "" : " (systemd-analyze is not installed: not asked)"}`, async () => {
    const args = ["security", "--offline=true", "--no-pager", await installed()];
    const { stdout } = spawnSync("systemd-analyze", args, { encoding: "utf8" });
    const exposure = Number(/Overall exposure level for .*: ([\d.]+)/.exec(stdout)?.[1]);
    expect(exposure, stdout).toBeLessThan(EXPOSURE_MAX);
  });
});

it("the server's unit sets options that exist, and keeps its data where systemd lets it write", () => {
  const unit = "leasehold.service";
  const set = values(unit, "Environment").map((text) => text.split("=") as [string, string]);
  expect(set).not.toEqual([]);
  const config = configOf(Object.fromEntries(set));
  expect(config.store).toMatch(new RegExp(`^level:/var/lib/${values(unit, "StateDirectory")[0]}/`));
  expect(values(unit, "LogsDirectory")).toEqual(["leasehold"]);
});

it("the sidecar's unit uses flags that there are", async () => {
  const [command = ""] = values("leasehold-sidecar@.service", "ExecStart");
  const { stdout } = await leasehold(["sidecar", "--help"]);
  const flags = command.match(/--[\w-]+/g) ?? [];
  expect(flags).toEqual(["--listen", "--owner"]);
  for (const flag of flags) expect(stdout).toContain(`${flag} <`);
});
