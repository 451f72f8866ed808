/**
 * Acquire, its polls and its withdrawal.
 *
 * A unary wait is a long poll: each call attaches the ticket of its request id for a while; between two calls the
 * ticket is detached and keeps its place. On a session the ticket stays attached as long as the stream does.
 */
import { endLease } from "./lease-end.js";
import { createLease, liveLease, renewLease, unknownLease } from "./leases.js";
import {
  answer,
  attachTicket,
  type Claim,
  detachTicket,
  endHold,
  enqueue,
  ensureLock,
  grant,
  grantOutcome,
  promote,
  removeTicket,
} from "./locks.js";
import { refuseRequestId, rememberRequest } from "./requests.js";
import { storeOutcome } from "./session-log.js";
import {
  type Hold,
  type Lease,
  type Lock,
  type PastRequest,
  requestKey,
  type Session,
  type State,
  type Ticket,
} from "./state.js";
import type { Acquire, CancelAcquire, Effects, Outcome, Refusal, Route } from "./types.js";
import { viewHold } from "./views.js";

/** Who sent a request and where the answer goes. */
export interface Caller {
  readonly route: Route;
  /** Null: a unary call. */
  readonly session: Session | null;
  /** 0: a unary call. */
  readonly seq: number;
}

const cancelledRequest: Refusal = {
  kind: "refused",
  reason: "CANCELLED_REQUEST",
  message: "this Acquire was cancelled",
};

/** Returns the answer, or null when it follows later through the caller's route. */
export function acquire(state: State, fx: Effects, request: Acquire, caller: Caller, nowMs: number): Outcome | null {
  if (caller.session === null && request.requestId !== "") {
    const leaseId = request.holder.kind === "lease" ? request.holder.leaseId : "";
    const known = state.requests.get(requestKey(leaseId, request.requestId));
    if (known !== undefined) return acquireAgain(state, fx, known, request, caller, nowMs);
    const refusal = refuseRequestId(state);
    if (refusal !== null) return refusal;
  }
  if (state.halted !== "") return { kind: "refused", reason: "STORE_DOWN", message: state.halted };
  const lock = state.locks.get(request.name);
  if (lock !== undefined) promote(state, fx, lock, nowMs);
  return acquireNew(state, fx, request, caller, nowMs);
}

function acquireNew(state: State, fx: Effects, request: Acquire, caller: Caller, nowMs: number): Outcome | null {
  const { limits } = state;
  const lock = state.locks.get(request.name);
  const free = lock === undefined || (lock.hold === null && lock.head === null);
  const named = request.holder.kind === "own" && caller.session === null ? null : findLease(state, request, caller);
  if (named !== null && named.kind === "refused") return named;
  if (!free && request.waitMs === 0) {
    fx.events.push({ kind: "acquireEnded", outcome: "busy", waitedMs: 0 });
    return busy(lock, false, request.wallMs, nowMs);
  }
  if (lock === undefined && state.locks.size >= limits.locksMax) {
    return { kind: "refused", reason: "LIMIT", message: `the server has its ${limits.locksMax} locks` };
  }
  if (lock !== undefined && !free && lock.waiters >= limits.waitersPerLockMax) {
    return { kind: "refused", reason: "LIMIT", message: `${limits.waitersPerLockMax} wait for this lock already` };
  }
  if (named !== null && named.holds.size + named.tickets.size >= limits.holdsPerLeaseMax) {
    return {
      kind: "refused",
      reason: "LIMIT",
      message: `the lease has its ${limits.holdsPerLeaseMax} holds and waits`,
    };
  }
  const lease = named ?? createLease(state, fx, ownLease(request), true, null, 0, nowMs);
  if (lease.kind === "refused") return lease;
  const claim: Claim = {
    lease,
    seq: caller.seq,
    requestId: caller.session === null ? request.requestId : "",
    owner: request.owner,
    metadata: request.metadata,
  };
  if (free) {
    const hold = grant(state, fx, ensureLock(state, request.name), claim, request.wallMs, nowMs);
    fx.events.push({ kind: "granted", name: request.name, token: hold.token, waitedMs: 0 });
    return grantOutcome(hold, nowMs);
  }
  const ticket = enqueue(state, fx, lock, claim, request.waitMs, caller.route, request.wallMs, nowMs);
  attachTicket(state, ticket, caller.route, pollUntil(request, caller, lease, nowMs));
  return null;
}

function ownLease(request: Acquire) {
  if (request.holder.kind !== "own") throw new Error("not an Acquire with a lease of its own");
  const { leaseId, ttlMs } = request.holder;
  return { leaseId, ttlMs, owner: request.owner, metadata: "" };
}

function findLease(state: State, request: Acquire, caller: Caller): Lease | Refusal {
  const { holder } = request;
  if (holder.kind === "session") {
    const lease = caller.session?.leases.get(holder.seq);
    return lease === undefined || lease.dead !== null ? unknownLease : lease;
  }
  if (caller.session !== null) {
    return { kind: "refused", reason: "INVALID", message: "on a session, name the lease by session_lease" };
  }
  const lease = holder.kind === "lease" ? liveLease(state, holder.leaseId) : undefined;
  if (lease?.own) {
    // A second hold would be left without a lease when the first one ends.
    return {
      kind: "refused",
      reason: "INVALID",
      message: "this lease was made for one grant only; create one for more",
    };
  }
  return lease ?? unknownLease;
}

/** A call is held open for `pollMs`, but so that its lease is renewed in time by the next one. */
function pollUntil(request: Acquire, caller: Caller, lease: Lease, nowMs: number): number {
  if (caller.session !== null) return Number.POSITIVE_INFINITY;
  return nowMs + Math.min(request.pollMs, lease.ttlMs / 3);
}

/** The same request id again: a poll, or a duplicate. */
function acquireAgain(
  state: State,
  fx: Effects,
  known: Hold | Ticket | PastRequest,
  request: Acquire,
  caller: Caller,
  nowMs: number,
): Outcome | null {
  if (known.kind === "request") return pastOutcome(state, known, request, nowMs);
  if (known.lease.dead !== null) return unknownLease;
  if (known.lock.name !== request.name) {
    return { kind: "refused", reason: "INVALID", message: "this request_id belongs to an Acquire of another lock" };
  }
  renewLease(state, fx, known.lease, nowMs);
  if (known.kind === "hold") {
    state.deadlines.delete(known); // it waited to be fetched, and here its caller is
    known.told++;
    return grantOutcome(known, nowMs);
  }
  if (known.route !== null) answer(fx, known, waiting(state, known, nowMs)); // a newer call takes over
  if (known.waitUntilMs <= nowMs) {
    detachTicket(state, known, nowMs);
    return timeOut(state, fx, known, nowMs);
  }
  attachTicket(state, known, caller.route, pollUntil(request, caller, known.lease, nowMs));
  promote(state, fx, known.lock, nowMs);
  return null;
}

function pastOutcome(state: State, past: PastRequest, request: Acquire, nowMs: number): Outcome {
  if (past.end === "cancelled") return cancelledRequest;
  if (past.end === "timedOut") return busy(state.locks.get(request.name), true, request.wallMs, nowMs);
  return {
    kind: "refused",
    reason: "STALE_TOKEN",
    message: `this Acquire was granted token ${past.token}, and that grant has ended`,
  };
}

type Busy = Extract<Outcome, { kind: "busy" }>;

function busy(lock: Lock | undefined, timedOut: boolean, wallMs: number, nowMs: number): Busy {
  const hold = lock?.hold ?? null;
  return {
    kind: "busy",
    holders: hold === null ? [] : [viewHold(hold, wallMs, nowMs)],
    waiters: lock?.waiters ?? 0,
    reserved: hold === null && lock !== undefined && lock.head !== null,
    timedOut,
  };
}

/** Ends a ticket whose wait is over. Returns what its caller is told, and has told it if it was attached. */
export function timeOut(state: State, fx: Effects, ticket: Ticket, nowMs: number): Outcome {
  const { lock } = ticket;
  const wallMs = ticket.queuedWallMs + (nowMs - ticket.queuedAtMs);
  const key = ticket.requestId === "" ? "" : requestKey(ticket.lease.own ? "" : ticket.lease.id, ticket.requestId);
  const outcome = { ...busy(lock, true, wallMs, nowMs), waiters: lock.waiters - 1 };
  removeTicket(state, fx, ticket, outcome, nowMs);
  rememberRequest(state, fx, key, "timedOut", 0, nowMs);
  promote(state, fx, lock, nowMs);
  return outcome;
}

/** Walks the queue: at most the bounded number of waiters of one lock. */
export function waiting(state: State, ticket: Ticket, nowMs: number): Outcome {
  let position = 1;
  for (let ahead = ticket.previous; ahead !== null; ahead = ahead.previous) position++;
  return {
    kind: "waiting",
    ticketId: `T${ticket.serial}`,
    position,
    pollWithinMs: Math.max(0, Math.floor(Math.min(state.limits.resumeMs, ticket.lease.deadlineMs - nowMs))),
  };
}

/** Withdraws an Acquire and makes sure that no duplicate of it ever has an effect. */
export function cancelAcquire(
  state: State,
  fx: Effects,
  request: CancelAcquire,
  caller: Caller,
  nowMs: number,
): Outcome {
  const { target } = request;
  if (target.kind === "session") {
    if (caller.session === null) {
      return { kind: "refused", reason: "INVALID", message: "session_acquire is for sessions" };
    }
    const effect = caller.session.unacked.get(target.seq) ?? acknowledgedHold(caller.session, target.seq);
    if (effect?.kind === "lease" || effect?.kind === "released") {
      return { kind: "refused", reason: "INVALID", message: `command ${target.seq} is not an Acquire` };
    }
    const what = withdraw(state, fx, effect, nowMs);
    storeOutcome(state, caller.session, target.seq, { kind: "cancelled" });
    return { kind: "cancelled", what };
  }
  const key = requestKey(target.leaseId, target.requestId);
  const known = state.requests.get(key);
  if (known === undefined) {
    const refusal = refuseRequestId(state);
    if (refusal !== null) return refusal;
  }
  const what = withdraw(state, fx, known, nowMs);
  if (known?.kind !== "request" || known.end !== "cancelled") rememberRequest(state, fx, key, "cancelled", 0, nowMs);
  return { kind: "cancelled", what };
}

/** The client may have the answer already, and withdraw all the same. */
function acknowledgedHold(session: Session, seq: number): Hold | undefined {
  for (const hold of session.holds) if (hold.seq === seq) return hold;
  return undefined;
}

function withdraw(
  state: State,
  fx: Effects,
  entry: Hold | Ticket | { readonly kind: string } | undefined,
  nowMs: number,
): "nothing" | "ticket" | "grant" {
  if (entry?.kind === "ticket") {
    const ticket = entry as Ticket;
    removeTicket(state, fx, ticket, cancelledRequest, nowMs);
    promote(state, fx, ticket.lock, nowMs);
    return "ticket";
  }
  if (entry?.kind === "hold" && (entry as Hold).lease.dead === null) {
    endHold(state, fx, entry as Hold, "cancelled", nowMs);
    return "grant";
  }
  return "nothing";
}

/**
 * The call of a unary Acquire is gone. While it waited: the ticket is detached. After a grant that could not be
 * written: the hold is taken back, at once when nobody can ask for it again, else unless somebody does within
 * `resumeMs`. Not while another call that was told of the same grant may have arrived.
 */
export function callGone(state: State, fx: Effects, route: Route, token: number | null, nowMs: number): void {
  const ticket = state.callTickets.get(route);
  if (ticket !== undefined) {
    if (ticket.requestId !== "") detachTicket(state, ticket, nowMs);
    else {
      removeTicket(state, fx, ticket, null, nowMs);
      promote(state, fx, ticket.lock, nowMs);
    }
  }
  const hold = token === null ? undefined : state.holds.get(token);
  if (hold === undefined || hold.lease.dead !== null || --hold.told > 0) return;
  if (hold.requestId !== "") state.deadlines.set(hold, nowMs + state.limits.resumeMs);
  else endHold(state, fx, hold, "undelivered", nowMs);
}

/** Revokes a lease on behalf of its client. */
export function revoke(state: State, fx: Effects, lease: Lease | undefined, nowMs: number): Outcome {
  if (lease === undefined || lease.dead !== null) return { kind: "revoked", revoked: false };
  endLease(state, fx, lease, "revoked", nowMs, state.limits.expirySliceMax);
  return { kind: "revoked", revoked: true };
}
