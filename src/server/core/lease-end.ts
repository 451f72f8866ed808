/**
 * How leases die.
 *
 * The death of a lease is one mutation. Its holds and tickets are collected afterwards, in slices, and count as absent
 * until then; so a lease with ten thousand holds dies as a whole, and nobody else waits while it is cleared away.
 */
import { endHold } from "./holds.js";
import { removeLease, unknownLease } from "./leases.js";
import { putLease } from "./records.js";
import type { Lease, State } from "./state.js";
import { removeTicket } from "./tickets.js";
import type { Effects, LeaseEndReason, Outcome } from "./types.js";

/**
 * Ends a lease at once; what is attached to it is collected within `budget`, the rest by later `expire` commands. `hung`:
 * it was renewed, but there was no progress.
 */
export function endLease(
  state: State,
  fx: Effects,
  lease: Lease,
  reason: LeaseEndReason,
  hung: boolean,
  nowMs: number,
  budget: number,
): number {
  lease.dead = reason;
  lease.diedAtMs = nowMs;
  state.deadlines.delete(lease);
  fx.events.push({ kind: "leaseEnded", reason, hung });
  const { session } = lease;
  if (session?.route) fx.replies.push({ kind: "leaseEnd", route: session.route, leaseSeq: lease.seq, reason });
  state.collecting.add(lease);
  const left = collect(state, fx, lease, nowMs, budget);
  if (state.collecting.has(lease)) putLease(state, fx, lease);
  return left;
}

/** Clears away holds and tickets of a dead lease, at most `budget` of them, and then the lease. Returns what is left. */
export function collect(state: State, fx: Effects, lease: Lease, nowMs: number, budget: number): number {
  const end = lease.dead === "revoked" ? "revoked" : "expired";
  for (const hold of lease.holds) {
    if (budget-- <= 0) return 0;
    endHold(state, fx, hold, end, nowMs);
  }
  for (const ticket of lease.tickets) {
    if (budget-- <= 0) return 0;
    removeTicket(state, fx, ticket, unknownLease, nowMs);
  }
  removeLease(state, fx, lease);
  return Math.max(0, budget - 1);
}

/** Ends a lease on behalf of its client; `expired`: because the client has stopped believing in it. */
export function revoke(state: State, fx: Effects, lease: Lease | undefined, expired: boolean, nowMs: number): Outcome {
  if (lease === undefined || lease.dead !== null) return { kind: "revoked", revoked: false };
  const hung = expired && lease.progressUntilMs < lease.ttlUntilMs;
  endLease(state, fx, lease, expired ? "expired" : "revoked", hung, nowMs, state.limits.expirySliceMax);
  return { kind: "revoked", revoked: true };
}
