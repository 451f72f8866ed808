/** What an acquire asks for, on the wire and in words. */
import { formatMs } from "../duration.js";
import { LeaseholdError, LOST_TEXT, type LostReason } from "../errors.js";
import type { HeldLock } from "../held-lock.js";
import type { Busy, LockMode } from "../views.js";
import { type leasehold, v1 } from "../wire/index.js";
import type { WireCommand } from "./command.js";
import type { LeaseProvider } from "./lease-provider.js";

/** One lock, and how it is to be held. */
export interface AcquireItem {
  readonly name: string;
  readonly mode: LockMode;
  /** Semaphores: how many permits to take. Else 0. */
  readonly permits: number;
  /** Semaphores: how many there are. Else 0. */
  readonly permitLimit: number;
}

/** What is asked for; every value has been checked. */
export interface AcquireRequest {
  /** All or nothing. */
  readonly items: readonly AcquireItem[];
  /** Asked for as a set, even if it has one item only. */
  readonly all: boolean;
  /** 0: try once. */
  readonly waitMs: number;
  /** Through which lease. */
  readonly leases: LeaseProvider;
  readonly owner: string;
  readonly metadata: Uint8Array | null;
  readonly signal: AbortSignal | null;
  readonly lockDelayMs: number;
  /** 0: no maximum. */
  readonly maxHoldMs: number;
  /** What the caller keeps while it waits. */
  readonly holding: readonly HeldLock[];
  /** The caller's span as W3C writes it; absent: none. */
  readonly traceparent?: string;
}

/** Those of its fields that are known only when it is sent. */
export interface AcquireTerms {
  sessionLease: number;
  waitMs: number;
  heldTokens?: number[];
}

const MODES: Readonly<Record<LockMode, leasehold.v1.LockMode>> = {
  exclusive: v1.LockMode.LOCK_MODE_EXCLUSIVE,
  shared: v1.LockMode.LOCK_MODE_SHARED,
  semaphore: v1.LockMode.LOCK_MODE_SEMAPHORE,
};

/** The names in a message: 'the lock "a"', 'the locks "a" and 2 more'. */
function subject({ items, all }: AcquireRequest): string {
  const name = JSON.stringify(items[0]?.name ?? "");
  if (!all || items.length === 1) return `the lock ${name}`;
  return `the locks ${name} and ${items.length - 1} more`;
}

function itemOnWire({ name, mode, permits, permitLimit }: AcquireItem) {
  return { name, mode: MODES[mode], permits, permitLimit };
}

/** The command without its number, and the part of it that is filled in when it is sent. */
export function acquireOnWire(request: AcquireRequest): { wire: WireCommand & { seq: number }; terms: AcquireTerms } {
  if (request.all) {
    const acquireAll = { locks: request.items.map(itemOnWire), sessionLease: 0, waitMs: 0 };
    addOptions(acquireAll, request);
    return { wire: { seq: 0, acquireAll }, terms: acquireAll };
  }
  const { name, mode, permits, permitLimit } = request.items[0] as AcquireItem;
  const acquire = { name, mode: MODES[mode], sessionLease: 0, waitMs: 0 };
  if (mode === "semaphore") Object.assign(acquire, { permits, permitLimit });
  addOptions(acquire, request);
  return { wire: { seq: 0, acquire }, terms: acquire };
}

/** What most do without. */
function addOptions(wire: AcquireTerms, request: AcquireRequest): void {
  const { owner, metadata, lockDelayMs, maxHoldMs, traceparent } = request;
  if (traceparent) Object.assign(wire, { traceparent });
  if (owner !== "" || metadata !== null) Object.assign(wire, { owner, metadata });
  if (lockDelayMs > 0 || maxHoldMs > 0) Object.assign(wire, { lockDelayMs, maxHoldMs });
}

/** An upper bound of its size on the wire. */
export function acquireBytesMax({ items, owner, metadata, holding }: AcquireRequest): number {
  let bytes = 160 + 3 * owner.length + (metadata?.length ?? 0) + 10 * holding.length;
  for (const { name } of items) bytes += 24 + 3 * name.length;
  return bytes;
}

export function lostError(request: AcquireRequest, reason: LostReason): LeaseholdError {
  return new LeaseholdError("LOST", `could not take ${subject(request)}: ${LOST_TEXT[reason]}`, { lost: reason });
}

/** `waitedMs` 0: it did not wait. */
export function busyError(busy: Busy, waitedMs: number): LeaseholdError {
  const { name, holders, holdersTotal, waiters, reserved, delayRemainingMs } = busy;
  const by = holders.map((holder) => `${holder.owner || "somebody"} (for ${formatMs(holder.heldMs)})`).join(", ");
  const more = holdersTotal > holders.length ? ` and ${holdersTotal - holders.length} more` : "";
  const last = "since its last holder did not give it back";
  const free = delayRemainingMs > 0 ? `is kept free for ${formatMs(delayRemainingMs)} more, ${last}` : "";
  const kept = reserved ? "is kept for a waiter whose connection broke, or who waits for other locks as well" : "";
  const state = by ? `is held by ${by}${more}` : kept || free || "is busy";
  const others = waiters > 0 ? `; ${waiters} waiting` : "";
  const waited = waitedMs > 0 ? `waited ${formatMs(waitedMs)}: ` : "";
  return new LeaseholdError("BUSY", `${waited}the lock ${JSON.stringify(name)} ${state}${others}`, { busy });
}

export function noAnswer(request: AcquireRequest): LeaseholdError {
  return new LeaseholdError("UNREACHABLE", `the server did not answer for ${subject(request)} within its wait`);
}

export const notSent = (): LeaseholdError =>
  new LeaseholdError("LIMIT", "the wait was over before the request could be sent: too many are in flight");
