/**
 * What the server tells about locks, as users see it: plain data, made from the wire's messages.
 */
import type { leasehold } from "./wire/index.js";

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
}

/** Who waits for a lock. */
export interface Waiter {
  readonly ticketId: string;
  /** 1 is next. */
  readonly position: number;
  readonly owner: string;
  readonly metadata: Uint8Array;
  readonly waitedMs: number;
  /** False while its connection is broken: it keeps its place for some seconds but cannot be granted. */
  readonly attached: boolean;
}

/** Why a lock could not be had. */
export interface Busy {
  /** Empty while the lock is reserved. */
  readonly holders: readonly Holder[];
  /** How many wait. */
  readonly waiters: number;
  /** The lock is free but kept, for some seconds, for a waiter whose connection broke. */
  readonly reserved: boolean;
}

/** A lock and its queue. */
export interface LockDescription {
  readonly name: string;
  /** Empty: nobody holds it. */
  readonly holders: readonly Holder[];
  /** The first hundred in the queue, in order. */
  readonly waiters: readonly Waiter[];
  /** All who wait. */
  readonly waitersTotal: number;
  readonly reserved: boolean;
}

/** A lock in a listing. */
export interface LockSummary {
  readonly name: string;
  readonly holders: readonly Holder[];
  readonly waiters: number;
  readonly reserved: boolean;
}

const NO_BYTES = new Uint8Array();
const bytes = (value: Uint8Array | null | undefined): Uint8Array => (value?.length ? value : NO_BYTES);

export function holderView(holder: leasehold.v1.Holder.$Properties): Holder {
  return {
    token: holder.token ?? 0,
    timestamp: holder.timestamp ?? 0,
    owner: holder.owner ?? "",
    metadata: bytes(holder.metadata),
    heldMs: holder.heldMs ?? 0,
    leaseRemainingMs: holder.leaseRemainingMs ?? 0,
    leaseDisplayId: holder.leaseDisplayId ?? "",
  };
}

function waiterView(waiter: leasehold.v1.Waiter.$Properties): Waiter {
  return {
    ticketId: waiter.ticketId ?? "",
    position: waiter.position ?? 0,
    owner: waiter.owner ?? "",
    metadata: bytes(waiter.metadata),
    waitedMs: waiter.waitedMs ?? 0,
    attached: waiter.attached ?? false,
  };
}

export function busyView(busy: leasehold.v1.Busy.$Properties): Busy {
  return {
    holders: (busy.holders ?? []).map(holderView),
    waiters: busy.waiters ?? 0,
    reserved: busy.reserved ?? false,
  };
}

export function descriptionView(lock: leasehold.v1.DescribeLockResponse.$Properties): LockDescription {
  return {
    name: lock.name ?? "",
    holders: (lock.holders ?? []).map(holderView),
    waiters: (lock.waiters ?? []).map(waiterView),
    waitersTotal: lock.waitersTotal ?? 0,
    reserved: lock.reserved ?? false,
  };
}

export function summaryView(lock: leasehold.v1.LockSummary.$Properties): LockSummary {
  return {
    name: lock.name ?? "",
    holders: (lock.holders ?? []).map(holderView),
    waiters: lock.waiters ?? 0,
    reserved: lock.reserved ?? false,
  };
}
