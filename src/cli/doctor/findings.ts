/**
 * From facts to findings: what is well, what is not, what that means and what to do. The thresholds are those of the alerts in
 * `deploy/prometheus` where there is one.
 */
import { clockSkewOf } from "../clock-view.js";
import { duration, plain, plural, size } from "../output.js";
import type { Certificate, Facts } from "./facts.js";

export interface Finding {
  readonly check: string;
  readonly level: "ok" | "warn" | "fail";
  /** What was found. */
  readonly found: string;
  readonly means: string;
  /** "": nothing. */
  readonly todo: string;
}

/** Absent: not known, or it does not concern this server. */
type Check = (facts: Facts) => Finding | undefined;

const LAG_WARN_MS = 100;
const LAG_FAIL_MS = 250;
const COMMIT_WARN_MS = 50;
const COMMIT_FAIL_MS = 500;
/** No disk makes anything durable in less; memory does. */
const SYNC_TOO_FAST_MS = 0.02;
const ROUND_TRIP_WARN_MS = 50;
const CLOCK_WARN_MS = 500;
const USED_WARN = 0.8;
const USED_FAIL = 0.95;
const FREE_WARN_BYTES = 2 ** 30;
const FREE_FAIL_BYTES = 100 * 2 ** 20;
const FILES_WARN = 4_096;
const DAY_MS = 86_400_000;
const CERTIFICATE_WARN_MS = 14 * DAY_MS;
const CERTIFICATE_FAIL_MS = 3 * DAY_MS;
const NODE_SUPPORTED = 22;

const ms = (value: number) => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;

export function findings(facts: Facts): Finding[] {
  const found = CHECKS.map((check) => check(facts)).filter((finding) => finding !== undefined);
  return [...found, ...certificates(facts)];
}

const level = (value: number, warn: number, fail: number) => (value >= fail ? "fail" : value >= warn ? "warn" : "ok");

const serving: Check = ({ status }) => {
  const { serving, notServingReason, uptimeMs } = status;
  const means = "locks are granted, and leases renewed";
  if (serving) return { check: "serving", level: "ok", found: `yes, for ${duration(uptimeMs)}`, means, todo: "" };
  return {
    check: "serving",
    level: "fail",
    found: `no: ${plain(notServingReason)}`,
    means: "nobody gets a lock; those who hold one keep it for its TTL",
    todo: "look at the server's log, then at docs/operating.md",
  };
};

const roundTrip: Check = ({ roundTripMs, address }) => ({
  check: "round trip",
  level: level(roundTripMs, ROUND_TRIP_WARN_MS, Number.POSITIVE_INFINITY),
  found: `${ms(roundTripMs)} to ${address}`,
  means: "an acquire takes at least this and a write to the server's disk",
  todo:
    roundTripMs < ROUND_TRIP_WARN_MS ? "" : "put the server nearer to its clients, or look for what slows the network",
});

const versions: Check = ({ clientVersion, status }) => {
  const server = plain(status.version);
  const same = server === clientVersion;
  const means = "server and command line understand each other fully";
  if (same) return { check: "version", level: "ok", found: server, means, todo: "" };
  const [major, minor] = clientVersion.split(".");
  const [serverMajor, serverMinor] = server.split(".");
  const compatible = major === serverMajor && (major !== "0" || minor === serverMinor);
  return {
    check: "version",
    level: compatible ? "warn" : "fail",
    found: `the server is ${server}, this is ${clientVersion}`,
    means: compatible ? "what is newer in one of them, the other lacks" : "they may not understand each other",
    todo: "upgrade the older one; the server first",
  };
};

const store: Check = ({ status }) => {
  if (status.store !== "memory") return undefined;
  return {
    check: "store",
    level: "warn",
    found: "memory",
    means: "a restart forgets every lock, and tokens start again from 1: storages that fence will refuse everybody",
    todo: "use level:DIRECTORY for anything that matters",
  };
};

const commits: Check = ({ diagnosis }) => {
  if (!diagnosis || diagnosis.commitMsMax === 0) return undefined;
  const { commitMsP50, commitMsP99, commitMsMax } = diagnosis;
  const grade = level(commitMsP99, COMMIT_WARN_MS, COMMIT_FAIL_MS);
  return {
    check: "commits",
    level: grade,
    found: `median ${ms(commitMsP50)}, 99% within ${ms(commitMsP99)}, longest ${ms(commitMsMax)} (five minutes)`,
    means: "every grant waits for a write to be durable",
    todo:
      grade === "ok"
        ? ""
        : "look at the disk: other writers, its health, network storage; leasehold doctor --store DIR",
  };
};

const probe: Check = ({ sync }) => {
  if (sync === null) return undefined;
  const { p50Ms, p99Ms } = sync;
  const found = `median ${ms(p50Ms)}, 99% within ${ms(p99Ms)}, ${sync.writes} writes in ${plain(sync.path)}`;
  if (p50Ms < SYNC_TOO_FAST_MS) return tooFast(found);
  const grade = level(p99Ms, COMMIT_WARN_MS, COMMIT_FAIL_MS);
  return {
    check: "disk sync",
    level: grade,
    found,
    means: "how fast this disk can make grants durable",
    todo: grade === "ok" ? "" : "use a local SSD, or one whose cache survives a power failure",
  };
};

const tooFast = (found: string): Finding => ({
  check: "disk sync",
  level: "warn",
  found,
  means: "no disk is that fast: this is memory, or something that says it is durable and is not",
  todo: "put the store on a real disk; after a power failure tokens might be given out twice",
});

const loop: Check = ({ diagnosis }) => {
  if (!diagnosis) return undefined;
  const { loopLagMsP99, loopLagMsMax } = diagnosis;
  const grade = level(loopLagMsP99, LAG_WARN_MS, LAG_FAIL_MS);
  return {
    check: "event loop",
    level: grade,
    found: `99% within ${ms(loopLagMsP99)}, longest ${ms(loopLagMsMax)} (five minutes)`,
    means: "by how much the server was late to answer anything; it expires nothing while it is",
    todo: grade === "ok" ? "" : "give it a CPU of its own; look at leasehold top and at its number of commands",
  };
};

const clock: Check = ({ diagnosis, halfWayWallMs, roundTripMs }) => {
  const serverMs = diagnosis?.wallClockMs ?? 0;
  if (serverMs === 0) return undefined;
  const offsetMs = serverMs - halfWayWallMs;
  const certainMs = Math.max(0, Math.abs(offsetMs) - roundTripMs / 2);
  const wrong = certainMs > CLOCK_WARN_MS;
  const direction = offsetMs > 0 ? "ahead of" : "behind";
  const by = duration(Math.abs(offsetMs));
  return {
    check: "clock",
    level: wrong ? "warn" : "ok",
    found: wrong ? `the server is ${by} ${direction} this machine` : `within ${ms(certainMs)} of this machine`,
    means: wrong ? "no lock depends on it; times in logs, audits and token expiries do" : "logs can be compared",
    todo: wrong ? "look at the time service (chrony, systemd-timesyncd) on both" : "",
  };
};

const clientClocks: Check = ({ status }) => {
  const skew = clockSkewOf(status);
  if (skew === null || skew.measured === 0) return undefined;
  const { measured, skewed, warnMs, clients } = skew;
  const worst = plain(clients[0]?.owner ?? "");
  return {
    check: "clients' clocks",
    level: skewed > 0 ? "warn" : "ok",
    found: `${skewed} of ${plural(measured, "client")} off by more than ${duration(warnMs)}`,
    means: "no lock depends on it; what they write into logs and records does",
    todo: skewed > 0 ? `leasehold status names them${worst ? `, first ${worst}` : ""}` : "",
  };
};

const limits: Check = ({ diagnosis }) => {
  const [most] = diagnosis?.limits ?? [];
  if (!most) return undefined;
  const share = most.max > 0 ? most.used / most.max : 0;
  const grade = level(share, USED_WARN, USED_FAIL);
  return {
    check: "limits",
    level: grade,
    found: `${plain(most.limit)} is used most: ${most.used} of ${most.max}`,
    means: "what is beyond a limit is refused with LIMIT",
    todo: grade === "ok" ? "" : "find out who uses that much (leasehold top, metrics), or raise the limit",
  };
};

const space: Check = ({ diagnosis }) => {
  const bytes = diagnosis?.storeFreeBytes ?? 0;
  if (bytes === 0) return undefined;
  const grade = bytes < FREE_FAIL_BYTES ? "fail" : bytes < FREE_WARN_BYTES ? "warn" : "ok";
  return {
    check: "disk space",
    level: grade,
    found: `${size(bytes)} free where the store is`,
    means: "a full disk stops all grants until there is space again",
    todo: grade === "ok" ? "" : "free some, or move the store to a larger disk",
  };
};

const files: Check = ({ diagnosis }) => {
  const max = diagnosis?.openFilesMax ?? 0;
  if (max === 0) return undefined;
  const used = diagnosis?.openFiles ?? 0;
  const grade = level(used / max, USED_WARN, USED_FAIL);
  const few = grade === "ok" && max < FILES_WARN;
  return {
    check: "open files",
    level: few ? "warn" : grade,
    found: `${used} of ${max}`,
    means: "each client needs one; beyond that, connections are refused",
    todo: few || grade !== "ok" ? "raise the limit (ulimit -n, LimitNOFILE=)" : "",
  };
};

const security: Check = ({ local, diagnosis }) => {
  if (!diagnosis) return undefined;
  const { authentication, encryption } = diagnosis;
  const lacking = [encryption ? "" : "no encryption", authentication ? "" : "no authentication"].filter(Boolean);
  const exposed = lacking.length > 0 && !local;
  return {
    check: "security",
    level: exposed ? "warn" : "ok",
    found: lacking.length === 0 ? "encrypted, callers are known" : lacking.join(", "),
    means: exposed
      ? "whoever reaches the port can read, take or release locks"
      : lacking.length === 0
        ? "who may do what is up to the policy"
        : "as it should be only where nobody else can reach it; from here it is this machine",
    todo: exposed ? "see docs/security.md" : "",
  };
};

const node: Check = ({ diagnosis }) => {
  const version = plain(diagnosis?.nodeVersion ?? "");
  if (version === "") return undefined;
  const old = Number(/^v(\d+)/.exec(version)?.[1] ?? 0) < NODE_SUPPORTED;
  return {
    check: "node",
    level: old ? "warn" : "ok",
    found: version,
    means: old ? "its maintenance has ended: it gets no security fixes" : "it is maintained",
    todo: old ? "run the server with Node 24" : "",
  };
};

function certificates({ diagnosis }: Facts): Finding[] {
  if (!diagnosis) return [];
  return diagnosis.certificates.map((certificate) => certificateFinding(certificate, diagnosis.wallClockMs));
}

function certificateFinding(certificate: Certificate, nowMs: number): Finding {
  const leftMs = certificate.notAfterMs - nowMs;
  const grade = leftMs < CERTIFICATE_FAIL_MS ? "fail" : leftMs < CERTIFICATE_WARN_MS ? "warn" : "ok";
  const when = leftMs > 0 ? `expires in ${duration(leftMs)}` : `expired ${duration(-leftMs)} ago`;
  return {
    check: `certificate (${plain(certificate.listener)})`,
    level: grade,
    found: `${plain(certificate.subject)} ${when}`,
    means: "clients refuse a server whose certificate has expired",
    todo: grade === "ok" ? "" : "replace the files; the server reads them again by itself",
  };
}

const CHECKS: readonly Check[] = [
  ...[serving, roundTrip, versions, store, commits, probe, space, loop, limits, files],
  ...[clock, clientClocks, security, node],
];

/** For what the server does not tell: it is older than this command line. */
export const withoutDiagnosis: Finding = {
  check: "diagnosis",
  level: "warn",
  found: "the server tells nothing of its disk, its loop and its limits",
  means: "it is older than this command line",
  todo: "upgrade it",
};
