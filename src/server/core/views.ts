/** What everybody may see of leases and locks: no lease ids, which are credentials. */

import { remainingMs, viewLease } from "./leases.js";
import { promote } from "./locks.js";
import type { Hold, Lease, Lock, State, Ticket } from "./state.js";
import type {
  Counts,
  DescribeLock,
  Effects,
  HolderView,
  ListLeases,
  ListLocks,
  LockView,
  Outcome,
  WaiterView,
} from "./types.js";

export function viewHold(hold: Hold, wallMs: number, nowMs: number): HolderView {
  return {
    token: hold.token,
    timestamp: hold.timestamp,
    owner: hold.owner || hold.lease.owner,
    metadata: hold.metadata || hold.lease.metadata,
    heldMs: Math.max(0, wallMs - hold.grantedWallMs),
    leaseRemainingMs: remainingMs(hold.lease, nowMs),
    leaseDisplayId: hold.lease.displayId,
  };
}

function viewTicket(ticket: Ticket, position: number, wallMs: number): WaiterView {
  return {
    ticketId: `T${ticket.serial}`,
    position,
    owner: ticket.owner || ticket.lease.owner,
    metadata: ticket.metadata || ticket.lease.metadata,
    waitedMs: Math.max(0, wallMs - ticket.queuedWallMs),
    attached: ticket.route !== null,
  };
}

function viewLock(lock: Lock, waitersMax: number, wallMs: number, nowMs: number): LockView {
  const waiters: WaiterView[] = [];
  for (let ticket = lock.head; ticket !== null && waiters.length < waitersMax; ticket = ticket.next) {
    if (ticket.lease.dead === null) waiters.push(viewTicket(ticket, waiters.length + 1, wallMs));
  }
  return {
    name: lock.name,
    holders: lock.hold === null ? [] : [viewHold(lock.hold, wallMs, nowMs)],
    waiters,
    waitersTotal: lock.waiters,
    reserved: lock.hold === null && lock.head !== null,
  };
}

export function describeLock(state: State, fx: Effects, request: DescribeLock, nowMs: number): Outcome {
  const known = state.locks.get(request.name);
  if (known !== undefined) promote(state, fx, known, nowMs);
  const lock = state.locks.get(request.name);
  if (lock !== undefined) return { kind: "lock", lock: viewLock(lock, request.waitersMax, request.wallMs, nowMs) };
  return { kind: "lock", lock: { name: request.name, holders: [], waiters: [], waitersTotal: 0, reserved: false } };
}

export function listLocks(state: State, fx: Effects, request: ListLocks, nowMs: number): Outcome {
  const names = state.lockIndex.page(request.prefix, request.after, request.limit);
  const locks: LockView[] = [];
  for (const name of names) {
    promote(state, fx, state.locks.get(name) as Lock, nowMs);
    const lock = state.locks.get(name);
    if (lock !== undefined) locks.push(viewLock(lock, 0, request.wallMs, nowMs));
  }
  return { kind: "locks", locks, next: names.length < request.limit ? "" : (names.at(-1) as string) };
}

export function listLeases(state: State, request: ListLeases, nowMs: number): Outcome {
  const ids = state.leaseIndex.page("", request.after, request.limit);
  const leases = ids
    .map((id) => state.leasesByDisplayId.get(id) as Lease)
    .filter((lease) => lease.dead === null)
    .map((lease) => viewLease(lease, nowMs));
  return { kind: "leases", leases, next: ids.length < request.limit ? "" : (ids.at(-1) as string) };
}

export function counts(state: State): Counts {
  return {
    leases: state.leases.size,
    locks: state.locks.size,
    holds: state.holds.size,
    waiters: state.waiters,
    sessions: state.sessions.size,
    lastToken: state.token,
    timestamp: state.clock.now,
    incarnation: state.incarnation,
    halted: state.halted,
  };
}
