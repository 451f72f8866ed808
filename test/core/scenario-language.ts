/** The words of a scenario: how a line of text becomes a request of the core, and a reply a line of text. */
import type {
  CoreEvent,
  HolderSpec,
  HolderView,
  LeaseView,
  LockView,
  Outcome,
  Reply,
  Request,
} from "../../src/server/core/types.js";

/** A line, split: words, `key=value` options and bare flags. */
export interface Line {
  readonly words: readonly string[];
  readonly options: ReadonlyMap<string, string>;
}

export function parseLine(text: string): Line {
  const words: string[] = [];
  const options = new Map<string, string>();
  for (const part of text.trim().split(/\s+/)) {
    const at = part.indexOf("=");
    if (at > 0) options.set(part.slice(0, at), part.slice(at + 1));
    else words.push(part);
  }
  return { words, options };
}

export const numberOf = (line: Line, key: string, fallback: number): number =>
  Number(line.options.get(key) ?? fallback);

export const numbersOf = (line: Line, key: string): number[] =>
  (line.options.get(key) ?? "").split(",").filter(Boolean).map(Number);

/** What was fresh when the line was read: ids are numbered. */
export interface Fresh {
  id(): string;
  wallMs: number;
}

/** `create L1 ttl=1000`, `acquire a own=1000 wait=500 req=r1`, `release a 3`, ... */
export function parseRequest(line: Line, onSession: boolean, fresh: Fresh): Request {
  const { words, options } = line;
  const [verb = "", first = "", second = ""] = words;
  const { wallMs } = fresh;
  const owner = options.get("owner") ?? "";
  const metadata = options.get("meta") ?? "";
  switch (verb) {
    case "create":
      return {
        kind: "createLease",
        leaseId: first || fresh.id(),
        ttlMs: numberOf(line, "ttl", 10_000),
        owner,
        metadata,
      };
    case "renew":
      return { kind: "renewLease", leaseId: first };
    case "revoke":
      return {
        kind: "revokeLease",
        lease: onSession ? { kind: "session", seq: Number(first) } : { kind: "lease", leaseId: first },
      };
    case "get":
      return { kind: "getLease", leaseId: first };
    case "leases":
      return { kind: "listLeases", after: options.get("after") ?? "", limit: numberOf(line, "limit", 100) };
    case "acquire":
      return {
        kind: "acquire",
        name: first,
        holder: parseHolder(line, onSession, fresh),
        waitMs: numberOf(line, "wait", 0),
        pollMs: numberOf(line, "poll", 1_000),
        requestId: options.get("req") ?? "",
        owner,
        metadata,
        wallMs,
      };
    case "cancel":
      if (onSession) return { kind: "cancelAcquire", target: { kind: "session", seq: Number(first) } };
      return {
        kind: "cancelAcquire",
        target: { kind: "request", requestId: first, leaseId: options.get("lease") ?? "" },
      };
    case "release":
      return { kind: "release", name: first, token: Number(second) };
    case "validate":
      return { kind: "validate", name: first, token: Number(second) };
    case "describe":
      return { kind: "describeLock", name: first, waitersMax: numberOf(line, "max", 100), wallMs };
    case "list":
      return {
        kind: "listLocks",
        prefix: options.get("prefix") ?? "",
        after: options.get("after") ?? "",
        limit: numberOf(line, "limit", 100),
        wallMs,
      };
    case "tick":
      return { kind: "tick", observed: numberOf(line, "observed", 0), count: numberOf(line, "count", 1) };
    case "status":
      return { kind: "status" };
    default:
      throw new Error(`no such request: ${words.join(" ")}`);
  }
}

function parseHolder(line: Line, onSession: boolean, fresh: Fresh): HolderSpec {
  const lease = line.options.get("lease");
  if (lease === undefined) return { kind: "own", leaseId: fresh.id(), ttlMs: numberOf(line, "own", 10_000) };
  return onSession && /^\d+$/.test(lease) ? { kind: "session", seq: Number(lease) } : { kind: "lease", leaseId: lease };
}

export function printReply(reply: Reply, nameOf: (reply: Reply) => string): string {
  const to = nameOf(reply);
  switch (reply.kind) {
    case "outcome": {
      const ahead = reply.clockAheadBy > 0 ? ` (clock ahead by ${reply.clockAheadBy})` : "";
      return `${to}${reply.seq > 0 ? ` ${reply.seq}` : ""}: ${printOutcome(reply.outcome)}${ahead}`;
    }
    case "processed":
      return `${to}: frame ${reply.frame}${reply.clockAheadBy > 0 ? ` (clock ahead by ${reply.clockAheadBy})` : ""}`;
    case "renewal":
      return `${to}: lease ${reply.leaseSeq} renewed for ${reply.remainingMs} from frame ${reply.frame}`;
    case "leaseEnd":
      return `${to}: lease ${reply.leaseSeq} ${reply.reason}`;
    case "replaced":
      return `${to}: replaced`;
  }
}

function printOutcome(outcome: Outcome): string {
  switch (outcome.kind) {
    case "refused":
      return `${outcome.reason}: ${outcome.message}`;
    case "lease":
      return printLease(outcome.lease);
    case "renewed":
      return `renewed for ${outcome.remainingMs}`;
    case "revoked":
      return outcome.revoked ? "revoked" : "nothing to revoke";
    case "leases":
      return [...outcome.leases.map(printLease), `next ${outcome.next || "none"}`].join("\n  ");
    case "grant":
      return `granted ${outcome.token} at ${outcome.timestamp} to ${outcome.leaseId}, ${outcome.leaseRemainingMs} of ${outcome.leaseTtlMs} left`;
    case "busy": {
      const by = outcome.reserved ? "reserved" : outcome.holders.map(printHolder).join();
      return `${outcome.timedOut ? "timed out" : "busy"}: ${by || "free"}, ${outcome.waiters} waiting`;
    }
    case "waiting":
      return `waiting ${outcome.ticketId} as number ${outcome.position}, poll within ${outcome.pollWithinMs}`;
    case "cancelled":
      return `cancelled ${outcome.what}`;
    case "released":
      return "released";
    case "validated":
      return outcome.held ? "held" : "not held";
    case "lock":
      return printLock(outcome.lock);
    case "locks":
      return [...outcome.locks.map(printLock), `next ${outcome.next || "none"}`].join("\n  ");
    case "ticks":
      return `ticks ${outcome.first}..${outcome.last}`;
    case "status": {
      const { leases, locks, holds, waiters, sessions, lastToken, incarnation, halted } = outcome.counts;
      const counts = `${leases} leases, ${locks} locks, ${holds} holds, ${waiters} waiters, ${sessions} sessions`;
      return `${counts}, last token ${lastToken}, incarnation ${incarnation}${halted ? `, halted: ${halted}` : ""}`;
    }
    case "welcome": {
      const lost = outcome.lost.length > 0 ? `, lost ${outcome.lost.join()}` : "";
      return `welcome ${outcome.sessionId} epoch ${outcome.epoch}${outcome.resumed ? " again" : ""}${lost}`;
    }
  }
}

function printLease(lease: LeaseView): string {
  const { leaseId, displayId, ttlMs, remainingMs, owner, holds, waits, restartExtensionMs } = lease;
  const attached = `${holds} holds, ${waits} waits`;
  const extended = restartExtensionMs > 0 ? `, extended by up to ${restartExtensionMs}` : "";
  return `lease ${leaseId} (${displayId})${owner && ` of ${owner}`}, ${remainingMs} of ${ttlMs} left, ${attached}${extended}`;
}

const printHolder = (holder: HolderView): string =>
  `${holder.token}${holder.owner && ` of ${holder.owner}`} for ${holder.heldMs}, ${holder.leaseRemainingMs} left`;

function printLock(lock: LockView): string {
  const { name, holders, waiters, waitersTotal, reserved } = lock;
  const lines = [
    `${name}: ${reserved ? "reserved" : holders.map(printHolder).join() || "free"}, ${waitersTotal} waiting`,
  ];
  for (const { ticketId, position, owner, waitedMs, attached } of waiters) {
    lines.push(`    ${position}. ${ticketId}${owner && ` of ${owner}`} for ${waitedMs}${attached ? "" : ", away"}`);
  }
  return lines.join("\n");
}

export function printEvent(event: CoreEvent): string {
  const { kind, ...rest } = event;
  const details = Object.entries(rest).map(([key, value]) => `${key}=${value}`);
  return ["!", kind, ...details].join(" ");
}
