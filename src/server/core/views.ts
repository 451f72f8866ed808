/** What everybody may see of leases and locks: no lease ids, which are credentials. */
import { blockerOf } from "./blockers.js";
import { countHolders, delayUntilMs, fits, isAlive } from "./holders.js";
import { maxHoldRemainingMs } from "./holds.js";
import { remainingMs, viewLease } from "./leases.js";
import { countWaiters, firstPlace, placeAfter, positionOf } from "./queue.js";
import type { Hold, Lease, Lock, Place, State } from "./state.js";
import type {
  BlockerView,
  Counts,
  DescribeLock,
  HolderView,
  ListLeases,
  ListLocks,
  LockView,
  Outcome,
  TopLocks,
  WaiterView,
} from "./types.js";

/** How many holders of one lock DescribeLock shows, and how many everything else. */
const HOLDERS_DESCRIBED = 100;
const HOLDERS_LISTED = 10;
/** How many waiters of one lock ListLocks shows. */
const WAITERS_LISTED = 10;

function viewHold(hold: Hold, wallMs: number, nowMs: number): HolderView {
  return {
    token: hold.token,
    timestamp: hold.timestamp,
    owner: hold.owner || hold.lease.owner,
    metadata: hold.metadata || hold.lease.metadata,
    heldMs: Math.max(0, wallMs - hold.grantedWallMs),
    leaseRemainingMs: remainingMs(hold.lease, nowMs),
    leaseDisplayId: hold.lease.displayId,
    mode: hold.mode,
    permits: hold.permits,
    permitLimit: hold.permitLimit,
    slots: hold.slots,
    maxHoldRemainingMs: maxHoldRemainingMs(hold, nowMs),
    revoking: hold.revoking !== null,
    contenderId: hold.contenderId,
  };
}

export function viewPlace(place: Place, position: number, wallMs: number, blockedBy: BlockerView | null): WaiterView {
  const { ticket, item } = place;
  return {
    ticketId: `T${ticket.serial}`,
    position,
    owner: ticket.owner || ticket.lease.owner,
    metadata: ticket.metadata || ticket.lease.metadata,
    waitedMs: Math.max(0, wallMs - ticket.queuedWallMs),
    attached: ticket.route !== null,
    mode: item.mode,
    permits: item.permits,
    permitLimit: item.permitLimit,
    locks: ticket.places.length,
    contenderId: ticket.contenderId,
    blockedBy,
  };
}

function viewHolders(lock: Lock, holdersMax: number, wallMs: number, nowMs: number): HolderView[] {
  const holders: HolderView[] = [];
  for (let hold = lock.first; hold !== null && holders.length < holdersMax; hold = hold.next) {
    if (isAlive(hold)) holders.push(viewHold(hold, wallMs, nowMs));
  }
  return holders;
}

function viewWaiters(
  lock: Lock,
  waitersMax: number,
  wallMs: number,
  blockedBy: (place: Place) => BlockerView | null,
): WaiterView[] {
  const waiters: WaiterView[] = [];
  for (let place = firstPlace(lock); place !== null && waiters.length < waitersMax; place = placeAfter(place)) {
    waiters.push(viewPlace(place, waiters.length + 1, wallMs, blockedBy(place)));
  }
  return waiters;
}

/** Why somebody does not get a lock. */
type Obstacle = Pick<LockView, "holders" | "holdersTotal" | "reserved" | "delayRemainingMs">;

function viewObstacle(state: State, lock: Lock, holdersMax: number, wallMs: number, nowMs: number): Obstacle {
  const next = firstPlace(lock);
  return {
    holders: viewHolders(lock, holdersMax, wallMs, nowMs),
    holdersTotal: countHolders(state, lock),
    reserved: next !== null && fits(state, lock, next.item, nowMs),
    delayRemainingMs: Math.max(0, Math.ceil(delayUntilMs(state, lock) - nowMs)),
  };
}

/** `lock`: undefined when nobody holds it or waits for it any more. `less`: so many of its waiters are not told. */
export function viewBusy(
  state: State,
  name: string,
  all: boolean,
  timedOut: boolean,
  less: number,
  wallMs: number,
  nowMs: number,
): Outcome {
  const lock = state.locks.get(name);
  if (lock === undefined) {
    const nothing = { holders: [], holdersTotal: 0, waiters: 0, reserved: false, delayRemainingMs: 0 };
    return { kind: "busy", name, all, ...nothing, timedOut };
  }
  const waiters = countWaiters(state, lock) - less;
  return {
    kind: "busy",
    name,
    all,
    ...viewObstacle(state, lock, HOLDERS_LISTED, wallMs, nowMs),
    waiters,
    timedOut,
  };
}

export function describeLock(state: State, request: DescribeLock, nowMs: number): Outcome {
  const { name, waitersMax, wallMs } = request;
  const lock = state.locks.get(name);
  if (lock === undefined) {
    const nothing = { holders: [], holdersTotal: 0, waiters: [], waitersTotal: 0, reserved: false };
    return { kind: "lock", lock: { name, ...nothing, delayRemainingMs: 0 } };
  }
  return {
    kind: "lock",
    lock: {
      name,
      ...viewObstacle(state, lock, HOLDERS_DESCRIBED, wallMs, nowMs),
      waiters: viewWaiters(lock, waitersMax, wallMs, ({ ticket }) => blockerOf(state, ticket, nowMs)),
      waitersTotal: countWaiters(state, lock),
    },
  };
}

export function listLocks(state: State, request: ListLocks, nowMs: number): Outcome {
  const names = state.lockIndex.page(request.prefix, request.after, request.limit);
  const locks: LockView[] = [];
  for (const name of names) {
    const lock = state.locks.get(name) as Lock;
    const obstacle = viewObstacle(state, lock, HOLDERS_LISTED, request.wallMs, nowMs);
    const waitersTotal = countWaiters(state, lock);
    // What only dead leases hold and wait for does not exist any more.
    if (obstacle.holdersTotal + waitersTotal + obstacle.delayRemainingMs === 0) continue;
    // Watchers are shown the first of the queue; what each of them waits for is for a description of one lock.
    const waiters = viewWaiters(lock, WAITERS_LISTED, request.wallMs, () => null);
    locks.push({ name, ...obstacle, waiters, waitersTotal });
  }
  const next = names.length < request.limit ? "" : (names.at(-1) as string);
  return { kind: "locks", locks, next, timestamp: state.clock.now };
}

/** The oldest holds and tickets: both are kept in the order in which they came. */
export function topLocks(state: State, { limit, wallMs }: TopLocks, nowMs: number): Outcome {
  const holds: { name: string; holder: HolderView }[] = [];
  for (const hold of state.holds.values()) {
    if (holds.length >= limit) break;
    if (isAlive(hold)) holds.push({ name: hold.lock.name, holder: viewHold(hold, wallMs, nowMs) });
  }
  const waits: { name: string; waiter: WaiterView }[] = [];
  for (const ticket of state.tickets.values()) {
    if (waits.length >= limit) break;
    const place = ticket.places[0] as Place;
    if (ticket.lease.dead !== null) continue;
    waits.push({ name: place.lock.name, waiter: viewPlace(place, positionOf(place), wallMs, null) });
  }
  return { kind: "top", holds, waits };
}

export function listLeases(state: State, request: ListLeases, nowMs: number): Outcome {
  const ids = state.leaseIndex.page("", request.after, request.limit);
  const leases = ids
    .map((id) => state.leasesByDisplayId.get(id) as Lease)
    .filter((lease) => lease.dead === null)
    .map((lease) => viewLease(lease, nowMs));
  return { kind: "leases", leases, next: ids.length < request.limit ? "" : (ids.at(-1) as string) };
}

export function counts(state: State, nowMs: number): Counts {
  const oldestHold = state.holds.values().next().value;
  const oldestTicket = state.tickets.values().next().value;
  return {
    leases: state.leases.size,
    leasesEnding: state.collecting.size,
    locks: state.locks.size,
    holds: state.holds.size,
    heldExclusive: state.held.exclusive,
    heldShared: state.held.shared,
    heldSemaphore: state.held.semaphore,
    oldestHoldMs: oldestHold === undefined ? 0 : Math.max(0, nowMs - oldestHold.grantedAtMs),
    waiters: state.tickets.size,
    oldestWaitMs: oldestTicket === undefined ? 0 : Math.max(0, nowMs - oldestTicket.queuedAtMs),
    sessions: state.sessions.size,
    requestsRemembered: state.pastRequests,
    lastToken: state.token,
    timestamp: state.clock.now,
    incarnation: state.incarnation,
    halted: state.halted,
  };
}
