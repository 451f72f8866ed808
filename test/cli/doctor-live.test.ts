// `leasehold doctor` against real servers that are not well.
import { join } from "node:path";
import { connect } from "@leasehold/client";
import { encode, v1 } from "@leasehold/client/wire";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Finding } from "../../src/cli/doctor/findings.js";
import { defaultConfig } from "../../src/server/config/schema.js";
import { LevelJournal } from "../../src/server/journal/level.js";
import { startServer } from "../../src/server/server.js";
import { FakeClock } from "../e2e/faketime.js";
import { ServerProcess, temporaryFolder } from "../e2e/support.js";
import { SlowJournal } from "../observability/support.js";
import { certificateAuthority } from "../services/certificates.mjs";
import { describeWithServices } from "../services/vitest.js";
import { fakeServer, leasehold } from "./support.js";

const DAY_MS = 86_400_000;

interface Report {
  readonly code: number | null;
  readonly ok: boolean;
  /** By check. */
  readonly found: Readonly<Record<string, Finding>>;
}

async function doctor(...args: string[]): Promise<Report> {
  const { code, stdout, stderr } = await leasehold(["doctor", "--json", ...args]);
  if (stdout === "") throw new Error(stderr);
  const { ok, findings } = JSON.parse(stdout) as { ok: boolean; findings: Finding[] };
  return { code, ok, found: Object.fromEntries(findings.map((one) => [one.check, one])) };
}

/** The exit code goes with it. */
function expectLevel({ code, ok, found }: Report, check: string, level: Finding["level"], says: RegExp): void {
  expect(found[check]).toMatchObject({ level, found: expect.stringMatching(says) });
  expect(found[check]?.todo).not.toBe("");
  expect({ code, ok }).toEqual(level === "fail" ? { code: 1, ok: false } : { code: 0, ok: true });
}

test.each([
  [80, "warn"],
  [550, "fail"],
] as const)("a disk that takes %i ms to make a grant durable: %s", async (delayMs, level) => {
  const store = join(await temporaryFolder(), "store");
  const config = defaultConfig({ listen: "127.0.0.1:0", opsListen: "none", store: `level:${store}` });
  const server = await startServer(config, {
    openJournal: (observer) => {
      const journal = new SlowJournal(new LevelJournal(store, { observer }));
      journal.delayMs = delayMs;
      return journal;
    },
  });
  onTestFinished(() => server.stop());
  const client = await connect(server.address);
  await client.acquire("orders/42");
  await client.close();
  expectLevel(await doctor("--addr", server.address), "commits", level, /99% within \d+ ms/);
});

test("a limit that is nearly used up, and one that is", async () => {
  const folder = await temporaryFolder();
  const server = await ServerProcess.start(`level:${folder}/data`, "--limits-locks-max", "20");
  const client = await connect(server.address);
  onTestFinished(() => client.close());
  const take = (from: number, to: number) =>
    Promise.all(Array.from({ length: to - from }, (_, i) => client.acquire(`orders/${from + i}`)));
  await take(0, 16);
  expectLevel(await doctor("--addr", server.address), "limits", "warn", /^limits\.locksMax is used most: 16 of 20$/);
  await take(16, 19);
  expectLevel(await doctor("--addr", server.address), "limits", "fail", /^limits\.locksMax is used most: 19 of 20$/);
});

test.each([
  [10, "warn", /expires in (10d|9d23h)/],
  [2, "fail", /expires in (2d|1d23h)/],
] as const)("a certificate that is good for %i days: %s, once for each port", async (days, level, says) => {
  const ca = await certificateAuthority();
  const notAfter = new Date(Date.now() + days * DAY_MS);
  const { certFile, keyFile } = await ca.issue("locks", { san: ["DNS:localhost"], notAfter });
  const folder = await temporaryFolder();
  const tls = ["--tls-cert", certFile, "--tls-key", keyFile];
  const server = await ServerProcess.start(`level:${folder}/data`, ...tls);
  const port = server.address.split(":").at(-1);
  const report = await doctor("--addr", `localhost:${port}`, "--ca", ca.certFile);
  for (const listener of ["grpc", "ops"]) expectLevel(report, `certificate (${listener})`, level, says);
  expect(report.found.security?.found).toBe("no authentication");
});

test("a server of another version, which tells nothing of itself", async () => {
  const status = new v1.StatusResponse({
    version: "99.0.0",
    store: "level",
    serving: false,
    notServingReason: "halted",
  });
  const server = await fakeServer({
    "/leasehold.v1.AdminService/Status": () => Buffer.from(encode(v1.StatusResponse, status)),
  });
  onTestFinished(() => server.stop());
  const report = await doctor("--addr", server.address);
  expectLevel(report, "version", "fail", /the server is 99\.0\.0/);
  expectLevel(report, "serving", "fail", /no: halted/);
  expect(report.found.diagnosis).toMatchObject({ level: "warn" });
});

describeWithServices("the clock of a server", ["faketime"], () => {
  test.each([
    [90_000, /the server is 1m30s ahead of this machine/],
    [-3_600_000, /the server is 1h behind this machine/],
  ])("is off by %i ms", async (aheadMs, says) => {
    const clock = await FakeClock.ahead(aheadMs);
    const folder = await temporaryFolder();
    const server = await ServerProcess.startIn(clock.env, `level:${folder}/data`);
    expectLevel(await doctor("--addr", server.address), "clock", "warn", says);
  });
});

describe("the text", () => {
  test("marks what fails, says what it means and what to do, and what is well without advice", async () => {
    const folder = await temporaryFolder();
    const server = await ServerProcess.start(`level:${folder}/data`, "--limits-locks-max", "20");
    const client = await connect(server.address);
    onTestFinished(() => client.close());
    await Promise.all(Array.from({ length: 20 }, (_, i) => client.acquire(`orders/${i}`)));
    const { code, stdout } = await leasehold(["doctor", "--addr", server.address]);
    expect(code).toBe(1);
    expect(stdout).toMatch(
      /^ok {4}serving: yes, for .*\n {6}locks are granted, and leases renewed\nok {4}round trip: /,
    );
    expect(stdout).toMatch(
      /^FAIL {2}limits: limits\.locksMax is used most: 20 of 20\n {6}what is beyond a limit .*\n {6}-> find out who uses/m,
    );
  });
});
