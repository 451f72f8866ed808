/** What a reply or an event says, reduced to what the model can know. Compared as text. */
import type { CoreEvent, LockEvent, Outcome, Reply, Route } from "../../../src/server/core/types.js";

export interface Meaning {
  readonly kind: string;
  readonly [field: string]: unknown;
}

/** Something that is said to somebody. */
export interface Said {
  readonly route: Route;
  readonly what: Meaning;
}

/** Whether a listed lock is more than a delay that has run out. */
export const isThere = (lock: { holdersTotal: number; waitersTotal: number; delayRemainingMs: number }): boolean =>
  lock.holdersTotal + lock.waitersTotal + lock.delayRemainingMs > 0;

export function meaningOfReply(reply: Reply): Said {
  const { route } = reply;
  switch (reply.kind) {
    case "outcome": {
      const { seq, clockAheadBy } = reply;
      return { route, what: { kind: "outcome", seq, outcome: meaningOfOutcome(reply.outcome), clockAheadBy } };
    }
    case "holdEnd": {
      const { kind, token, reason, confirm, message } = reply;
      return { route, what: { kind, token, reason, confirm, message } };
    }
    case "renewal": {
      const { kind, frame, leaseSeq, remainingMs } = reply;
      return { route, what: { kind, frame, leaseSeq, remainingMs } };
    }
    case "leaseEnd":
      return { route, what: { kind: "leaseEnd", leaseSeq: reply.leaseSeq, reason: reply.reason } };
    case "processed":
      return { route, what: { kind: "processed", frame: reply.frame, clockAheadBy: reply.clockAheadBy } };
    case "replaced":
      return { route, what: { kind: "replaced" } };
  }
}

export function meaningOfOutcome(outcome: Outcome): Meaning {
  const { kind } = outcome;
  switch (kind) {
    case "refused": {
      if (outcome.reason !== "DEADLOCK") return { kind, reason: outcome.reason };
      const knot = outcome.knot?.map(({ ticketId, waitsFor, holds }) => ({
        ticketId,
        waitsFor,
        holds: [...holds].sort(),
      }));
      return { kind, reason: outcome.reason, knot };
    }
    case "lease": {
      const { leaseId, ttlMs, remainingMs, holds, waits, restartExtensionMs, progressEveryMs } = outcome.lease;
      return { kind, leaseId, ttlMs, remainingMs, holds, waits, progressEveryMs, extended: restartExtensionMs > 0 };
    }
    case "renewed": {
      const { ttlMs, remainingMs, revoking } = outcome;
      return { kind, ttlMs, remainingMs, revoking: revoking.map(({ token, message }) => `${token} ${message}`).sort() };
    }
    case "grant": {
      const { all, timestamp, leaseId, leaseTtlMs, leaseRemainingMs, maxHoldRemainingMs } = outcome;
      const grants = outcome.grants.map(({ name, token, slots }) => ({ name, token, slots }));
      return { kind, grants, all, timestamp, leaseId, leaseTtlMs, leaseRemainingMs, maxHoldRemainingMs };
    }
    case "busy": {
      const { name, all, holdersTotal, waiters, reserved, delayRemainingMs, timedOut } = outcome;
      const holders = outcome.holders.map(({ token }) => token);
      return { kind, name, all, holders, holdersTotal, waiters, reserved, delayRemainingMs, timedOut };
    }
    case "waiting": {
      const { all, ticketId, position, pollWithinMs } = outcome;
      return { kind, all, ticketId, position, pollWithinMs };
    }
    case "lock": {
      const { lock } = outcome;
      const holders = lock.holders.map(({ token, mode, revoking, slots }) => ({ token, mode, revoking, slots }));
      const waiters = lock.waiters.map(({ ticketId, position, attached, locks }) => ({
        ticketId,
        position,
        attached,
        locks,
      }));
      const { name, holdersTotal, waitersTotal, reserved, delayRemainingMs } = lock;
      return { kind, name, holders, holdersTotal, waiters, waitersTotal, reserved, delayRemainingMs };
    }
    case "locks": {
      const locks = outcome.locks.map(({ name, holdersTotal, waitersTotal, reserved, delayRemainingMs }) => ({
        name,
        holdersTotal,
        waitersTotal,
        reserved,
        delayRemainingMs,
      }));
      return { kind, locks: locks.filter(isThere) };
    }
    case "leases":
      return { kind, leases: outcome.leases.map(({ leaseId, remainingMs }) => ({ leaseId, remainingMs })) };
    case "welcome": {
      const { sessionId, epoch, resumed, lost } = outcome;
      return { kind, sessionId, epoch, resumed, lost };
    }
    case "forced":
      return { kind, ended: outcome.ended, revoking: outcome.revoking, withinMs: outcome.withinMs };
    case "revoked":
      return { kind, revoked: outcome.revoked };
    case "cancelled":
      return { kind, what: outcome.what };
    case "transferred":
      return { kind, token: outcome.token };
    case "validated":
      return { kind, held: outcome.held };
    case "ticks":
      return { kind, first: outcome.first, last: outcome.last };
    case "top":
    case "status":
    case "released":
    case "downgraded":
    case "metadataSet":
      return { kind };
  }
}

const lockEvents = ["queued", "dequeued", "granted", "holdEnded", "downgraded", "updated", "revoking"];

export const isLockEvent = (event: CoreEvent): event is LockEvent => lockEvents.includes(event.kind);

/** Null: nothing that happened to a lock. */
export function meaningOfEvent(event: CoreEvent): Meaning | null {
  switch (event.kind) {
    case "queued":
    case "dequeued":
      return { kind: event.kind, name: event.name, timestamp: event.timestamp, ticketId: event.waiter.ticketId };
    case "granted": {
      const { kind, name, timestamp, token, mode, ticketId, transferredFrom } = event;
      return { kind, name, timestamp, token, mode, ticketId, transferredFrom, slots: event.hold.slots };
    }
    case "holdEnded": {
      const { kind, name, timestamp, token, mode, end } = event;
      // A transfer is one event, that of the grant.
      return end === "transferred" ? null : { kind, name, timestamp, token, mode, end, message: event.message };
    }
    case "downgraded":
    case "updated":
    case "revoking": {
      const { kind, name, timestamp, token, message } = event;
      return { kind, name, timestamp, token, message };
    }
    default:
      return null;
  }
}
