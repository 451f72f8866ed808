/**
 * Who holds a lock, and who fits in beside them.
 *
 * A hold counts until it has ended or its lease is dead. What hangs on a dead lease is cleared away in slices, so that
 * there may be holds here that do not count. While there is a dead lease that is not cleared away, whoever asks looks at
 * each holder; at all other times they are all alive and of one mode, and the first of them and a few sums tell.
 */
import { deleteDelay, putDelay } from "./records.js";
import type { Hold, Lock, Semaphore, State } from "./state.js";
import type { Effects, LockItem } from "./types.js";

/** The lock of that name, made if there is none. */
export function ensureLock(state: State, name: string): Lock {
  let lock = state.locks.get(name);
  if (lock === undefined) {
    lock = {
      name,
      first: null,
      last: null,
      holders: 0,
      semaphore: null,
      head: null,
      tail: null,
      waiters: 0,
      delay: null,
    };
    state.locks.set(name, lock);
    state.lockIndex.add(name);
  }
  return lock;
}

/** Forgets a lock that nobody holds or waits for, and that no delay bars. */
export function forgetIfUnused(state: State, lock: Lock): void {
  if (lock.first !== null || lock.head !== null || lock.delay !== null) return;
  if (state.locks.get(lock.name) !== lock) return;
  state.locks.delete(lock.name);
  state.lockIndex.delete(lock.name);
}

/** Somebody may have become next at this lock: it is looked at before the next request. */
export function touch(state: State, lock: Lock): void {
  if (lock.head === null) forgetIfUnused(state, lock);
  else state.unsettled.add(lock);
}

/** Enters a hold among the holders of its lock. */
export function addHolder(lock: Lock, hold: Hold): void {
  hold.previous = lock.last;
  if (lock.last === null) lock.first = hold;
  else lock.last.next = hold;
  lock.last = hold;
  lock.holders++;
  if (hold.mode !== "semaphore") return;
  const semaphore = ensureSemaphore(lock);
  semaphore.permits += hold.permits;
  semaphore.limits.set(hold.permitLimit, (semaphore.limits.get(hold.permitLimit) ?? 0) + 1);
  for (const slot of hold.slots) semaphore.slots.set(slot, hold);
}

/** Takes a hold out of the holders of its lock. */
export function removeHolder(lock: Lock, hold: Hold): void {
  if (hold.previous === null) lock.first = hold.next;
  else hold.previous.next = hold.next;
  if (hold.next === null) lock.last = hold.previous;
  else hold.next.previous = hold.previous;
  lock.holders--;
  const { semaphore } = lock;
  if (hold.mode !== "semaphore" || semaphore === null) return;
  semaphore.permits -= hold.permits;
  const others = (semaphore.limits.get(hold.permitLimit) as number) - 1;
  if (others > 0) semaphore.limits.set(hold.permitLimit, others);
  else semaphore.limits.delete(hold.permitLimit);
  for (const slot of hold.slots) {
    if (semaphore.slots.get(slot) !== hold) continue; // taken over while its lease was dead
    semaphore.slots.delete(slot);
    semaphore.lowestFree = Math.min(semaphore.lowestFree, slot);
  }
}

function ensureSemaphore(lock: Lock): Semaphore {
  lock.semaphore ??= { permits: 0, limits: new Map(), slots: new Map(), lowestFree: 0 };
  return lock.semaphore;
}

/** Finds the lowest slots that no hold of the lock has. They are taken when the hold is added. */
export function lowestFreeSlots(state: State, lock: Lock, permits: number): number[] {
  const semaphore = ensureSemaphore(lock);
  const found: number[] = [];
  let slot = state.collecting.size > 0 ? 0 : semaphore.lowestFree;
  for (; found.length < permits; slot++) {
    const hold = semaphore.slots.get(slot);
    if (hold === undefined || hold.lease.dead !== null) found.push(slot);
  }
  semaphore.lowestFree = slot;
  return found;
}

export const isAlive = (hold: Hold): boolean => hold.lease.dead === null;

/** Whether a candidate fits in beside the holds that count, and no delay bars the lock. */
export function fits(state: State, lock: Lock, item: LockItem, nowMs: number): boolean {
  if (delayUntilMs(state, lock) > nowMs) return false;
  const { first } = lock;
  if (first === null) return true;
  const { holdersPerLockMax } = state.limits;
  if (state.collecting.size > 0) return fitsBeside(lock, item, holdersPerLockMax, isAlive);
  if (item.mode === "exclusive" || first.mode !== item.mode || lock.holders >= holdersPerLockMax) return false;
  if (item.mode === "shared") return true;
  const { permits, limits } = lock.semaphore as Semaphore;
  let limit = item.permitLimit;
  for (const declared of limits.keys()) limit = Math.min(limit, declared);
  return permits + item.permits <= limit;
}

/** Whether a candidate fits in beside those of the holds that `counts` accepts. Looks at each. */
export function fitsBeside(lock: Lock, item: LockItem, holdersMax: number, counts: (hold: Hold) => boolean): boolean {
  let holders = 0;
  let { permits, permitLimit: limit } = item;
  for (let hold = lock.first; hold !== null; hold = hold.next) {
    if (!counts(hold)) continue;
    if (item.mode === "exclusive" || hold.mode !== item.mode || ++holders >= holdersMax) return false;
    permits += hold.permits;
    limit = Math.min(limit, hold.permitLimit);
    if (permits > limit) return false;
  }
  return true;
}

/** How many hold the lock. */
export function countHolders(state: State, lock: Lock): number {
  if (state.collecting.size === 0) return lock.holders;
  let count = 0;
  for (let hold = lock.first; hold !== null; hold = hold.next) if (isAlive(hold)) count++;
  return count;
}

/**
 * Until when a delay bars the lock; 0: none does. Holds of a lease that expired have ended with it, though they may not
 * be cleared away yet.
 */
export function delayUntilMs(state: State, lock: Lock): number {
  let untilMs = lock.delay === null ? 0 : lock.delay.untilMs;
  if (state.collecting.size === 0) return untilMs;
  for (let hold = lock.first; hold !== null; hold = hold.next) {
    const { lease, lockDelayMs } = hold;
    if (lease.dead === "expired" && lockDelayMs > 0) untilMs = Math.max(untilMs, lease.diedAtMs + lockDelayMs);
  }
  return untilMs;
}

/** Nobody gets the lock before `untilMs`; of several delays the one that ends last counts. */
export function delayLock(state: State, fx: Effects, lock: Lock, untilMs: number): void {
  if (lock.delay !== null && lock.delay.untilMs >= untilMs) return;
  addDelay(state, lock, untilMs);
  putDelay(state, fx, lock.name, untilMs);
}

export function addDelay(state: State, lock: Lock, untilMs: number): void {
  lock.delay ??= { kind: "delay", lock, untilMs, dueMs: 0, heapIndex: -1 };
  lock.delay.untilMs = untilMs;
  state.deadlines.set(lock.delay, untilMs);
}

/** The delay of a lock is over: the next one comes in. */
export function endDelay(state: State, fx: Effects, lock: Lock): void {
  if (lock.delay === null) return;
  state.deadlines.delete(lock.delay);
  lock.delay = null;
  deleteDelay(fx, lock.name);
  touch(state, lock);
}
