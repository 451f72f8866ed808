/** `leasehold doctor`: is the server well, and what is to be done if not. */
import type { Command } from "commander";
import { isLocal, parseEndpoint } from "../server/config/endpoint.js";
import { version } from "../server/version.js";
import { type Caller, type ConnectionOptions, connectionOptions, withServer } from "./common.js";
import { diagnosisOf, type Facts } from "./doctor/facts.js";
import { type Finding, findings, withoutDiagnosis } from "./doctor/findings.js";
import { probeSync } from "./doctor/sync-probe.js";
import { json, print } from "./output.js";
import { fetchStatus } from "./status.js";

/** The fastest of so many calls is closest to what the network takes. */
const CALLS = 5;

type DoctorOptions = ConnectionOptions & { store?: string };

export function registerDoctor(program: Command): void {
  const command = program
    .command("doctor")
    .description("examine a server: its disk, clock, loop, limits, certificates; and say what to do")
    .option("--store <directory>", "also try how fast this directory's disk makes writes durable");
  connectionOptions(command).action(async (options: DoctorOptions) => {
    const { json: asJson, store } = options;
    const sync = store === undefined ? null : await probeSync(store);
    const facts = await withServer(options, (server) => examine(server, sync));
    const found = facts.diagnosis ? findings(facts) : [...findings(facts), withoutDiagnosis];
    const failed = found.some(({ level }) => level === "fail");
    print(asJson ? json({ ok: !failed, address: facts.address, findings: found }) : found.map(lines).join(""));
    if (failed) process.exitCode = 1;
  });
}

async function examine(server: Caller, sync: Facts["sync"]): Promise<Facts> {
  let best: { readonly status: Facts["status"]; readonly roundTripMs: number; readonly wallMs: number } | undefined;
  for (let i = 0; i < CALLS; i++) {
    const wallMs = Date.now();
    const startMs = performance.now();
    const status = await fetchStatus(server);
    const roundTripMs = performance.now() - startMs;
    if (best === undefined || roundTripMs < best.roundTripMs) best = { status, roundTripMs, wallMs };
  }
  if (best === undefined) throw new Error("not one call was made");
  const { status, roundTripMs } = best;
  const endpoint = parseEndpoint(server.address);
  return {
    address: server.address,
    local: endpoint !== undefined && isLocal(endpoint),
    clientVersion: version,
    status,
    diagnosis: diagnosisOf(status),
    roundTripMs,
    halfWayWallMs: best.wallMs + roundTripMs / 2,
    sync,
  };
}

const MARKS = { ok: "ok  ", warn: "warn", fail: "FAIL" } as const;

function lines({ level, check, found, means, todo }: Finding): string {
  const indent = " ".repeat(6);
  const head = `${MARKS[level]}  ${check}: ${found}\n${indent}${means}\n`;
  return todo === "" ? head : `${head}${indent}-> ${todo}\n`;
}
