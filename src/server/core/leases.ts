/**
 * Leases: made, renewed, forgotten.
 *
 * A renewal moves a deadline in memory and writes nothing, except the first one in each incarnation of the server: that
 * is how a restart knows which leases may have been renewed up to the last moment (they get their full TTL again) and
 * which certainly were not (they get only what was left of it).
 *
 * A lease with `progressEveryMs` lives while two things go on: renewals, and reports of progress. Each has a deadline and
 * an incarnation of its own, else a worker that hangs would be given its whole interval again at every restart.
 */
import { countUsage, refuseQuota } from "./principals.js";
import { deleteLease, putLease } from "./records.js";
import { dropSessionIfOver, storeOutcome } from "./session-log.js";
import type { Lease, Session, State } from "./state.js";
import type { Effects, LeaseView, Principal, Refusal } from "./types.js";

export const unknownLease: Refusal = {
  kind: "refused",
  reason: "UNKNOWN_LEASE",
  message: "no such lease: it expired, was revoked, or never existed",
};

export interface NewLease {
  readonly leaseId: string;
  readonly ttlMs: number;
  readonly owner: string;
  readonly metadata: string;
  readonly progressEveryMs: number;
}

const displayId = (serial: number): string => `L${serial.toString(36).padStart(9, "0")}`;

/** Makes a lease, or returns why not. `session` and `seq` name its creator; null and 0 for a unary call. */
export function createLease(
  state: State,
  fx: Effects,
  init: NewLease,
  own: boolean,
  principal: Principal,
  session: Session | null,
  seq: number,
  nowMs: number,
): Lease | Refusal {
  if (state.leases.size >= state.limits.leasesMax) {
    return { kind: "refused", reason: "LIMIT", message: `the server has its ${state.limits.leasesMax} leases` };
  }
  if (session !== null && session.leases.size >= state.limits.holdsPerLeaseMax) {
    return { kind: "refused", reason: "LIMIT", message: `the session has its ${state.limits.holdsPerLeaseMax} leases` };
  }
  const refusal = refuseQuota(state, principal, "leases", 1);
  if (refusal !== null) return refusal;
  const { ttlMs, progressEveryMs } = init;
  const lease: Lease = {
    kind: "lease",
    id: init.leaseId,
    displayId: displayId(++state.serial),
    ttlMs,
    progressEveryMs,
    owner: init.owner,
    metadata: init.metadata,
    principal: principal.name,
    session,
    seq,
    own,
    ttlUntilMs: nowMs + ttlMs,
    progressUntilMs: progressEveryMs > 0 ? nowMs + progressEveryMs : Number.POSITIVE_INFINITY,
    deadlineMs: nowMs + (progressEveryMs > 0 ? Math.min(ttlMs, progressEveryMs) : ttlMs),
    dead: null,
    diedAtMs: 0,
    renewedIn: state.incarnation,
    progressedIn: state.incarnation,
    restartExtensionMs: 0,
    holds: new Set(),
    tickets: new Set(),
    waits: 0,
    revoking: null,
    contenders: null,
    batch: state.batch,
    dueMs: 0,
    heapIndex: -1,
  };
  addLease(state, lease);
  state.deadlines.set(lease, lease.deadlineMs);
  putLease(state, fx, lease);
  fx.events.push({ kind: "leaseCreated" });
  return lease;
}

/** Enters a lease into the indexes. */
export function addLease(state: State, lease: Lease): void {
  state.leases.set(lease.id, lease);
  state.leasesByDisplayId.set(lease.displayId, lease);
  state.leaseIndex.add(lease.displayId);
  lease.session?.leases.set(lease.seq, lease);
  countUsage(state, lease.principal, "leases", 1);
}

/** A lease that is alive, by id. */
export function liveLease(state: State, leaseId: string): Lease | undefined {
  const lease = state.leases.get(leaseId);
  return lease === undefined || lease.dead !== null ? undefined : lease;
}

/** Starts the TTL of a living lease anew, and, when its holder has made progress, the time for that as well. */
export function renewLease(state: State, fx: Effects, lease: Lease, progress: boolean, nowMs: number): void {
  const { incarnation } = state;
  fx.events.push({ kind: "leaseRenewed", result: "ok", slackRatio: (lease.deadlineMs - nowMs) / lease.ttlMs });
  lease.ttlUntilMs = nowMs + lease.ttlMs;
  lease.restartExtensionMs = 0;
  let first = lease.renewedIn !== incarnation;
  lease.renewedIn = incarnation;
  if (progress && lease.progressEveryMs > 0) {
    lease.progressUntilMs = nowMs + lease.progressEveryMs;
    first ||= lease.progressedIn !== incarnation;
    lease.progressedIn = incarnation;
  }
  lease.deadlineMs = Math.min(lease.ttlUntilMs, lease.progressUntilMs);
  if (first) putLease(state, fx, lease);
}

/** Takes a lease that nothing is attached to out of the state. */
export function removeLease(state: State, fx: Effects, lease: Lease): void {
  state.collecting.delete(lease);
  state.deadlines.delete(lease);
  // An own lease that has gone with its grant may already be out.
  if (!state.leases.delete(lease.id)) return;
  state.leasesByDisplayId.delete(lease.displayId);
  state.leaseIndex.delete(lease.displayId);
  deleteLease(fx, lease);
  countUsage(state, lease.principal, "leases", -1);
  const { session } = lease;
  if (session === null) return;
  session.leases.delete(lease.seq);
  if (session.unacked.get(lease.seq) === lease) storeOutcome(state, session, lease.seq, { kind: "ended", token: 0 });
  dropSessionIfOver(state, fx, session);
}

/** Whole milliseconds until the lease ends if it is not renewed. */
export const remainingMs = (lease: Lease, nowMs: number): number => Math.max(0, Math.floor(lease.deadlineMs - nowMs));

export function viewLease(lease: Lease, nowMs: number): LeaseView {
  return {
    leaseId: lease.id,
    displayId: lease.displayId,
    ttlMs: lease.ttlMs,
    remainingMs: remainingMs(lease, nowMs),
    owner: lease.owner,
    metadata: lease.metadata,
    holds: lease.holds.size,
    waits: lease.waits,
    restartExtensionMs: lease.restartExtensionMs,
    progressEveryMs: lease.progressEveryMs,
  };
}
