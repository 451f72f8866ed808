/**
 * From outcomes of the core to wire messages.
 *
 * The secret id of a lease goes only to the client that made the lease or named it: into Lease, and into the Grant of a
 * unary call. On a session the frame carries the Lamport timestamp once for all results, so that the results do not.
 */
import type { leasehold } from "@leasehold/client/wire";
import type { GrantedLock, LeaseEndReason, Outcome, Reply } from "../core/types.js";
import { cut, holdersOf, knotWaits, leaseBody, lockBody, locksBody } from "./encode-views.js";
import { failureOf, type WireFailure } from "./errors.js";

type OutcomeOf<K extends Outcome["kind"]> = Extract<Outcome, { kind: K }>;
type GrantOutcome = OutcomeOf<"grant">;

const cancelOutcomes = { nothing: 1, ticket: 2, grant: 3 } as const;
const endReasons = { expired: 1, revoked: 2, forced: 3, max_hold: 4 } as const;

export function endReason(reason: LeaseEndReason): 1 | 2 {
  return endReasons[reason];
}

/** Of an Acquire. */
export function acquireBody(
  outcome: OutcomeOf<"grant" | "busy" | "waiting">,
  onSession: boolean,
  listBytesMax: number,
): leasehold.v1.AcquireResponse.$Properties {
  switch (outcome.kind) {
    case "grant":
      return { grant: grant(outcome, firstGrant(outcome), onSession) };
    case "busy":
      return { busy: busy(outcome, listBytesMax) };
    case "waiting":
      return { waiting: waiting(outcome) };
  }
}

/** Of an AcquireAll. */
export function acquireAllBody(
  outcome: OutcomeOf<"grant" | "busy" | "waiting">,
  onSession: boolean,
  listBytesMax: number,
): leasehold.v1.AcquireAllResponse.$Properties {
  switch (outcome.kind) {
    case "grant":
      return { grants: { grants: outcome.grants.map((one) => grant(outcome, one, onSession)) } };
    case "busy":
      return { busy: busy(outcome, listBytesMax) };
    case "waiting":
      return { waiting: waiting(outcome) };
  }
}

/** By its token the core knows which Acquire or AcquireAll a grant belongs to. */
export function firstGrant(outcome: GrantOutcome): GrantedLock {
  const [first] = outcome.grants;
  if (first === undefined) throw new Error("a grant of nothing");
  return first;
}

function grant(outcome: GrantOutcome, lock: GrantedLock, onSession: boolean): leasehold.v1.Grant.$Properties {
  return {
    token: lock.token,
    timestamp: outcome.timestamp,
    leaseId: onSession ? "" : outcome.leaseId,
    leaseTtlMs: outcome.leaseTtlMs,
    leaseRemainingMs: outcome.leaseRemainingMs,
    name: outcome.all ? lock.name : "",
    slots: lock.slots.length === 0 ? null : [...lock.slots],
    maxHoldRemainingMs: outcome.maxHoldRemainingMs,
  };
}

function busy(outcome: OutcomeOf<"busy">, listBytesMax: number): leasehold.v1.Busy.$Properties {
  return {
    holders: holdersOf(outcome, listBytesMax),
    holdersTotal: outcome.holdersTotal,
    waiters: outcome.waiters,
    reserved: outcome.reserved,
    timedOut: outcome.timedOut,
    delayRemainingMs: outcome.delayRemainingMs,
    name: outcome.all ? outcome.name : "",
  };
}

function waiting({ ticketId, position, pollWithinMs }: OutcomeOf<"waiting">): leasehold.v1.Waiting.$Properties {
  return { ticketId, position, pollWithinMs };
}

export function cancelBody(outcome: OutcomeOf<"cancelled">): { outcome: 1 | 2 | 3 } {
  return { outcome: cancelOutcomes[outcome.what] };
}

export function renewedBody(
  outcome: OutcomeOf<"renewed">,
  renewAfterMs: number,
  listBytesMax: number,
): leasehold.v1.RenewLeaseResponse.$Properties {
  // The next renewal tells what has no room here.
  const revoking = cut(outcome.revoking, holdEndBytes, listBytesMax);
  const holdEnds = revoking.map(({ token, message }) => holdEnd({ token, reason: "forced", confirm: true, message }));
  return { ttlMs: outcome.ttlMs, remainingMs: outcome.remainingMs, holdEnds, renewAfterMs };
}

const holdEndBytes = ({ message }: { readonly message: string }) => 24 + message.length * 3;

export function holdEnd(
  end: Pick<Extract<Reply, { kind: "holdEnd" }>, "token" | "reason" | "confirm" | "message">,
): leasehold.v1.HoldEnd.$Properties {
  return { token: end.token, reason: endReasons[end.reason], confirm: end.confirm, message: end.message };
}

export function forcedBody(outcome: OutcomeOf<"forced">): leasehold.v1.ForceReleaseResponse.$Properties {
  return { ended: [...outcome.ended], revoking: [...outcome.revoking], withinMs: outcome.withinMs };
}

/** The answer to the command `seq` of a session. */
export function sessionResult(seq: number, outcome: Outcome, listBytesMax: number): leasehold.v1.Result.$Properties {
  switch (outcome.kind) {
    case "grant":
    case "busy":
    case "waiting":
      return outcome.all
        ? { seq, acquireAll: acquireAllBody(outcome, true, listBytesMax) }
        : { seq, acquire: acquireBody(outcome, true, listBytesMax) };
    case "released":
      return { seq, release: {} };
    case "lease":
      return { seq, createLease: leaseBody(outcome) };
    case "revoked":
      return { seq, revokeLease: { revoked: outcome.revoked } };
    case "cancelled":
      return { seq, cancelAcquire: cancelBody(outcome) };
    case "transferred":
      return { seq, transfer: { token: outcome.token } };
    case "downgraded":
      return { seq, downgrade: {} };
    case "metadataSet":
      return { seq, setMetadata: {} };
    case "validated":
      return { seq, validate: { held: outcome.held } };
    case "lock":
      return { seq, describeLock: lockBody(outcome, listBytesMax) };
    case "locks":
      return { seq, listLocks: locksBody(outcome, listBytesMax) };
    case "ticks":
      return { seq, tick: { first: outcome.first, last: outcome.last } };
    case "refused":
      return failureResult(seq, failureOf(outcome), listBytesMax);
    case "renewed":
    case "leases":
    case "forced":
    case "top":
    case "status":
    case "welcome":
      throw new Error(`a session command was answered with the outcome ${outcome.kind}`);
  }
}

export function failureResult(
  seq: number,
  { reason, message, retryAfterMs, knot }: WireFailure,
  listBytesMax: number,
): leasehold.v1.Result.$Properties {
  const failure = { reason, message, retryAfterMs };
  return { seq, failure: knot === undefined ? failure : { ...failure, knot: knotWaits(knot, listBytesMax) } };
}
