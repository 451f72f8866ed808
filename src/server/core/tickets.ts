/**
 * Tickets: Acquires that wait.
 *
 * A ticket is attached while there is somebody to deliver a grant to. When nobody is (its connection broke, or it is
 * between two polls) it keeps its places for a while, and nobody behind it is granted.
 */
import { claimAll, dropClaims } from "./claims.js";
import { touch } from "./holders.js";
import type { Bid, Wanted } from "./holds.js";
import { removeLease, unknownLease } from "./leases.js";
import { countUsage } from "./principals.js";
import { addPlace, countWaiters, positionOf, removePlace } from "./queue.js";
import { deleteTicket } from "./records.js";
import { keyOf } from "./requests.js";
import type { Place, State, Ticket } from "./state.js";
import type { Effects, Outcome, Route } from "./types.js";
import { viewPlace } from "./views.js";

/** What a ticket has beside what any bid has. */
export interface WaitTerms {
  readonly all: boolean;
  readonly heldTokens: readonly number[];
  readonly waitMs: number;
  readonly queuedWallMs: number;
}

/** Makes a ticket. It is not in any queue yet. */
export function makeTicket(
  serial: number,
  wanted: readonly Wanted[],
  bid: Bid,
  terms: WaitTerms,
  nowMs: number,
): Ticket {
  const places: Place[] = [];
  const ticket: Ticket = {
    kind: "ticket",
    serial,
    places,
    all: terms.all,
    lease: bid.lease,
    seq: bid.seq,
    requestId: bid.requestId,
    owner: bid.owner,
    metadata: bid.metadata,
    contenderId: bid.contenderId,
    heldTokens: terms.heldTokens,
    lockDelayMs: bid.lockDelayMs,
    maxHoldMs: bid.maxHoldMs,
    waitMs: terms.waitMs,
    queuedWallMs: terms.queuedWallMs,
    queuedAtMs: nowMs,
    waitUntilMs: nowMs + terms.waitMs,
    askedAtMs: nowMs,
    pollUntilMs: Number.POSITIVE_INFINITY,
    route: null,
    claims: null,
    dueMs: 0,
    heapIndex: -1,
  };
  for (const { lock, item } of wanted) places.push({ ticket, lock, item, previous: null, next: null });
  return ticket;
}

/** Enters a ticket into its queues and the indexes. */
export function addTicket(state: State, ticket: Ticket): void {
  const { lease, places } = ticket;
  for (const place of places) addPlace(place);
  state.tickets.set(ticket.serial, ticket);
  lease.tickets.add(ticket);
  lease.waits += places.length;
  countUsage(state, lease.principal, "waiters", places.length);
  if (ticket.seq > 0 && lease.session !== null) {
    lease.session.tickets.set(ticket.seq, ticket);
    lease.session.unacked.set(ticket.seq, ticket);
  }
  const key = keyOf(ticket);
  if (key !== "") state.requests.set(key, ticket);
  claimAll(state, ticket);
}

/** Takes a ticket out of its queues and the indexes. Whoever calls sees to it that its locks are looked at. */
export function unlinkTicket(state: State, ticket: Ticket): void {
  const { lease, places } = ticket;
  for (const place of places) removePlace(place);
  state.tickets.delete(ticket.serial);
  lease.tickets.delete(ticket);
  lease.waits -= places.length;
  countUsage(state, lease.principal, "waiters", -places.length);
  if (ticket.seq > 0 && lease.session !== null) {
    lease.session.tickets.delete(ticket.seq);
    lease.session.unacked.delete(ticket.seq);
  }
  const key = keyOf(ticket);
  if (key !== "") state.requests.delete(key);
  state.deadlines.delete(ticket);
  forgetCall(state, ticket);
  dropClaims(state, ticket);
}

/** There is somebody to deliver a grant to: a call that waits until `pollUntilMs`, or the stream of a session. */
export function attachTicket(state: State, ticket: Ticket, route: Route, pollUntilMs: number, nowMs: number): void {
  forgetCall(state, ticket);
  ticket.route = route;
  ticket.askedAtMs = nowMs;
  ticket.pollUntilMs = pollUntilMs;
  if (route.kind === "call") state.callTickets.set(route, ticket);
  state.deadlines.set(ticket, Math.min(ticket.waitUntilMs, pollUntilMs));
}

/** Somebody is there again: it may be its turn. */
export function reattachTicket(state: State, ticket: Ticket, route: Route, pollUntilMs: number, nowMs: number): void {
  attachTicket(state, ticket, route, pollUntilMs, nowMs);
  touchAll(state, ticket);
}

/** Nobody is there: the ticket keeps its places for `resumeMs`. */
export function detachTicket(state: State, ticket: Ticket, nowMs: number): void {
  forgetCall(state, ticket);
  ticket.route = null;
  state.deadlines.set(ticket, nowMs + state.limits.resumeMs);
}

function forgetCall(state: State, ticket: Ticket): void {
  if (ticket.route?.kind === "call") state.callTickets.delete(ticket.route);
}

export function touchAll(state: State, ticket: Ticket): void {
  for (const { lock } of ticket.places) touch(state, lock);
}

/** Takes a ticket out of its queues without a grant and, if somebody waits there, answers. */
export function removeTicket(state: State, fx: Effects, ticket: Ticket, outcome: Outcome | null, nowMs: number): void {
  const { lease } = ticket;
  unlinkTicket(state, ticket);
  deleteTicket(fx, ticket);
  for (const place of ticket.places) {
    const waitedMs = nowMs - ticket.queuedAtMs;
    const waiter = viewPlace(place, 0, ticket.queuedWallMs + waitedMs, null);
    fx.events.push({ kind: "dequeued", name: place.lock.name, timestamp: state.clock.take(1), waiter });
  }
  if (outcome !== null) {
    answer(fx, ticket, outcome);
    fx.events.push({
      kind: "acquireEnded",
      outcome: endOf(outcome),
      mode: modeOf(ticket),
      waitedMs: nowMs - ticket.queuedAtMs,
    });
  }
  touchAll(state, ticket);
  if (lease.own) removeLease(state, fx, lease);
}

/** A ticket has entered its queues: for the watchers. */
export function announceTicket(state: State, fx: Effects, ticket: Ticket): void {
  for (const place of ticket.places) {
    const waiter = viewPlace(place, countWaiters(state, place.lock), ticket.queuedWallMs, null);
    fx.events.push({ kind: "queued", name: place.lock.name, timestamp: state.clock.take(1), waiter });
  }
}

const modeOf = (ticket: Ticket) => (ticket.places[0] as Place).item.mode;

function endOf(outcome: Outcome): "timeout" | "cancelled" | "expired" | "deadlock" {
  if (outcome.kind === "busy") return "timeout";
  if (outcome.kind === "refused" && outcome.reason === "DEADLOCK") return "deadlock";
  return outcome === unknownLease ? "expired" : "cancelled";
}

/** Tells whoever waits at the ticket. */
export function answer(fx: Effects, ticket: Ticket, outcome: Outcome): void {
  if (ticket.route === null) return;
  fx.replies.push({ kind: "outcome", route: ticket.route, seq: ticket.seq, outcome, clockAheadBy: 0 });
}

/** What a poll is told that has lasted long enough. */
export function waiting(state: State, ticket: Ticket, nowMs: number): Outcome {
  let position = 1;
  for (const place of ticket.places) {
    position = positionOf(place);
    if (position > 1) break;
  }
  return {
    kind: "waiting",
    all: ticket.all,
    ticketId: `T${ticket.serial}`,
    position,
    pollWithinMs: Math.max(0, Math.floor(Math.min(state.limits.resumeMs, ticket.lease.deadlineMs - nowMs))),
  };
}
