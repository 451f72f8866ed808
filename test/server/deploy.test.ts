import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { options } from "../../src/server/config/catalog.js";
import { loadConfig } from "../../src/server/config/load.js";
import { defaultConfig } from "../../src/server/config/schema.js";
import { parseDurationMs } from "../../src/server/config/units.js";

const read = (path: string) => readFileSync(fileURLToPath(new URL(`../../deploy/${path}`, import.meta.url)), "utf8");

describe("the systemd unit", () => {
  const unit = read("systemd/leasehold.service");
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, "m").exec(unit)?.[1];

  it("gives the server the time to drain, and does not restart a wrong configuration", () => {
    expect(value("Type")).toBe("exec");
    expect(value("KillSignal")).toBe("SIGTERM");
    expect(parseDurationMs(value("TimeoutStopSec"))).toBeGreaterThan(defaultConfig().drainMsMax + 2_000);
    expect(value("RestartPreventExitStatus")?.split(" ")).toContain("78");
    expect(value("StateDirectory")).toBe("leasehold");
    expect(value("MemoryDenyWriteExecute")).toBeUndefined(); // V8 would not start
  });

  it("sets options that exist", () => {
    const set = [...unit.matchAll(/^Environment=(LEASEHOLD_\w+)=(.*)$/gm)].map(([, name = "", text = ""]) => [
      name,
      text,
    ]);
    expect(set).not.toEqual([]);
    expect(loadConfig({ env: Object.fromEntries(set) })).toMatchObject({ ok: true, warnings: [] });
  });

  const present = spawnSync("systemd-analyze", ["--version"]).status === 0;
  it(`pleases systemd-analyze${present ? "" : " (not installed: not asked)"}`, (context) => {
    if (!present) return context.skip("systemd-analyze is not on the PATH");
    const folder = mkdtempSync(join(tmpdir(), "leasehold-unit-"));
    const path = join(folder, "leasehold.service");
    writeFileSync(path, unit.replace("/usr/bin/leasehold", process.execPath)); // which is there, as the other need not be
    const verified = spawnSync("systemd-analyze", ["verify", "--man=no", path], { encoding: "utf8" });
    rmSync(folder, { recursive: true });
    expect({ status: verified.status, stderr: verified.stderr }).toEqual({ status: 0, stderr: "" });
  });
});

describe("the container image", () => {
  const dockerfile = read("docker/Dockerfile");

  const code = dockerfile.replace(/^#.*$/gm, "");
  const set = Object.fromEntries(
    [...code.matchAll(/(LEASEHOLD_\w+)=(\S+)/g)].map(([, name = "", text = ""]) => [name, text]),
  );

  it("does not serve in the clear before somebody has said so", () => {
    const result = loadConfig({ env: set });
    expect(result.ok ? [] : result.problems).toEqual([expect.stringContaining("LEASEHOLD_INSECURE=1")]);
  });

  it("sets a configuration that is valid, and keeps its data on the volume", () => {
    const known = options.map((option) => option.variable);
    for (const name of Object.keys(set)) expect(known).toContain(name);
    const result = loadConfig({ env: { ...set, LEASEHOLD_INSECURE: "1" } });
    if (!result.ok) throw new Error(result.problems.join("\n"));
    const volume = /^VOLUME (\S+)$/m.exec(dockerfile)?.[1];
    expect(volume).toBeDefined();
    expect(result.config.store.startsWith(`level:${volume}/`)).toBe(true);
    expect(dockerfile).toContain(`http://127.0.0.1:${result.config.opsListen.split(":").at(-1)}/healthz`);
  });

  it("does not run as root", () => {
    expect(/^USER (\d+):(\d+)$/m.exec(dockerfile)?.[1]).not.toBe("0");
    expect(dockerfile.lastIndexOf("\nUSER ")).toBeGreaterThan(dockerfile.lastIndexOf("\nFROM "));
  });
});
