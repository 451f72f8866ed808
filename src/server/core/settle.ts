/**
 * The one rule of granting.
 *
 * A ticket is granted when it is alive and attached, is the first in the queue of each of its locks, and fits in there.
 * After each request all locks that it has touched are looked at, in the order in which they were touched, until there is
 * nothing more to grant; then the holds that may have become part of a deadlock. What does not fit into the budget of a
 * step is left for the next one. Nobody comes in between, since whoever arrives finds a queue.
 */
import { breakKnot } from "./deadlock.js";
import { fits, forgetIfUnused } from "./holders.js";
import { endDeadHolds, grant, grantOutcome, type Origin } from "./holds.js";
import { firstPlace } from "./queue.js";
import { deleteTicket } from "./records.js";
import type { Hold, Lock, State, Ticket } from "./state.js";
import { answer, touchAll, unlinkTicket } from "./tickets.js";
import type { Effects } from "./types.js";

/** Whether there may be more to grant, or a deadlock to break. */
export const isUnsettled = (state: State): boolean => state.unsettled.size + state.suspects.size > 0;

/** Brings the locks to rest, by at most `budget` grants and searches for deadlocks. Returns what is left of it. */
export function settle(state: State, fx: Effects, nowMs: number, budget: number): number {
  let left = budget;
  while (isUnsettled(state)) {
    for (const lock of state.unsettled) {
      left = settleLock(state, fx, lock, nowMs, left);
      if (left < 0) return 0;
      state.unsettled.delete(lock);
      forgetIfUnused(state, lock);
    }
    for (const hold of state.suspects) {
      if (left-- <= 0) return 0;
      if (!breakKnot(state, fx, hold, nowMs)) state.suspects.delete(hold);
      if (state.unsettled.size > 0) break;
    }
  }
  return left;
}

/** Grants the first in the queue as long as there is one to grant. Returns the budget, -1 when it is too small. */
function settleLock(state: State, fx: Effects, lock: Lock, nowMs: number, budget: number): number {
  let left = budget;
  for (let place = firstPlace(lock); place !== null; place = firstPlace(lock)) {
    if (!isGrantable(state, place.ticket, nowMs)) break;
    if (left === 0) return -1;
    left--;
    grantTicket(state, fx, place.ticket, 0, nowMs);
  }
  return left;
}

function isGrantable(state: State, ticket: Ticket, nowMs: number): boolean {
  if (ticket.route === null || state.halted !== "") return false;
  for (const { lock, item } of ticket.places) {
    if (firstPlace(lock)?.ticket !== ticket || !fits(state, lock, item, nowMs)) return false;
  }
  return true;
}

/** Grants a ticket, and tells whoever waits at it. `transferredFrom`: the hold that was handed over, or 0. */
export function grantTicket(state: State, fx: Effects, ticket: Ticket, transferredFrom: number, nowMs: number): Hold {
  const waitedMs = nowMs - ticket.queuedAtMs;
  const origin: Origin = { ticketId: `T${ticket.serial}`, waitedMs, transferredFrom };
  const { places, all, queuedWallMs } = ticket;
  if (state.collecting.size > 0) for (const { lock } of places) endDeadHolds(state, fx, lock, nowMs);
  unlinkTicket(state, ticket);
  deleteTicket(fx, ticket);
  const hold = grant(state, fx, places, all, ticket, origin, queuedWallMs + waitedMs, nowMs);
  answer(fx, ticket, grantOutcome(hold, nowMs, ticket.askedAtMs));
  touchAll(state, ticket);
  return hold;
}
