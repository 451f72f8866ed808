/**
 * Acquire, for one lock or for several together, and its polls.
 *
 * A unary wait is a long poll: each call attaches the ticket of its request id for a while; between two calls the
 * ticket is detached and keeps its place. On a session the ticket stays attached as long as the stream does.
 */
import { claimable, isHeld } from "./claims.js";
import { deadlocked, findKnot, isWaitedFor, refuse } from "./deadlock.js";
import { ensureLock, fits } from "./holders.js";
import { AT_ONCE, type Bid, endDeadHolds, grant, grantOutcome, schedule, type Wanted } from "./holds.js";
import { createLease, liveLease, renewLease, unknownLease } from "./leases.js";
import { denied, mayUse, refuseQuota } from "./principals.js";
import { firstPlace } from "./queue.js";
import { refuseQuiet } from "./quiet.js";
import { putTicket } from "./records.js";
import { keyOf, refuseRequestId, rememberRequest } from "./requests.js";
import { type Hold, type Lease, type PastRequest, requestKey, type Session, type State, type Ticket } from "./state.js";
import {
  addTicket,
  announceTicket,
  answer,
  attachTicket,
  detachTicket,
  makeTicket,
  reattachTicket,
  removeTicket,
  touchAll,
  unlinkTicket,
  waiting,
} from "./tickets.js";
import type { Acquire, Effects, LockItem, Outcome, Principal, Refusal, Route } from "./types.js";
import { viewBusy } from "./views.js";

/** Who sent a request and where the answer goes. */
export interface Caller {
  readonly route: Route;
  readonly principal: Principal;
  /** Null: a unary call. */
  readonly session: Session | null;
  /** 0: a unary call. */
  readonly seq: number;
}

export const cancelledRequest: Refusal = {
  kind: "refused",
  reason: "CANCELLED_REQUEST",
  message: "this Acquire was cancelled",
};

/** Returns the answer, or null when it follows later through the caller's route. */
export function acquire(state: State, fx: Effects, request: Acquire, caller: Caller, nowMs: number): Outcome | null {
  const leaseId = request.holder.kind === "lease" ? request.holder.leaseId : "";
  const lease = liveLease(state, leaseId);
  if (lease !== undefined && !mayUse(caller.principal, lease.principal)) return denied("lease");
  if (caller.session === null && request.requestId !== "") {
    const known = state.requests.get(requestKey(leaseId, caller.principal.name, request.requestId));
    if (known !== undefined) return acquireAgain(state, fx, known, request, caller, nowMs);
    const refusal = refuseRequestId(state);
    if (refusal !== null) return refusal;
  }
  if (state.halted !== "") return { kind: "refused", reason: "STORE_DOWN", message: state.halted };
  return refuseQuiet(state, nowMs) ?? acquireNew(state, fx, request, caller, nowMs);
}

function acquireNew(state: State, fx: Effects, request: Acquire, caller: Caller, nowMs: number): Outcome | null {
  const named = request.holder.kind === "own" && caller.session === null ? null : findLease(state, request, caller);
  if (named !== null && named.kind === "refused") return named;
  const notTheirs = claimable(state, request.heldTokens, named, caller.session);
  if (notTheirs !== null) return notTheirs;
  const taken = firstTaken(state, request.items, nowMs);
  if (taken !== null && request.waitMs === 0) {
    fx.events.push({ kind: "acquireEnded", outcome: "busy", mode: taken.mode, waitedMs: 0 });
    return viewBusy(state, taken.name, request.all, false, 0, request.wallMs, nowMs);
  }
  const full = refuseFull(state, request.items, taken !== null, named, caller.principal);
  if (full !== null) return full;
  const lease = named ?? createLease(state, fx, ownLease(request), true, caller.principal, null, 0, nowMs);
  if (lease.kind === "refused") return lease;
  const bid: Bid = {
    lease,
    seq: caller.seq,
    requestId: caller.session === null ? request.requestId : "",
    owner: request.owner,
    metadata: request.metadata,
    contenderId: request.contenderId,
    lockDelayMs: request.lockDelayMs,
    maxHoldMs: request.maxHoldMs,
  };
  if (taken === null && state.collecting.size > 0) {
    for (const { name } of request.items) {
      const lock = state.locks.get(name);
      if (lock !== undefined) endDeadHolds(state, fx, lock, nowMs);
    }
  }
  const wanted = request.items.map((item): Wanted => ({ lock: ensureLock(state, item.name), item }));
  if (taken !== null) return wait(state, fx, wanted, bid, request, caller, nowMs);
  return grantOutcome(grant(state, fx, wanted, request.all, bid, AT_ONCE, request.wallMs, nowMs), nowMs);
}

/** The first of the locks that cannot be had at once: somebody waits for it already, or does not let this one in. */
function firstTaken(state: State, items: readonly LockItem[], nowMs: number): LockItem | null {
  for (const item of items) {
    const lock = state.locks.get(item.name);
    if (lock !== undefined && (firstPlace(lock) !== null || !fits(state, lock, item, nowMs))) return item;
  }
  return null;
}

/** Null, or which bound is reached. */
function refuseFull(
  state: State,
  items: readonly LockItem[],
  waits: boolean,
  lease: Lease | null,
  principal: Principal,
): Refusal | null {
  const { limits, locks } = state;
  let unknown = 0;
  for (const { name } of items) {
    const lock = locks.get(name);
    if (lock === undefined) unknown++;
    else if (waits && lock.waiters >= limits.waitersPerLockMax) {
      return { kind: "refused", reason: "LIMIT", message: `${limits.waitersPerLockMax} wait for this lock already` };
    }
  }
  if (locks.size + unknown > limits.locksMax) {
    return { kind: "refused", reason: "LIMIT", message: `the server has its ${limits.locksMax} locks` };
  }
  if (lease !== null && lease.holds.size + lease.waits + items.length > limits.holdsPerLeaseMax) {
    const message = `the lease has its ${limits.holdsPerLeaseMax} holds and waits`;
    return { kind: "refused", reason: "LIMIT", message };
  }
  // The locks of a principal that waits are counted now and not when its turn comes: then nobody behind it could go on.
  const refusal = refuseQuota(state, principal, "locks", items.length);
  return refusal ?? (waits ? refuseQuota(state, principal, "waiters", items.length) : null);
}

function ownLease(request: Acquire) {
  if (request.holder.kind !== "own") throw new Error("not an Acquire with a lease of its own");
  const { leaseId, ttlMs } = request.holder;
  return { leaseId, ttlMs, owner: request.owner, metadata: "", progressEveryMs: 0 };
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

/** Takes a place in each queue, unless that would make waits that can never end. */
function wait(
  state: State,
  fx: Effects,
  wanted: readonly Wanted[],
  bid: Bid,
  request: Acquire,
  caller: Caller,
  nowMs: number,
): Outcome | null {
  const { all, waitMs, wallMs: queuedWallMs } = request;
  // Those that hold something now: a token that nobody has yet must not come to mean something after a restart.
  const heldTokens = request.heldTokens.filter((token) => isHeld(state, token));
  const ticket = makeTicket(++state.serial, wanted, bid, { all, heldTokens, waitMs, queuedWallMs }, nowMs);
  addTicket(state, ticket);
  const knot = isWaitedFor(ticket) ? findKnot(state, fx, ticket) : null;
  if (knot?.at(-1) === ticket) {
    const refusal = deadlocked(fx, knot);
    unlinkTicket(state, ticket);
    touchAll(state, ticket);
    fx.events.push({ kind: "acquireEnded", outcome: "deadlock", mode: (wanted[0] as Wanted).item.mode, waitedMs: 0 });
    return refusal;
  }
  putTicket(fx, ticket);
  attachTicket(state, ticket, caller.route, pollUntil(request, caller, bid.lease, nowMs), nowMs);
  announceTicket(state, fx, ticket);
  if (knot !== null) refuse(state, fx, knot, nowMs);
  return null;
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
  if (!isSameRequest(known, request)) {
    return { kind: "refused", reason: "INVALID", message: "this request_id belongs to an Acquire of another lock" };
  }
  renewLease(state, fx, known.lease, false, nowMs);
  if (known.kind === "hold") {
    const outcome = grantOutcome(known, nowMs);
    if (outcome.kind === "grant") for (const hold of known.set?.holds ?? [known]) fetched(state, hold);
    return outcome;
  }
  if (known.route !== null) answer(fx, known, waiting(state, known, nowMs)); // a newer call takes over
  if (known.waitUntilMs <= nowMs) {
    detachTicket(state, known, nowMs);
    return timeOut(state, fx, known, nowMs);
  }
  reattachTicket(state, known, caller.route, pollUntil(request, caller, known.lease, nowMs), nowMs);
  return null;
}

/** A hold that may have waited to be fetched, and here its caller is. */
function fetched(state: State, hold: Hold): void {
  hold.told++;
  if (hold.unfetchedUntilMs === Number.POSITIVE_INFINITY) return;
  hold.unfetchedUntilMs = Number.POSITIVE_INFINITY;
  schedule(state, hold);
}

function isSameRequest(known: Hold | Ticket, { all, items }: Acquire): boolean {
  if (known.kind === "ticket") {
    if (known.all !== all || known.places.length !== items.length) return false;
    return known.places.every((place, index) => place.item.name === items[index]?.name);
  }
  const { set } = known;
  if (set === null) return !all && known.lock.name === items[0]?.name;
  if (!all || set.size !== items.length) return false;
  return set.holds.every((hold) => hold.lock.name === items[hold.token - set.firstToken]?.name);
}

function pastOutcome(state: State, past: PastRequest, request: Acquire, nowMs: number): Outcome {
  switch (past.end) {
    case "cancelled":
      return cancelledRequest;
    case "deadlock":
      return { kind: "refused", reason: "DEADLOCK", message: "this wait would never have ended" };
    case "timedOut": {
      const { name } = firstTaken(state, request.items, nowMs) ?? (request.items[0] as LockItem);
      return viewBusy(state, name, request.all, true, 0, request.wallMs, nowMs);
    }
    case "ended": {
      const message = `this Acquire was granted token ${past.token}, and that grant has ended`;
      return { kind: "refused", reason: "STALE_TOKEN", message };
    }
  }
}

/** Ends a ticket whose wait is over. Returns what its caller is told, and has told it if it was attached. */
export function timeOut(state: State, fx: Effects, ticket: Ticket, nowMs: number): Outcome {
  const wallMs = ticket.queuedWallMs + (nowMs - ticket.queuedAtMs);
  const key = keyOf(ticket);
  const { lock } =
    ticket.places.find((place) => firstPlace(place.lock) !== place || !fits(state, place.lock, place.item, nowMs)) ??
    (ticket.places[0] as Wanted);
  const outcome = viewBusy(state, lock.name, ticket.all, true, 1, wallMs, nowMs);
  removeTicket(state, fx, ticket, outcome, nowMs);
  rememberRequest(state, fx, key, "timedOut", 0, nowMs);
  return outcome;
}
