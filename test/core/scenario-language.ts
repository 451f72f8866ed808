/** The words of a scenario: how a line of text becomes a request of the core. */
import {
  type Acquire,
  anybody,
  type HolderSpec,
  type LockItem,
  type Principal,
  type Request,
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

/** `by=NAME quota=LEASES,LOCKS,WAITERS`; without a quota it may have whatever it wants. */
export function principalOf(line: Line): Principal {
  const [leasesMax, locksMax, waitersMax] = numbersOf(line, "quota");
  const name = line.options.get("by") ?? "";
  if (leasesMax === undefined || locksMax === undefined || waitersMax === undefined) return { ...anybody, name };
  return { name, quota: { leasesMax, locksMax, waitersMax } };
}

/** What was fresh when the line was read: ids are numbered. */
export interface Fresh {
  id(): string;
  wallMs: number;
}

/**
 * `create L1 ttl=1000 progress=300`, `renew L1 progress`, `acquire a own=1000 wait=500 req=r1`, `release a 3`, ...
 *
 * What an Acquire asks for: `a` is exclusive, `a:shared`, `a:2/5` takes two of five permits. `acquireall a,b:shared` is
 * an AcquireAll. Options: `delay=MS`, `maxhold=MS`, `as=CONTENDER`, `holding=TOKEN,TOKEN`.
 */
export function parseRequest(line: Line, onSession: boolean, fresh: Fresh): Request {
  const { words, options } = line;
  const [verb = "", first = "", second = "", third = ""] = words;
  const { wallMs } = fresh;
  const metadata = options.get("meta") ?? "";
  const held = { name: first, token: Number(second) };
  switch (verb) {
    case "create":
      return {
        kind: "createLease",
        leaseId: first || fresh.id(),
        ttlMs: numberOf(line, "ttl", 10_000),
        owner: options.get("owner") ?? "",
        metadata,
        progressEveryMs: numberOf(line, "progress", 0),
      };
    case "renew":
      return { kind: "renewLease", leaseId: first, progress: words.includes("progress") };
    case "revoke":
      return {
        kind: "revokeLease",
        lease: onSession ? { kind: "session", seq: Number(first) } : { kind: "lease", leaseId: first },
        expired: words.includes("expired"),
      };
    case "get":
      return { kind: "getLease", leaseId: first };
    case "leases":
      return { kind: "listLeases", after: options.get("after") ?? "", limit: numberOf(line, "limit", 100) };
    case "acquire":
    case "acquireall":
      return parseAcquire(line, onSession, fresh);
    case "cancel":
      if (onSession) return { kind: "cancelAcquire", target: { kind: "session", seq: Number(first) } };
      return {
        kind: "cancelAcquire",
        target: { kind: "request", requestId: first, leaseId: options.get("lease") ?? "" },
      };
    case "release":
    case "downgrade":
    case "validate":
      return { kind: verb, ...held };
    case "transfer":
      return { kind: "transfer", ...held, ticketId: third };
    case "setmeta":
      return { kind: "setMetadata", ...held, metadata };
    case "force":
      return {
        kind: "forceRelease",
        name: first,
        token: numberOf(line, "token", 0),
        message: options.get("reason") ?? "",
        now: words.includes("now"),
      };
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
    case "top":
      return { kind: "topLocks", limit: numberOf(line, "limit", 10), wallMs };
    case "tick":
      return { kind: "tick", observed: numberOf(line, "observed", 0), count: numberOf(line, "count", 1) };
    case "status":
      return { kind: "status" };
    default:
      throw new Error(`no such request: ${words.join(" ")}`);
  }
}

function parseAcquire(line: Line, onSession: boolean, fresh: Fresh): Acquire {
  const [verb = "", wanted = ""] = line.words;
  const { options } = line;
  return {
    kind: "acquire",
    items: wanted.split(",").map(parseItem),
    all: verb === "acquireall",
    holder: parseHolder(line, onSession, fresh),
    waitMs: numberOf(line, "wait", 0),
    pollMs: numberOf(line, "poll", 1_000),
    requestId: options.get("req") ?? "",
    owner: options.get("owner") ?? "",
    metadata: options.get("meta") ?? "",
    wallMs: fresh.wallMs,
    lockDelayMs: numberOf(line, "delay", 0),
    maxHoldMs: numberOf(line, "maxhold", 0),
    contenderId: options.get("as") ?? "",
    heldTokens: numbersOf(line, "holding"),
  };
}

function parseItem(text: string): LockItem {
  const [name = "", how = "exclusive"] = text.split(":");
  if (how === "exclusive" || how === "shared") return { name, mode: how, permits: 0, permitLimit: 0 };
  const [permits, permitLimit] = how.split("/").map(Number);
  if (permits === undefined || permitLimit === undefined) throw new Error(`how to take ${text}?`);
  return { name, mode: "semaphore", permits, permitLimit };
}

function parseHolder(line: Line, onSession: boolean, fresh: Fresh): HolderSpec {
  const lease = line.options.get("lease");
  if (lease === undefined) return { kind: "own", leaseId: fresh.id(), ttlMs: numberOf(line, "own", 10_000) };
  return onSession && /^\d+$/.test(lease) ? { kind: "session", seq: Number(lease) } : { kind: "lease", leaseId: lease };
}
