/**
 * What the server tells about locks, as users see it: plain data, made from the wire's messages.
 */
import { type leasehold, v1 } from "./wire/index.js";

/**
 * How a lock is held: by one, by any number who all share it, or in permits, no more together than there are.
 */
export type LockMode = "exclusive" | "shared" | "semaphore";

/** Who holds a lock. */
export interface Holder {
  /** The fencing token of the hold. */
  readonly token: number;
  /** The Lamport timestamp of the grant. */
  readonly timestamp: number;
  /** Who it is, in the holder's own words: "hostname/pid" unless it said otherwise. */
  readonly owner: string;
  readonly metadata: Uint8Array;
  /** For how long it has been held, in milliseconds; an estimate. */
  readonly heldMs: number;
  /** Milliseconds until the holder's lease ends, if it is not renewed. */
  readonly leaseRemainingMs: number;
  /** Names the holder's lease in listings; no credential. */
  readonly leaseDisplayId: string;
  readonly mode: LockMode;
  /** Semaphores: how many permits it has. Else 0. */
  readonly permits: number;
  /** Semaphores: how many there are as it knows it; the smallest number that a holder declared counts. Else 0. */
  readonly permitLimit: number;
  /** Semaphores: which permits, numbered from 0. */
  readonly slots: readonly number[];
  /** Milliseconds until it ends, renewed or not; 0: it has no maximum. */
  readonly maxHoldRemainingMs: number;
  /** An administrator takes it away: it ends when its holder confirms, or with the last promise made to it. */
  readonly revoking: boolean;
  /** The task that holds, in its client's words. */
  readonly contenderId: string;
}

/** Who waits for a lock. */
export interface Waiter {
  /** Names the wait: the holder may `transfer` the lock to it. */
  readonly ticketId: string;
  /** 1 is next. */
  readonly position: number;
  readonly owner: string;
  readonly metadata: Uint8Array;
  readonly waitedMs: number;
  /** False while its connection is broken: it keeps its place for some seconds but cannot be granted. */
  readonly attached: boolean;
  /** How it wants to hold. */
  readonly mode: LockMode;
  readonly permits: number;
  readonly permitLimit: number;
  /** For how many locks it waits together; 1 unless by `acquireAll`. */
  readonly locks: number;
  readonly contenderId: string;
  /** What it waits for in the end. Null: nothing is in its way, or it was not looked for. */
  readonly blockedBy: Blocker | null;
}

/** The end of the chain from a waiter over holders that wait themselves. */
export interface Blocker {
  /** The lock at the end of the chain. "(not shown)", and the owner, too: a policy keeps it from this client. */
  readonly lock: string;
  /** The hold there that is in the way; null: it is no hold. */
  readonly token: number | null;
  /** The wait that is, because its connection is broken; null: it is none. Neither: the delay after an expiry. */
  readonly ticketId: string | null;
  readonly owner: string;
  /** 1: a holder of the very lock that is waited for. 2: that holder waits for another lock, and so on. */
  readonly hops: number;
}

/** Why a lock could not be had. */
export interface Busy {
  /** The lock; of several the first that is not free. */
  readonly name: string;
  /** The first of them; empty while the lock is reserved. */
  readonly holders: readonly Holder[];
  readonly holdersTotal: number;
  /** How many wait. */
  readonly waiters: number;
  /** The lock is free but kept for a waiter whose connection broke, or who waits for other locks as well. */
  readonly reserved: boolean;
  /** Milliseconds until the lock can be had again after a holder expired that had asked for a delay; else 0. */
  readonly delayRemainingMs: number;
}

/** A lock and its queue. */
export interface LockDescription {
  readonly name: string;
  /** The first hundred. Empty: nobody holds it. */
  readonly holders: readonly Holder[];
  readonly holdersTotal: number;
  /** The first hundred in the queue, in order. */
  readonly waiters: readonly Waiter[];
  /** All who wait. */
  readonly waitersTotal: number;
  readonly reserved: boolean;
  readonly delayRemainingMs: number;
}

/** A lock in a listing. */
export interface LockSummary {
  readonly name: string;
  /** The first ten. */
  readonly holders: readonly Holder[];
  readonly holdersTotal: number;
  readonly waiters: number;
  readonly reserved: boolean;
  readonly delayRemainingMs: number;
}

const NO_BYTES = new Uint8Array();
const bytes = (value: Uint8Array | null | undefined): Uint8Array => (value?.length ? value : NO_BYTES);

function modeView(mode: leasehold.v1.LockMode | null | undefined): LockMode {
  if (mode === v1.LockMode.LOCK_MODE_SHARED) return "shared";
  return mode === v1.LockMode.LOCK_MODE_SEMAPHORE ? "semaphore" : "exclusive";
}

export function holderView(holder: leasehold.v1.Holder.$Properties): Holder {
  return {
    token: holder.token ?? 0,
    timestamp: holder.timestamp ?? 0,
    owner: holder.owner ?? "",
    metadata: bytes(holder.metadata),
    heldMs: holder.heldMs ?? 0,
    leaseRemainingMs: holder.leaseRemainingMs ?? 0,
    leaseDisplayId: holder.leaseDisplayId ?? "",
    mode: modeView(holder.mode),
    permits: holder.permits ?? 0,
    permitLimit: holder.permitLimit ?? 0,
    slots: [...(holder.slots ?? [])],
    maxHoldRemainingMs: holder.maxHoldRemainingMs ?? 0,
    revoking: holder.revoking ?? false,
    contenderId: holder.contenderId ?? "",
  };
}

export function waiterView(waiter: leasehold.v1.Waiter.$Properties): Waiter {
  return {
    ticketId: waiter.ticketId ?? "",
    position: waiter.position ?? 0,
    owner: waiter.owner ?? "",
    metadata: bytes(waiter.metadata),
    waitedMs: waiter.waitedMs ?? 0,
    attached: waiter.attached ?? false,
    mode: modeView(waiter.mode),
    permits: waiter.permits ?? 0,
    permitLimit: waiter.permitLimit ?? 0,
    locks: waiter.locks || 1,
    contenderId: waiter.contenderId ?? "",
    blockedBy: waiter.blockedBy ? blockerView(waiter.blockedBy) : null,
  };
}

function blockerView(blocker: leasehold.v1.Blocker.$Properties): Blocker {
  return {
    lock: blocker.lock ?? "",
    token: blocker.token || null,
    ticketId: blocker.ticketId || null,
    owner: blocker.owner ?? "",
    hops: blocker.hops ?? 0,
  };
}

/** `name`: of the lock that was asked for, where the server does not say. */
export function busyView(busy: leasehold.v1.Busy.$Properties, name: string): Busy {
  return {
    name: busy.name || name,
    ...holdersView(busy),
    waiters: busy.waiters ?? 0,
    reserved: busy.reserved ?? false,
    delayRemainingMs: busy.delayRemainingMs ?? 0,
  };
}

export function descriptionView(lock: leasehold.v1.DescribeLockResponse.$Properties): LockDescription {
  return {
    name: lock.name ?? "",
    ...holdersView(lock),
    waiters: (lock.waiters ?? []).map(waiterView),
    waitersTotal: lock.waitersTotal ?? 0,
    reserved: lock.reserved ?? false,
    delayRemainingMs: lock.delayRemainingMs ?? 0,
  };
}

export function summaryView(lock: leasehold.v1.LockSummary.$Properties): LockSummary {
  return {
    name: lock.name ?? "",
    ...holdersView(lock),
    waiters: lock.waiters ?? 0,
    reserved: lock.reserved ?? false,
    delayRemainingMs: lock.delayRemainingMs ?? 0,
  };
}

function holdersView(lock: Pick<leasehold.v1.Busy.$Properties, "holders" | "holdersTotal">) {
  const holders = (lock.holders ?? []).map(holderView);
  return { holders, holdersTotal: Math.max(lock.holdersTotal ?? 0, holders.length) };
}
