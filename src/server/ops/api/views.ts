/** Locks and leases as the API shows them. Lease ids are credentials, and never shown. */
import type { HolderView, LeaseView, LockView, WaiterView } from "../../core/types.js";
import { cut, holderBytes, waiterBytes } from "../../rpc/encode-views.js";

/** Metadata is base64: the console shows it as text if it is some. */
export function holder(view: HolderView): object {
  const { token, timestamp, owner, metadata, heldMs, leaseRemainingMs, leaseDisplayId } = view;
  const { mode, permits, permitLimit, slots, maxHoldRemainingMs, revoking, contenderId } = view;
  const hold = { token, timestamp, owner, metadata, mode, permits, permitLimit, slots, contenderId, revoking };
  return { ...hold, heldMs, leaseRemainingMs, maxHoldRemainingMs, lease: leaseDisplayId };
}

export function waiter(view: WaiterView): object {
  const { ticketId, position, owner, metadata, waitedMs, attached, mode, permits, permitLimit, locks } = view;
  const wait = { ticket: ticketId, position, owner, metadata, waitedMs, attached, mode, permits, permitLimit, locks };
  return { ...wait, contenderId: view.contenderId, blockedBy: view.blockedBy };
}

/** Lists are cut where they take more than `bytesMax`; the totals tell. */
export function lock(view: LockView, bytesMax: number): object {
  return {
    name: view.name,
    holders: cut(view.holders, holderBytes, bytesMax / 2).map(holder),
    holdersTotal: view.holdersTotal,
    waiters: cut(view.waiters, waiterBytes, bytesMax / 2).map(waiter),
    waitersTotal: view.waitersTotal,
    reserved: view.reserved,
    delayRemainingMs: view.delayRemainingMs,
  };
}

/** A page of locks, each with the first of its holders and without its waiters. */
export function locks(views: readonly LockView[], next: string, bytesMax: number): { locks: object[]; next: string } {
  const brief = views.map((view) => ({ ...view, holders: view.holders.slice(0, HOLDERS_BRIEF), waiters: [] }));
  const shown = cut(brief, lockBytes, bytesMax);
  const last = shown.length < views.length ? (shown.at(-1)?.name ?? "") : next;
  return { locks: shown.map((view) => lock(view, bytesMax)), next: last };
}

const HOLDERS_BRIEF = 3;

export const lockBytes = (view: LockView): number =>
  view.name.length * 3 +
  view.holders.reduce((sum, one) => sum + holderBytes(one), 0) +
  view.waiters.reduce((sum, one) => sum + waiterBytes(one), 0);

export function lease(view: LeaseView): object {
  const { displayId, ttlMs, remainingMs, owner, holds, waits, restartExtensionMs, progressEveryMs } = view;
  return { id: displayId, ttlMs, remainingMs, owner, holds, waits, restartExtensionMs, progressEveryMs };
}
