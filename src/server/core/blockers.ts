/**
 * Who is in the way of a waiter.
 *
 * Whoever keeps the first in a queue from being granted keeps all of that queue. That may be a hold whose holder waits
 * itself, in another queue; so the chain is followed from wait to wait, until it ends: at a hold whose holder does not
 * wait, at a ticket that nobody is attached to, at a lock delay. Each wait on the way is a hop.
 */
import { delayUntilMs, fits, fitsBeside, isAlive } from "./holders.js";
import { firstPlace } from "./queue.js";
import type { Hold, Lock, State, Ticket } from "./state.js";
import type { BlockerView, LockItem } from "./types.js";

type Obstacle =
  | { readonly kind: "hold"; readonly hold: Hold }
  | { readonly kind: "delay"; readonly lock: Lock }
  | { readonly kind: "ticket"; readonly ticket: Ticket; readonly lock: Lock };

/** Null: nothing is in its way. */
export function blockerOf(state: State, waiter: Ticket, nowMs: number): BlockerView | null {
  const passed = new Set([waiter]);
  let obstacle = firstObstacle(state, waiter, nowMs);
  for (let hops = 1; obstacle !== null; hops++) {
    const next = onTheWay(obstacle, passed);
    const further = next === null || hops >= state.limits.blockerHopsMax ? null : firstObstacle(state, next, nowMs);
    if (next === null || further === null) return view(obstacle, hops);
    passed.add(next);
    obstacle = further;
  }
  return null;
}

/** What keeps a ticket from being granted at the first of its locks where something does. */
function firstObstacle(state: State, ticket: Ticket, nowMs: number): Obstacle | null {
  for (const { lock } of ticket.places) {
    const first = firstPlace(lock);
    if (first === null) continue;
    if (!fits(state, lock, first.item, nowMs)) {
      const delayed = delayUntilMs(state, lock) > nowMs;
      const hold = delayed && fitsIn(state, lock, first.item) ? null : holdInTheWay(lock, first.item);
      return hold === null ? { kind: "delay", lock } : { kind: "hold", hold };
    }
    if (first.ticket !== ticket) return { kind: "ticket", ticket: first.ticket, lock };
  }
  return null;
}

const fitsIn = (state: State, lock: Lock, item: LockItem): boolean =>
  fitsBeside(lock, item, state.limits.holdersPerLockMax, isAlive);

function holdInTheWay(lock: Lock, item: LockItem): Hold | null {
  let compatible: Hold | null = null;
  for (let hold = lock.first; hold !== null; hold = hold.next) {
    if (!isAlive(hold)) continue;
    if (item.mode === "exclusive" || hold.mode !== item.mode) return hold;
    compatible ??= hold; // one of too many
  }
  return compatible;
}

/** The wait behind an obstacle; null: the chain ends here. */
function onTheWay(obstacle: Obstacle, passed: ReadonlySet<Ticket>): Ticket | null {
  if (obstacle.kind === "ticket") {
    const { ticket } = obstacle;
    return ticket.route === null || passed.has(ticket) ? null : ticket;
  }
  if (obstacle.kind === "delay" || obstacle.hold.claimers === null) return null;
  for (const ticket of obstacle.hold.claimers) {
    if (ticket.lease.dead === null && !passed.has(ticket)) return ticket;
  }
  return null;
}

function view(obstacle: Obstacle, hops: number): BlockerView {
  switch (obstacle.kind) {
    case "hold": {
      const { hold } = obstacle;
      return { lock: hold.lock.name, token: hold.token, ticketId: "", owner: hold.owner || hold.lease.owner, hops };
    }
    case "ticket": {
      const { ticket, lock } = obstacle;
      const owner = ticket.owner || ticket.lease.owner;
      return { lock: lock.name, token: 0, ticketId: `T${ticket.serial}`, owner, hops };
    }
    case "delay":
      return { lock: obstacle.lock.name, token: 0, ticketId: "", owner: "", hops };
  }
}
