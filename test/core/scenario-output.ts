/** How a reply or an event of the core becomes a line of a scenario. What is as usual is left out. */
import type {
  BlockerView,
  CoreEvent,
  HolderView,
  HoldFacts,
  KnotWait,
  LeaseView,
  LockMode,
  LockView,
  Outcome,
  Reply,
  WaiterView,
} from "../../src/server/core/types.js";

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
    case "holdEnd": {
      const message = reply.message === "" ? "" : `: ${reply.message}`;
      return `${to}: token ${reply.token} ${reply.reason}${reply.confirm ? ", confirm" : ""}${message}`;
    }
    case "replaced":
      return `${to}: replaced`;
  }
}

function printOutcome(outcome: Outcome): string {
  switch (outcome.kind) {
    case "refused":
      return [`${outcome.reason}: ${outcome.message}`, ...(outcome.knot ?? []).map(printWait)].join("\n    ");
    case "lease":
      return printLease(outcome.lease);
    case "renewed": {
      const revoking = outcome.revoking.map(({ token, message }) => `, confirm the end of ${token}: ${message}`);
      return `renewed for ${outcome.remainingMs}${revoking.join("")}`;
    }
    case "revoked":
      return outcome.revoked ? "revoked" : "nothing to revoke";
    case "leases":
      return [...outcome.leases.map(printLease), `next ${outcome.next || "none"}`].join("\n  ");
    case "grant":
      return printGrant(outcome);
    case "busy": {
      const { name, all, reserved, holders, delayRemainingMs, waiters } = outcome;
      const by = reserved ? "reserved" : holders.map(printHolder).join() || (delayRemainingMs > 0 ? "barred" : "free");
      const where = all ? ` at ${name}` : "";
      const barred = delayRemainingMs > 0 ? ` for ${delayRemainingMs}` : "";
      return `${outcome.timedOut ? "timed out" : "busy"}${where}: ${by}${barred}, ${waiters} waiting`;
    }
    case "waiting": {
      const { ticketId, position, pollWithinMs } = outcome;
      return `waiting ${ticketId} as number ${position}, poll within ${pollWithinMs}`;
    }
    case "cancelled":
      return `cancelled ${outcome.what}`;
    case "released":
      return "released";
    case "transferred":
      return `transferred as ${outcome.token}`;
    case "downgraded":
      return "downgraded";
    case "metadataSet":
      return "metadata set";
    case "forced": {
      const { ended, revoking, withinMs } = outcome;
      return `forced: ended ${ended.join() || "none"}, revoking ${revoking.join() || "none"} within ${withinMs}`;
    }
    case "validated":
      return outcome.held ? "held" : "not held";
    case "lock":
      return printLock(outcome.lock);
    case "locks":
      return [...outcome.locks.map(printLock), `next ${outcome.next || "none"}`].join("\n  ");
    case "top": {
      const holds = outcome.holds.map(({ name, holder }) => `${name}: ${printHolder(holder)}`);
      const waits = outcome.waits.map(({ name, waiter }) => `${name}: ${printWaiter(waiter)}`);
      return ["holds", ...holds.map((line) => `  ${line}`), "waits", ...waits.map((line) => `  ${line}`)].join("\n  ");
    }
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

function printGrant(grant: Extract<Outcome, { kind: "grant" }>): string {
  const { grants, all, timestamp, leaseId, leaseTtlMs, leaseRemainingMs, maxHoldRemainingMs } = grant;
  const tokens = grants.map(({ name, token, slots }) => {
    return `${all ? `${name} ` : ""}${token}${slots.length > 0 ? ` slots ${slots.join("+")}` : ""}`;
  });
  const most = maxHoldRemainingMs > 0 ? `, at most ${maxHoldRemainingMs}` : "";
  return `granted ${tokens.join()} at ${timestamp} to ${leaseId}, ${leaseRemainingMs} of ${leaseTtlMs} left${most}`;
}

function printLease(lease: LeaseView): string {
  const { leaseId, displayId, ttlMs, remainingMs, owner, holds, waits, restartExtensionMs } = lease;
  const attached = `${holds} holds, ${waits} waits`;
  const extended = restartExtensionMs > 0 ? `, extended by up to ${restartExtensionMs}` : "";
  const progress = lease.progressEveryMs > 0 ? `, progress every ${lease.progressEveryMs}` : "";
  const more = `${attached}${extended}${progress}`;
  return `lease ${leaseId} (${displayId})${owner && ` of ${owner}`}, ${remainingMs} of ${ttlMs} left, ${more}`;
}

function printMode({ mode, permits, permitLimit }: { mode: LockMode; permits: number; permitLimit: number }): string {
  if (mode === "exclusive") return "";
  return mode === "shared" ? " shared" : ` ${permits}/${permitLimit}`;
}

function printHolder(holder: HolderView): string {
  const { token, owner, heldMs, leaseRemainingMs, slots, maxHoldRemainingMs, revoking, contenderId, metadata } = holder;
  const extras = [
    slots.length > 0 && `slots ${slots.join("+")}`,
    maxHoldRemainingMs > 0 && `at most ${maxHoldRemainingMs}`,
    contenderId !== "" && `as ${contenderId}`,
    metadata !== "" && `meta ${metadata}`,
    revoking && "revoking",
  ].filter(Boolean);
  const who = `${token}${printMode(holder)}${owner && ` of ${owner}`}`;
  return [`${who} for ${heldMs}`, `${leaseRemainingMs} left`, ...extras].join(", ");
}

function printWaiter(waiter: WaiterView): string {
  const { position, ticketId, owner, waitedMs, attached, locks, contenderId, blockedBy } = waiter;
  const extras = [
    !attached && "away",
    locks > 1 && `${locks} locks`,
    contenderId !== "" && `as ${contenderId}`,
    blockedBy !== null && printBlocker(blockedBy),
  ].filter(Boolean);
  const who = `${position}. ${ticketId}${printMode(waiter)}${owner && ` of ${owner}`}`;
  return [`${who} for ${waitedMs}`, ...extras].join(", ");
}

function printBlocker({ lock, token, ticketId, owner, hops }: BlockerView): string {
  const by = token > 0 ? `token ${token}` : ticketId || "the lock delay";
  return `blocked by ${by}${owner && ` of ${owner}`} at ${lock}${hops > 1 ? ` over ${hops} hops` : ""}`;
}

function printLock(lock: LockView): string {
  const { name, holders, holdersTotal, waiters, waitersTotal, reserved, delayRemainingMs } = lock;
  const held = holders.map(printHolder).join(" + ");
  const more = holdersTotal > holders.length ? ` + ${holdersTotal - holders.length} more` : "";
  const barred = delayRemainingMs > 0 ? `barred for ${delayRemainingMs}` : "";
  const state = [held + more, reserved && "reserved", barred].filter(Boolean).join(", ") || "free";
  return [`${name}: ${state}, ${waitersTotal} waiting`, ...waiters.map((w) => `    ${printWaiter(w)}`)].join("\n");
}

function printWait({ ticketId, owner, contenderId, waitsFor, holds }: KnotWait): string {
  const who = `${ticketId}${owner && ` of ${owner}`}${contenderId && ` as ${contenderId}`}`;
  return `${who} waits for ${waitsFor.join()}, holds ${holds.join() || "none"}`;
}

/** Values that are left out of an event. */
const usual = new Set<unknown>(["", 0, "exclusive", false]);
const always = new Set(["waitedMs", "heldMs", "slackRatio", "token"]);

export function printEvent(event: CoreEvent): string {
  const { kind, ...rest } = event;
  const details = Object.entries(rest)
    .filter(([key, value]) => always.has(key) || !usual.has(value))
    .map(([key, value]) => printDetail(key, value));
  return ["!", kind, ...details].filter((part) => part !== "").join(" ");
}

function printDetail(key: string, value: unknown): string {
  switch (key) {
    case "waiter":
      return `waiter=${printWaiter(value as WaiterView)}`;
    case "knot":
      return `knot=${(value as readonly KnotWait[]).map(({ ticketId }) => ticketId).join()}`;
    case "hold": {
      const { owner, metadata, slots, contenderId, mode, permits, permitLimit } = value as HoldFacts;
      const extras = [owner, metadata, slots.join("+"), contenderId, printMode({ mode, permits, permitLimit })];
      const told = extras.filter(Boolean).map((part) => part.trim());
      return told.length > 0 ? `hold=${told.join("/")}` : "";
    }
    default:
      return `${key}=${value}`;
  }
}
