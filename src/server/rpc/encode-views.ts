/**
 * Holders, waiters, locks and leases as the wire shows them.
 *
 * Lists are cut so that a message stays below the frame limit: a shorter page with a token for the next, or the first
 * entries beside the number of all. One entry is always shown.
 */
import type { leasehold } from "@leasehold/client/wire";
import type { BlockerView, HolderView, KnotWait, LeaseView, LockMode, Outcome, WaiterView } from "../core/types.js";
import { pageToken } from "./check.js";

type OutcomeOf<K extends Outcome["kind"]> = Extract<Outcome, { kind: K }>;

const modes = { exclusive: 1, shared: 2, semaphore: 3 } as const satisfies Record<LockMode, number>;

/** Metadata is kept as base64 and travels as bytes. */
export function bytes(base64: string): Uint8Array | null {
  return base64 === "" ? null : Buffer.from(base64, "base64");
}

export function leaseBody(outcome: OutcomeOf<"lease">): { lease: leasehold.v1.Lease.$Properties } {
  const { lease } = outcome;
  return {
    lease: {
      leaseId: lease.leaseId,
      ttlMs: lease.ttlMs,
      remainingMs: lease.remainingMs,
      owner: lease.owner,
      metadata: bytes(lease.metadata),
      holds: lease.holds,
      waits: lease.waits,
      restartExtensionMs: lease.restartExtensionMs,
      progressEveryMs: lease.progressEveryMs,
    },
  };
}

export function leasesBody(
  outcome: OutcomeOf<"leases">,
  listBytesMax: number,
): leasehold.v1.ListLeasesResponse.$Properties {
  const leases = cut(outcome.leases, leaseBytes, listBytesMax);
  const last = leases.length < outcome.leases.length ? (leases.at(-1)?.displayId ?? "") : outcome.next;
  return {
    leases: leases.map((lease) => ({
      displayId: lease.displayId,
      ttlMs: lease.ttlMs,
      remainingMs: lease.remainingMs,
      owner: lease.owner,
      holds: lease.holds,
      waits: lease.waits,
      restartExtensionMs: lease.restartExtensionMs,
    })),
    nextPageToken: pageToken(last),
  };
}

export function lockBody(
  outcome: OutcomeOf<"lock">,
  listBytesMax: number,
): leasehold.v1.DescribeLockResponse.$Properties {
  const { lock } = outcome;
  const holders = cut(lock.holders, holderBytes, listBytesMax / 2);
  const waiters = cut(lock.waiters, waiterBytes, listBytesMax - total(holders, holderBytes));
  return {
    name: lock.name,
    holders: holders.map(holder),
    holdersTotal: lock.holdersTotal,
    waiters: waiters.map(waiter),
    waitersTotal: lock.waitersTotal,
    reserved: lock.reserved,
    delayRemainingMs: lock.delayRemainingMs,
  };
}

export function locksBody(
  outcome: OutcomeOf<"locks">,
  listBytesMax: number,
): leasehold.v1.ListLocksResponse.$Properties {
  const all = outcome.locks.map((lock) => ({ lock, holders: cut(lock.holders, holderBytes, listBytesMax) }));
  const shown = cut(
    all,
    ({ lock, holders }) => ENTRY_BYTES + text(lock.name) + total(holders, holderBytes),
    listBytesMax,
  );
  const last = shown.length < all.length ? (shown.at(-1)?.lock.name ?? "") : outcome.next;
  return {
    locks: shown.map(({ lock, holders }) => ({
      name: lock.name,
      holders: holders.map(holder),
      holdersTotal: lock.holdersTotal,
      waiters: lock.waitersTotal,
      reserved: lock.reserved,
      delayRemainingMs: lock.delayRemainingMs,
    })),
    nextPageToken: pageToken(last),
  };
}

/** A lock with its rate, as `metrics/hot-locks.ts` estimates it. */
export interface HotLock {
  readonly name: string;
  readonly grantsPerSecond: number;
}

export function topBody(
  outcome: OutcomeOf<"top">,
  hottest: readonly HotLock[],
  listBytesMax: number,
): leasehold.v1.TopLocksResponse.$Properties {
  const share = listBytesMax / 3;
  return {
    hottest: [...cut(hottest, (hot) => ENTRY_BYTES + text(hot.name), share)],
    longestHolds: cut(outcome.holds, (hold) => text(hold.name) + holderBytes(hold.holder), share).map((hold) => ({
      name: hold.name,
      holder: holder(hold.holder),
    })),
    longestWaits: cut(outcome.waits, (wait) => text(wait.name) + waiterBytes(wait.waiter), share).map((wait) => ({
      name: wait.name,
      waiter: waiter(wait.waiter),
    })),
  };
}

/** The first of the holders of a lock that is not free. */
export function holdersOf(
  outcome: { readonly holders: readonly HolderView[] },
  listBytesMax: number,
): leasehold.v1.Holder.$Properties[] {
  return cut(outcome.holders, holderBytes, listBytesMax).map(holder);
}

export function holder(view: HolderView): leasehold.v1.Holder.$Properties {
  return {
    token: view.token,
    timestamp: view.timestamp,
    owner: view.owner,
    metadata: bytes(view.metadata),
    heldMs: view.heldMs,
    leaseRemainingMs: view.leaseRemainingMs,
    leaseDisplayId: view.leaseDisplayId,
    mode: modes[view.mode],
    permits: view.permits,
    permitLimit: view.permitLimit,
    slots: [...view.slots],
    maxHoldRemainingMs: view.maxHoldRemainingMs,
    revoking: view.revoking,
    contenderId: view.contenderId,
  };
}

export function waiter(view: WaiterView): leasehold.v1.Waiter.$Properties {
  return {
    ticketId: view.ticketId,
    position: view.position,
    owner: view.owner,
    metadata: bytes(view.metadata),
    waitedMs: view.waitedMs,
    attached: view.attached,
    mode: modes[view.mode],
    permits: view.permits,
    permitLimit: view.permitLimit,
    locks: view.locks,
    contenderId: view.contenderId,
    blockedBy: view.blockedBy && blocker(view.blockedBy),
  };
}

function blocker(view: BlockerView): leasehold.v1.Blocker.$Properties {
  const { lock, token, ticketId, owner, hops } = view;
  return { lock, token, ticketId, owner, hops };
}

export function knotWaits(knot: readonly KnotWait[], listBytesMax: number): leasehold.v1.KnotWait.$Properties[] {
  return cut(knot, knotWaitBytes, listBytesMax).map((wait) => ({
    ticketId: wait.ticketId,
    owner: wait.owner,
    contenderId: wait.contenderId,
    waitsFor: [...wait.waitsFor],
    holds: [...wait.holds],
  }));
}

// ------------------------------------------------------------------------------------------ sizes

/** What an entry takes at most beside its texts and slots. */
const ENTRY_BYTES = 100;

/** As many entries from the first on as stay within `bytesMax`, by an upper estimate; at least one. */
export function cut<T>(entries: readonly T[], size: (entry: T) => number, bytesMax: number): readonly T[] {
  let sum = 0;
  for (let i = 0; i < entries.length; i++) {
    sum += size(entries[i] as T);
    if (sum > bytesMax) return entries.slice(0, Math.max(1, i));
  }
  return entries;
}

function total<T>(entries: readonly T[], size: (entry: T) => number): number {
  return entries.reduce((sum, entry) => sum + size(entry), 0);
}

/** A UTF-16 unit is three bytes of UTF-8 at most. */
const text = (...texts: readonly string[]) => texts.reduce((sum, { length }) => sum + length * 3, 0);

const leaseBytes = (view: LeaseView) => ENTRY_BYTES + text(view.displayId, view.owner);

export function holderBytes(view: HolderView): number {
  const texts = text(view.owner, view.leaseDisplayId, view.contenderId) + view.metadata.length;
  return ENTRY_BYTES + texts + view.slots.length * 4;
}

export function waiterBytes(view: WaiterView): number {
  const texts = text(view.owner, view.ticketId, view.contenderId) + view.metadata.length;
  const { blockedBy } = view;
  return ENTRY_BYTES + texts + (blockedBy ? text(blockedBy.lock, blockedBy.ticketId, blockedBy.owner) : 0);
}

/** A name in a list has a tag and a length beside it. */
const namesBytes = (names: readonly string[]) => names.length * 4 + text(...names);

const knotWaitBytes = (wait: KnotWait) =>
  ENTRY_BYTES + text(wait.ticketId, wait.owner, wait.contenderId) + namesBytes(wait.waitsFor) + namesBytes(wait.holds);
