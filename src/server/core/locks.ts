/**
 * Locks: who holds them, who waits, who is next.
 *
 * The queue is strictly first in, first out. When a lock becomes free the first ticket gets it, if somebody is there to
 * be told; a detached ticket (its connection broke, or it is between two polls) keeps the lock reserved, without a
 * token, until it comes back or its time is up. A lock without holder and queue is forgotten.
 */
import { remainingMs, removeLease, unknownLease } from "./leases.js";
import { deleteHold, deleteTicket, putHold, putTicket } from "./records.js";
import { keyOf, rememberRequest } from "./requests.js";
import { storeOutcome } from "./session-log.js";
import type { Hold, Lease, Lock, State, Ticket } from "./state.js";
import type { Effects, HoldEnd, Outcome, Route } from "./types.js";

/** What a hold or a ticket is made from. */
export interface Claim {
  readonly lease: Lease;
  readonly seq: number;
  readonly requestId: string;
  readonly owner: string;
  readonly metadata: string;
}

/** The lock of that name, made if there is none. */
export function ensureLock(state: State, name: string): Lock {
  let lock = state.locks.get(name);
  if (lock === undefined) {
    lock = { name, hold: null, head: null, tail: null, waiters: 0 };
    state.locks.set(name, lock);
    state.lockIndex.add(name);
  }
  return lock;
}

/** Gives a free lock to the claim. */
export function grant(state: State, fx: Effects, lock: Lock, claim: Claim, wallMs: number, nowMs: number): Hold {
  if (state.token >= Number.MAX_SAFE_INTEGER) throw new Error("the token range is used up");
  const hold: Hold = {
    kind: "hold",
    token: ++state.token,
    timestamp: state.clock.take(1),
    lock,
    lease: claim.lease,
    seq: claim.seq,
    requestId: claim.requestId,
    owner: claim.owner,
    metadata: claim.metadata,
    grantedWallMs: wallMs,
    grantedAtMs: nowMs,
    told: 1,
    dueMs: 0,
    heapIndex: -1,
  };
  addHold(state, hold);
  if (hold.seq > 0) hold.lease.session?.unacked.set(hold.seq, hold);
  putHold(fx, hold);
  return hold;
}

/** Enters a hold into the indexes. */
export function addHold(state: State, hold: Hold): void {
  hold.lock.hold = hold;
  hold.lease.holds.add(hold);
  state.holds.set(hold.token, hold);
  if (hold.seq > 0) hold.lease.session?.holds.add(hold);
  const key = keyOf(hold);
  if (key !== "") state.requests.set(key, hold);
}

/** Ends a hold and lets the next one in. An own lease goes with its hold. */
export function endHold(state: State, fx: Effects, hold: Hold, end: HoldEnd, nowMs: number): void {
  const { lock, lease } = hold;
  lock.hold = null;
  lease.holds.delete(hold);
  state.holds.delete(hold.token);
  state.deadlines.delete(hold);
  deleteHold(fx, hold);
  if (hold.seq > 0 && lease.session !== null) {
    lease.session.holds.delete(hold);
    if (lease.session.unacked.get(hold.seq) === hold) {
      storeOutcome(state, lease.session, hold.seq, { kind: "ended", token: hold.token });
    }
  }
  rememberRequest(state, fx, keyOf(hold), "ended", hold.token, nowMs);
  if (lease.own) removeLease(state, fx, lease);
  fx.events.push({ kind: "holdEnded", name: lock.name, token: hold.token, end, heldMs: nowMs - hold.grantedAtMs });
  promote(state, fx, lock, nowMs);
}

/** Puts a ticket at the end of the queue. */
export function enqueue(
  state: State,
  fx: Effects,
  lock: Lock,
  claim: Claim,
  waitMs: number,
  route: Route,
  wallMs: number,
  nowMs: number,
): Ticket {
  const ticket: Ticket = {
    kind: "ticket",
    serial: ++state.serial,
    lock,
    lease: claim.lease,
    seq: claim.seq,
    requestId: claim.requestId,
    owner: claim.owner,
    metadata: claim.metadata,
    waitMs,
    queuedWallMs: wallMs,
    queuedAtMs: nowMs,
    waitUntilMs: nowMs + waitMs,
    pollUntilMs: Number.POSITIVE_INFINITY,
    route,
    previous: null,
    next: null,
    dueMs: 0,
    heapIndex: -1,
  };
  addTicket(state, ticket);
  putTicket(fx, ticket);
  return ticket;
}

/** Enters a ticket into the queue and the indexes. */
export function addTicket(state: State, ticket: Ticket): void {
  const { lock, lease } = ticket;
  ticket.previous = lock.tail;
  if (lock.tail === null) lock.head = ticket;
  else lock.tail.next = ticket;
  lock.tail = ticket;
  lock.waiters++;
  state.waiters++;
  lease.tickets.add(ticket);
  if (ticket.seq > 0 && lease.session !== null) {
    lease.session.tickets.set(ticket.seq, ticket);
    lease.session.unacked.set(ticket.seq, ticket);
  }
  const key = keyOf(ticket);
  if (key !== "") state.requests.set(key, ticket);
}

/** There is somebody to deliver a grant to: a call that waits until `pollUntilMs`, or the stream of a session. */
export function attachTicket(state: State, ticket: Ticket, route: Route, pollUntilMs: number): void {
  forgetCall(state, ticket);
  ticket.route = route;
  ticket.pollUntilMs = pollUntilMs;
  if (route.kind === "call") state.callTickets.set(route, ticket);
  state.deadlines.set(ticket, Math.min(ticket.waitUntilMs, pollUntilMs));
}

/** Nobody is there: the ticket keeps its place for `resumeMs`. */
export function detachTicket(state: State, ticket: Ticket, nowMs: number): void {
  forgetCall(state, ticket);
  ticket.route = null;
  state.deadlines.set(ticket, nowMs + state.limits.resumeMs);
}

function forgetCall(state: State, ticket: Ticket): void {
  if (ticket.route?.kind === "call") state.callTickets.delete(ticket.route);
}

/** Takes a ticket out of its queue and, if somebody waits there, answers. The caller promotes the lock afterwards. */
export function removeTicket(state: State, fx: Effects, ticket: Ticket, outcome: Outcome | null, nowMs: number): void {
  unlinkTicket(state, ticket);
  deleteTicket(fx, ticket);
  const { lease } = ticket;
  if (ticket.seq > 0) lease.session?.unacked.delete(ticket.seq);
  const key = keyOf(ticket);
  if (key !== "") state.requests.delete(key);
  if (outcome !== null) {
    answer(fx, ticket, outcome);
    fx.events.push({ kind: "acquireEnded", outcome: endOf(outcome), waitedMs: nowMs - ticket.queuedAtMs });
  }
  if (lease.own) removeLease(state, fx, lease);
}

function endOf(outcome: Outcome): "timeout" | "cancelled" | "expired" {
  if (outcome.kind === "busy") return "timeout";
  return outcome === unknownLease ? "expired" : "cancelled";
}

function unlinkTicket(state: State, ticket: Ticket): void {
  const { lock, lease } = ticket;
  if (ticket.previous === null) lock.head = ticket.next;
  else ticket.previous.next = ticket.next;
  if (ticket.next === null) lock.tail = ticket.previous;
  else ticket.next.previous = ticket.previous;
  lock.waiters--;
  state.waiters--;
  lease.tickets.delete(ticket);
  if (ticket.seq > 0) lease.session?.tickets.delete(ticket.seq);
  state.deadlines.delete(ticket);
  forgetCall(state, ticket);
}

/** Tells whoever waits at the ticket. */
export function answer(fx: Effects, ticket: Ticket, outcome: Outcome): void {
  if (ticket.route === null) return;
  fx.replies.push({ kind: "outcome", route: ticket.route, seq: ticket.seq, outcome, clockAheadBy: 0 });
}

/**
 * Brings a lock to rest: a hold whose lease is dead ends, a free lock goes to the first ticket that is attached and
 * alive, a lock that nobody holds or waits for is forgotten. Tickets of dead leases that stand in the way are cleared
 * away, but no more than a slice of them: the collection of their leases comes by again.
 */
export function promote(state: State, fx: Effects, lock: Lock, nowMs: number): void {
  if (lock.hold !== null) {
    if (lock.hold.lease.dead === null) return;
    endHold(state, fx, lock.hold, lock.hold.lease.dead, nowMs);
    return;
  }
  for (let cleared = 0; lock.head !== null && lock.head.lease.dead !== null; cleared++) {
    if (cleared >= state.limits.expirySliceMax) return;
    removeTicket(state, fx, lock.head, unknownLease, nowMs);
  }
  const ticket = lock.head;
  if (ticket === null) {
    if (state.locks.get(lock.name) === lock) {
      state.locks.delete(lock.name);
      state.lockIndex.delete(lock.name);
    }
    return;
  }
  if (ticket.route !== null && state.halted === "") grantToTicket(state, fx, ticket, nowMs);
}

function grantToTicket(state: State, fx: Effects, ticket: Ticket, nowMs: number): void {
  const waitedMs = nowMs - ticket.queuedAtMs;
  unlinkTicket(state, ticket);
  deleteTicket(fx, ticket);
  const hold = grant(state, fx, ticket.lock, ticket, ticket.queuedWallMs + waitedMs, nowMs);
  answer(fx, ticket, grantOutcome(hold, nowMs));
  fx.events.push({ kind: "granted", name: ticket.lock.name, token: hold.token, waitedMs });
}

export function grantOutcome(hold: Hold, nowMs: number): Outcome {
  return {
    kind: "grant",
    token: hold.token,
    timestamp: hold.timestamp,
    leaseId: hold.lease.id,
    leaseTtlMs: hold.lease.ttlMs,
    leaseRemainingMs: remainingMs(hold.lease, nowMs),
  };
}
