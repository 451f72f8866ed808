/**
 * From outcomes of the core to wire messages.
 *
 * The secret id of a lease goes only to the client that made the lease or named it: into Lease, and into the Grant of a
 * unary call. On a session the frame carries the Lamport timestamp once for all results, so that the results do not.
 * Lists are cut so that a message stays below the frame limit: a shorter page with a token for the next.
 */
import type { leasehold } from "@leasehold/client/wire";
import type { HolderView, LeaseEndReason, LeaseView, LockView, Outcome, WaiterView } from "../core/types.js";
import { pageToken } from "./check.js";
import { failureOf, type WireFailure } from "./errors.js";

type OutcomeOf<K extends Outcome["kind"]> = Extract<Outcome, { kind: K }>;

const LOCK_MODE_EXCLUSIVE = 1;
const cancelOutcomes = { nothing: 1, ticket: 2, grant: 3 } as const;
const endReasons = { expired: 1, revoked: 2 } as const;

// Numbers of a wire size: what an entry takes at most beside its texts.
const ENTRY_BYTES = 80;

export function endReason(reason: LeaseEndReason): 1 | 2 {
  return endReasons[reason];
}

function bytes(base64: string): Uint8Array | null {
  return base64 === "" ? null : Buffer.from(base64, "base64");
}

export function leaseBody(outcome: OutcomeOf<"lease">): { lease: leasehold.v1.Lease.$Properties } {
  const { lease } = outcome;
  return {
    lease: {
      leaseId: lease.leaseId,
      ttlMs: lease.ttlMs,
      remainingMs: lease.remainingMs,
      owner: lease.owner,
      metadata: bytes(lease.metadata),
      holds: lease.holds,
      waits: lease.waits,
      restartExtensionMs: lease.restartExtensionMs,
    },
  };
}

export function leasesBody(
  outcome: OutcomeOf<"leases">,
  listBytesMax: number,
): leasehold.v1.ListLeasesResponse.$Properties {
  const fit = fitting(outcome.leases, leaseBytes, listBytesMax);
  const last = fit < outcome.leases.length ? (outcome.leases[fit - 1]?.displayId ?? "") : outcome.next;
  return {
    leases: outcome.leases.slice(0, fit).map((lease) => ({
      displayId: lease.displayId,
      ttlMs: lease.ttlMs,
      remainingMs: lease.remainingMs,
      owner: lease.owner,
      holds: lease.holds,
      waits: lease.waits,
      restartExtensionMs: lease.restartExtensionMs,
    })),
    nextPageToken: pageToken(last),
  };
}

export function acquireBody(
  outcome: OutcomeOf<"grant" | "busy" | "waiting">,
  onSession: boolean,
): leasehold.v1.AcquireResponse.$Properties {
  switch (outcome.kind) {
    case "grant":
      return {
        grant: {
          token: outcome.token,
          timestamp: outcome.timestamp,
          leaseId: onSession ? "" : outcome.leaseId,
          leaseTtlMs: outcome.leaseTtlMs,
          leaseRemainingMs: outcome.leaseRemainingMs,
        },
      };
    case "busy":
      return {
        busy: {
          holders: outcome.holders.map(holder),
          waiters: outcome.waiters,
          reserved: outcome.reserved,
          timedOut: outcome.timedOut,
        },
      };
    case "waiting":
      return {
        waiting: {
          ticketId: outcome.ticketId,
          position: outcome.position,
          pollWithinMs: outcome.pollWithinMs,
        },
      };
  }
}

export function cancelBody(outcome: OutcomeOf<"cancelled">): { outcome: 1 | 2 | 3 } {
  return { outcome: cancelOutcomes[outcome.what] };
}

export function lockBody(
  outcome: OutcomeOf<"lock">,
  listBytesMax: number,
): leasehold.v1.DescribeLockResponse.$Properties {
  const { lock } = outcome;
  const fit = fitting(lock.waiters, waiterBytes, listBytesMax);
  return {
    name: lock.name,
    holders: lock.holders.map(holder),
    waiters: (fit < lock.waiters.length ? lock.waiters.slice(0, fit) : lock.waiters).map(waiter),
    waitersTotal: lock.waitersTotal,
    reserved: lock.reserved,
  };
}

export function locksBody(
  outcome: OutcomeOf<"locks">,
  listBytesMax: number,
): leasehold.v1.ListLocksResponse.$Properties {
  const fit = fitting(outcome.locks, lockBytes, listBytesMax);
  const last = fit < outcome.locks.length ? (outcome.locks[fit - 1]?.name ?? "") : outcome.next;
  return {
    locks: outcome.locks.slice(0, fit).map((lock) => ({
      name: lock.name,
      holders: lock.holders.map(holder),
      waiters: lock.waitersTotal,
      reserved: lock.reserved,
    })),
    nextPageToken: pageToken(last),
  };
}

function holder(view: HolderView): leasehold.v1.Holder.$Properties {
  return {
    token: view.token,
    timestamp: view.timestamp,
    owner: view.owner,
    metadata: bytes(view.metadata),
    heldMs: view.heldMs,
    leaseRemainingMs: view.leaseRemainingMs,
    leaseDisplayId: view.leaseDisplayId,
    mode: LOCK_MODE_EXCLUSIVE,
  };
}

function waiter(view: WaiterView): leasehold.v1.Waiter.$Properties {
  return {
    ticketId: view.ticketId,
    position: view.position,
    owner: view.owner,
    metadata: bytes(view.metadata),
    waitedMs: view.waitedMs,
    attached: view.attached,
    mode: LOCK_MODE_EXCLUSIVE,
  };
}

/** The answer to the command `seq` of a session. */
export function sessionResult(seq: number, outcome: Outcome, listBytesMax: number): leasehold.v1.Result.$Properties {
  switch (outcome.kind) {
    case "grant":
    case "busy":
    case "waiting":
      return { seq, acquire: acquireBody(outcome, true) };
    case "released":
      return { seq, release: {} };
    case "lease":
      return { seq, createLease: leaseBody(outcome) };
    case "revoked":
      return { seq, revokeLease: { revoked: outcome.revoked } };
    case "cancelled":
      return { seq, cancelAcquire: cancelBody(outcome) };
    case "validated":
      return { seq, validate: { held: outcome.held } };
    case "lock":
      return { seq, describeLock: lockBody(outcome, listBytesMax) };
    case "locks":
      return { seq, listLocks: locksBody(outcome, listBytesMax) };
    case "ticks":
      return { seq, tick: { first: outcome.first, last: outcome.last } };
    case "refused":
      return failureResult(seq, failureOf(outcome));
    case "renewed":
    case "leases":
    case "status":
    case "welcome":
      throw new Error(`a session command was answered with the outcome ${outcome.kind}`);
  }
}

export function failureResult(seq: number, failure: WireFailure): leasehold.v1.Result.$Properties {
  return { seq, failure: { reason: failure.reason, message: failure.message, retryAfterMs: failure.retryAfterMs } };
}

/** How many entries from the first on stay within `bytesMax`, by an upper estimate; at least one. */
function fitting<T>(entries: readonly T[], size: (entry: T) => number, bytesMax: number): number {
  let sum = 0;
  for (let i = 0; i < entries.length; i++) {
    sum += size(entries[i] as T);
    if (sum > bytesMax) return Math.max(1, i);
  }
  return entries.length;
}

const textBytes = (owner: string, metadata: string) => owner.length * 3 + metadata.length;
const leaseBytes = (lease: LeaseView) => ENTRY_BYTES + lease.displayId.length * 3 + lease.owner.length * 3;
const waiterBytes = (view: WaiterView) => ENTRY_BYTES + textBytes(view.owner, view.metadata);
const lockBytes = (lock: LockView) =>
  lock.holders.reduce(
    (sum, view) => sum + ENTRY_BYTES + textBytes(view.owner, view.metadata),
    ENTRY_BYTES + lock.name.length * 3,
  );
