import { statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { describe, expect, it } from "vitest";
import { defaultConfig } from "../../src/server/config/schema.js";
import { Diagnosis, type DiagnosisOptions } from "../../src/server/diagnosis/diagnosis.js";
import { limitUses } from "../../src/server/diagnosis/limit-uses.js";
import { Resources } from "../../src/server/diagnosis/resources.js";
import { RollingWindow } from "../../src/server/diagnosis/rolling-window.js";
import { counts } from "../rpc/support.js";

describe("a window of five minutes", () => {
  it("is empty at first", () => {
    expect(new RollingWindow().quantiles(1_000)).toEqual({ p50: 0, p99: 0, max: 0 });
  });

  it("tells quantiles that are at most a fifth too high, and the largest as it is", () => {
    const window = new RollingWindow();
    for (let i = 1; i <= 1_000; i++) window.observe(i / 10, 5_000);
    const { p50, p99, max } = window.quantiles(5_000);
    expect(p50).toBeGreaterThanOrEqual(50);
    expect(p50).toBeLessThanOrEqual(60);
    expect(p99).toBeGreaterThanOrEqual(99);
    expect(p99).toBeLessThanOrEqual(100);
    expect(max).toBe(100);
  });

  it.each([0, -1, 0.05, 0.06, 1, 50, 89_999, 1e9])(
    "never tells less than what was measured, nor a fifth more: %d",
    (ms) => {
      const window = new RollingWindow();
      window.observe(ms, 0);
      window.observe(1e10, 0); // so that the largest does not cap it
      const { p50 } = window.quantiles(0);
      expect(p50).toBeGreaterThanOrEqual(ms);
      if (ms > 0.05 && ms < 90_000) expect(p50).toBeLessThanOrEqual(ms * 1.2 + 1e-6);
    },
  );

  it("forgets what is older, and only that", () => {
    const window = new RollingWindow();
    window.observe(80, 4_000);
    window.observe(3, 250_000);
    expect(window.quantiles(299_999).max).toBe(80);
    expect(window.quantiles(300_000)).toEqual({ p50: 3, p99: 3, max: 3 });
    expect(window.quantiles(550_000)).toEqual({ p50: 0, p99: 0, max: 0 });
  });

  it("does not add what was measured to a slot of five minutes before", () => {
    const window = new RollingWindow();
    for (let i = 0; i < 100; i++) window.observe(80, 4_000);
    window.observe(2, 304_000);
    expect(window.quantiles(304_000)).toEqual({ p50: 2, p99: 2, max: 2 });
  });
});

describe("the resources", () => {
  it("are the free space of the store's disk, and this process's files", async () => {
    const resources = new Resources(tmpdir());
    expect(resources.latest).toEqual({});
    await resources.refresh();
    const { storeFreeBytes = 0, openFiles = 0, openFilesMax = 0 } = resources.latest;
    const { bavail, bsize } = statfsSync(tmpdir());
    expect(Math.abs(storeFreeBytes - bavail * bsize)).toBeLessThan(bavail * bsize * 0.2); // others write, too
    expect(openFiles).toBeGreaterThan(3);
    expect(openFilesMax).toBeGreaterThanOrEqual(openFiles);
  });

  it("are unknown where there is no disk, or where it cannot be asked", async () => {
    for (const directory of [undefined, "/nowhere/at/all"]) {
      const resources = new Resources(directory);
      await resources.refresh();
      expect(resources.latest.storeFreeBytes).toBeUndefined();
      expect(resources.latest.openFiles).toBeGreaterThan(0);
    }
  });

  it("are asked for once at a time", () => {
    const resources = new Resources(tmpdir());
    expect(resources.refresh()).toBe(resources.refresh());
  });
});

describe("the uses of limits", () => {
  const { limits } = defaultConfig();
  const uses = { streams: 11, calls: 12, watchers: 13, commandsInFlight: 14 };

  it("are of each bound of the whole server", () => {
    const all = limitUses(limits, { ...uses, counts: { ...counts, requestsRemembered: 9 } });
    expect(Object.fromEntries(all.map(({ limit, used }) => [limit, used]))).toEqual({
      "limits.leasesMax": 1,
      "limits.locksMax": 2,
      "limits.sessionsMax": 5,
      "limits.requestsRememberedMax": 9,
      "limits.streamsMax": 11,
      "limits.callsMax": 12,
      "limits.watchersMax": 13,
      "limits.commandsInFlightMax": 14,
    });
    for (const { limit, max } of all) expect(limits).toMatchObject({ [limit.slice("limits.".length)]: max });
  });

  it("leave out what is not known, and what is forbidden altogether", () => {
    const names = limitUses({ ...limits, watchersMax: 0 }, { ...uses, counts: null }).map(({ limit }) => limit);
    expect(names).toEqual(["limits.streamsMax", "limits.callsMax", "limits.commandsInFlightMax"]);
  });
});

describe("a diagnosis", () => {
  const create = (options: Partial<DiagnosisOptions> = {}) =>
    new Diagnosis({
      storeDirectory: undefined,
      limits: () => [],
      certificates: () => [],
      authentication: false,
      encryption: true,
      monotonicMs: () => 1_000,
      wallMs: () => 1_700_000_000_000,
      ...options,
    });

  it("keeps lag and commits apart, in milliseconds", () => {
    const diagnosis = create();
    diagnosis.lag(0.25);
    diagnosis.committed(0.002);
    const { loopLag, commit } = diagnosis.report();
    expect([loopLag.max, commit.max]).toEqual([250, 2]);
  });

  it("tells the limits that are used most first, and the rest as it is", () => {
    const a = { limit: "limits.a", used: 10, max: 100 };
    const b = { limit: "limits.b", used: 2, max: 4 };
    const certificate = { listener: "grpc", subject: "CN=a", notAfterMs: 5 } as const;
    expect(create({ limits: () => [a, b], certificates: () => [certificate] }).report()).toMatchObject({
      limits: [b, a],
      certificates: [certificate],
      wallClockMs: 1_700_000_000_000,
      nodeVersion: process.version,
      authentication: false,
      encryption: true,
    });
  });
});
