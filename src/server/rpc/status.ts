/** AdminService.Status: what the core counts, together with what the rest of the server knows. */
import type { leasehold } from "@leasehold/client/wire";
import type { Counts } from "../core/types.js";
import type { DiagnosisReport } from "../diagnosis/diagnosis.js";
import type { ClientClock, ClockSkewReport } from "../skew/report.js";

/** What the composition root knows beside the core. */
export interface ServerStatus {
  readonly version: string;
  readonly clusterId: string;
  /** "level" or "memory". */
  readonly store: string;
  /** "" when the server serves; else why it does not. */
  readonly notServingReason: string;
  readonly uptimeMs: number;
  readonly commandsInFlight: number;
  readonly journalLogBytes: number;
  readonly journalCheckpointLagRecords: number;
  readonly clockSkew: ClockSkewReport;
  readonly diagnosis: DiagnosisReport;
}

export function statusBody(server: ServerStatus, counts: Counts): leasehold.v1.StatusResponse.$Properties {
  const { halted, ...numbers } = counts;
  return { ...serverBody(server, server.notServingReason || halted), ...numbers };
}

/** The core cannot answer, so the counts are left out. */
export function statusWithoutCore(server: ServerStatus, why: string): leasehold.v1.StatusResponse.$Properties {
  return serverBody(server, server.notServingReason || why);
}

function serverBody(server: ServerStatus, notServingReason: string): leasehold.v1.StatusResponse.$Properties {
  return {
    version: server.version,
    clusterId: server.clusterId,
    store: server.store,
    serving: notServingReason === "",
    notServingReason,
    uptimeMs: whole(server.uptimeMs),
    commandsInFlight: whole(server.commandsInFlight),
    journalLogBytes: whole(server.journalLogBytes),
    journalCheckpointLagRecords: whole(server.journalCheckpointLagRecords),
    clockSkew: clockSkewBody(server.clockSkew),
    diagnosis: diagnosisBody(server.diagnosis),
  };
}

function clockSkewBody(report: ClockSkewReport): leasehold.v1.ClockSkew.$Properties {
  const { measured, skewed, warnMs, clients, serverAheadMs } = report;
  return { measured, skewed, warnMs, clients: clients.map(clockBody), serverAheadMs: signed(serverAheadMs) };
}

function diagnosisBody(report: DiagnosisReport): leasehold.v1.Diagnosis.$Properties {
  const { loopLag, commit, limits, certificates, storeFreeBytes = 0, openFiles = 0, openFilesMax = 0 } = report;
  return {
    loopLagMsP50: loopLag.p50,
    loopLagMsP99: loopLag.p99,
    loopLagMsMax: loopLag.max,
    commitMsP50: commit.p50,
    commitMsP99: commit.p99,
    commitMsMax: commit.max,
    limits: limits.map(({ limit, used, max }) => ({ limit, used: whole(used), max: whole(max) })),
    certificates: certificates.map((one) => ({ ...one, notAfterMs: whole(one.notAfterMs) })),
    storeFreeBytes: whole(storeFreeBytes),
    wallClockMs: whole(report.wallClockMs),
    nodeVersion: report.nodeVersion,
    authentication: report.authentication,
    encryption: report.encryption,
    openFiles: whole(openFiles),
    openFilesMax: whole(openFilesMax),
  };
}

function clockBody(clock: ClientClock): leasehold.v1.ClientClock.$Properties {
  const { owner, client, leaseDisplayId, offsetMs, errorMs, agoMs } = clock;
  return {
    owner,
    client,
    leaseDisplayId,
    offsetMs: signed(offsetMs),
    errorMs: Number.isFinite(errorMs) ? Math.ceil(errorMs + 0.5) : 0, // the offset is rounded
    measuredAgoMs: whole(agoMs),
  };
}

/** What a signed integer can hold on the wire here, see `sint64` in the codec. */
const SIGNED_MAX = 2 ** 52 - 1;

/** A clock may claim any time at all. */
function signed(value: number): number {
  return Math.round(Math.min(Math.max(value, -SIGNED_MAX), SIGNED_MAX));
}

/** The encoder writes a fraction or a negative number as something else, silently. */
function whole(value: number): number {
  return Number.isFinite(value) && value > 0 ? Math.floor(value) : 0;
}
