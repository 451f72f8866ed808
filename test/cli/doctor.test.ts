// From facts to findings: each check on both sides of each of its thresholds.
import { readdirSync } from "node:fs";
import { v1 } from "@leasehold/client/wire";
import { describe, expect, test } from "vitest";
import { type Diagnosis, diagnosisOf, type Facts } from "../../src/cli/doctor/facts.js";
import { type Finding, findings } from "../../src/cli/doctor/findings.js";
import { version } from "../../src/server/version.js";
import { ServerProcess, temporaryFolder } from "../e2e/support.js";
import { leasehold } from "./support.js";

const NOW_MS = 1_800_000_000_000;
const DAY_MS = 86_400_000;

const well: Diagnosis = {
  loopLagMsP99: 2,
  loopLagMsMax: 9,
  commitMsP50: 0.3,
  commitMsP99: 2,
  commitMsMax: 12,
  limits: [{ limit: "limits.locksMax", used: 10, max: 1_000 }],
  certificates: [],
  storeFreeBytes: 50 * 2 ** 30,
  wallClockMs: NOW_MS,
  nodeVersion: "v24.1.0",
  authentication: true,
  encryption: true,
  openFiles: 40,
  openFilesMax: 65_536,
};

function facts(diagnosis: Partial<Diagnosis>, rest: Partial<Facts> = {}, status = {}): Facts {
  return {
    address: "127.0.0.1:7420",
    local: true,
    clientVersion: "1.2.3",
    status: new v1.StatusResponse({ version: "1.2.3", store: "level", serving: true, uptimeMs: 60_000, ...status }),
    diagnosis: { ...well, ...diagnosis },
    roundTripMs: 1,
    halfWayWallMs: NOW_MS,
    sync: null,
    ...rest,
  };
}

function finding(check: string, given: Facts): Finding | undefined {
  return findings(given).find((one) => one.check === check);
}

test("all is well", () => {
  const found = findings(facts({}));
  expect(found.filter(({ level }) => level !== "ok")).toEqual([]);
  expect(found.map(({ check }) => check)).toEqual([
    ...["serving", "round trip", "version", "commits", "disk space", "event loop", "limits", "open files"],
    ...["clock", "security", "node"],
  ]);
  for (const { found: text, means, todo } of found) expect([text !== "", means !== "", todo]).toEqual([true, true, ""]);
});

const limit = (used: number) => ({ limits: [{ limit: "limits.leasesMax", used, max: 1_000 }] });
const certificate = (leftMs: number) => ({
  certificates: [{ listener: "grpc", subject: "CN=locks", notAfterMs: NOW_MS + leftMs }],
});
const sync = (p50Ms: number, p99Ms: number) => ({ sync: { path: "/data", writes: 200, p50Ms, p99Ms } });
const skew = (skewed: number) => ({
  clockSkew: { measured: 3, skewed, warnMs: 500, clients: skewed ? [{ owner: "billing", offsetMs: 90_000 }] : [] },
});

describe.each<[check: string, cases: [level: Finding["level"], given: Facts, says: RegExp][]]>([
  [
    "serving",
    [["fail", facts({}, {}, { serving: false, notServingReason: "disk\u001b[2J full" }), /no: disk\\u\{1b\}/]],
  ],
  [
    "round trip",
    [
      ["ok", facts({}, { roundTripMs: 49 }), /49 ms/],
      ["warn", facts({}, { roundTripMs: 51 }), /51 ms/],
    ],
  ],
  [
    "version",
    [
      ["warn", facts({}, { clientVersion: "1.3.0" }), /the server is 1\.2\.3, this is 1\.3\.0/],
      ["fail", facts({}, { clientVersion: "2.0.0" }), /2\.0\.0/],
      ["fail", facts({}, { clientVersion: "0.2.0" }, { version: "0.1.0" }), /0\.1\.0/],
      ["warn", facts({}, { clientVersion: "0.1.1" }, { version: "0.1.0" }), /0\.1\.0/],
    ],
  ],
  ["store", [["warn", facts({}, {}, { store: "memory" }), /memory/]]],
  [
    "commits",
    [
      ["ok", facts({ commitMsP99: 49 }), /99% within 49 ms/],
      ["warn", facts({ commitMsP99: 51 }), /51 ms/],
      ["fail", facts({ commitMsP99: 501 }), /501 ms/],
    ],
  ],
  [
    "disk sync",
    [
      ["ok", facts({}, sync(0.3, 2)), /median 0\.30 ms.*200 writes in \/data/],
      ["warn", facts({}, sync(0.3, 60)), /60 ms/],
      ["fail", facts({}, sync(20, 600)), /600 ms/],
      ["warn", facts({}, sync(0.004, 0.01)), /0\.00 ms/],
    ],
  ],
  [
    "event loop",
    [
      ["ok", facts({ loopLagMsP99: 99, loopLagMsMax: 4_000 }), /longest 4000 ms/],
      ["warn", facts({ loopLagMsP99: 101 }), /101 ms/],
      ["fail", facts({ loopLagMsP99: 251 }), /251 ms/],
    ],
  ],
  [
    "limits",
    [
      ["ok", facts(limit(799)), /limits\.leasesMax is used most: 799 of 1000/],
      ["warn", facts(limit(800)), /800/],
      ["fail", facts(limit(950)), /950/],
    ],
  ],
  [
    "disk space",
    [
      ["warn", facts({ storeFreeBytes: 2 ** 30 - 1 }), /1024\.0 MiB/],
      ["fail", facts({ storeFreeBytes: 99 * 2 ** 20 }), /99\.0 MiB/],
    ],
  ],
  [
    "open files",
    [
      ["warn", facts({ openFiles: 60_000 }), /60000 of 65536/],
      ["fail", facts({ openFiles: 64_000 }), /64000/],
      ["warn", facts({ openFiles: 20, openFilesMax: 1_024 }), /20 of 1024/],
    ],
  ],
  [
    "clock",
    [
      ["ok", facts({ wallClockMs: NOW_MS + 499 }), /within/],
      ["warn", facts({ wallClockMs: NOW_MS + 90_000 }), /the server is 1m30s ahead of this machine/],
      ["warn", facts({ wallClockMs: NOW_MS - 3_600_000 }), /1h behind/],
      // What the round trip may explain is no finding.
      ["ok", facts({ wallClockMs: NOW_MS + 1_400 }, { roundTripMs: 2_000 }), /within/],
    ],
  ],
  [
    "clients' clocks",
    [
      ["ok", facts({}, {}, skew(0)), /0 of 3 clients off by more than 500ms/],
      ["warn", facts({}, {}, skew(1)), /1 of 3 clients/],
    ],
  ],
  [
    "security",
    [
      ["ok", facts({ encryption: false, authentication: false }), /no encryption, no authentication/],
      ["warn", facts({ encryption: false, authentication: false }, { local: false }), /no encryption, no auth/],
      ["warn", facts({ authentication: false }, { local: false }), /^no authentication$/],
      ["ok", facts({}, { local: false }), /encrypted/],
    ],
  ],
  [
    "node",
    [
      ["warn", facts({ nodeVersion: "v20.19.0" }), /v20/],
      ["ok", facts({ nodeVersion: "v22.0.0" }), /v22/],
    ],
  ],
  [
    "certificate (grpc)",
    [
      ["ok", facts(certificate(14 * DAY_MS + 1)), /CN=locks expires in 14d/],
      ["warn", facts(certificate(14 * DAY_MS - 1)), /expires in/],
      ["fail", facts(certificate(3 * DAY_MS - 1)), /expires in/],
      ["fail", facts(certificate(-DAY_MS)), /expired 1d ago/],
    ],
  ],
])("%s", (check, cases) => {
  test.each(cases)("%s", (level, given, says) => {
    const found = finding(check, given);
    expect([found?.level, found?.found]).toEqual([level, expect.stringMatching(says)]);
    expect(found?.todo === "").toBe(level === "ok");
  });
});

test("what is not known, or does not concern this server, is no line", () => {
  const unknown = { storeFreeBytes: 0, openFilesMax: 0, commitMsMax: 0, wallClockMs: 0, nodeVersion: "", limits: [] };
  const checks = findings(facts(unknown)).map(({ check }) => check);
  expect(checks).toEqual(["serving", "round trip", "version", "event loop", "security"]);
});

test("a message of an older server has no diagnosis; one with nothing set is complete", () => {
  expect(diagnosisOf(new v1.StatusResponse({}))).toBeNull();
  expect(diagnosisOf(new v1.StatusResponse({ diagnosis: {} }))).toMatchObject({ limits: [], commitMsMax: 0 });
});

describe("the command", () => {
  test("examines a real server and a real disk, leaves nothing behind, and exits 0", async () => {
    const folder = await temporaryFolder();
    const server = await ServerProcess.start(`level:${folder}/data`);
    const { code, stdout } = await leasehold(["doctor", "--addr", server.address, "--store", folder, "--json"]);
    expect(code).toBe(0);
    const report = JSON.parse(stdout) as { ok: boolean; findings: Finding[] };
    expect(report.ok).toBe(true);
    const found = Object.fromEntries(report.findings.map(({ check, found: text }) => [check, text]));
    expect(found.version).toBe(version);
    expect(found["disk sync"]).toMatch(/200 writes/);
    expect(found.serving).toMatch(/^yes/);
    expect(readdirSync(folder)).toEqual(["data"]);
  });

  test("a directory that cannot be written is a mistake; no server is unreachable", async () => {
    const server = await ServerProcess.start("memory:");
    const wrong = await leasehold(["doctor", "--addr", server.address, "--store", "/no/such/place"]);
    expect([wrong.code, wrong.stderr]).toEqual([64, 'cannot write in "/no/such/place" (ENOENT)\n']);
    expect((await leasehold(["doctor", "--addr", "127.0.0.1:1"])).code).toBe(69);
  });
});
