/** What a watcher is told, before it is encoded. */
import type { CoreEvent, HoldFacts, LockEvent, LockView, WaiterView } from "../core/types.js";

/** start: the watch begins. lagged: it did not read fast enough. forgotten: its position is not in the history. */
export type ResetReason = "start" | "lagged" | "forgotten";

export type WatchEntry =
  | LockEvent
  | { readonly kind: "reset"; readonly timestamp: number; readonly reason: ResetReason }
  /** The state of one lock after all events up to `timestamp`. */
  | { readonly kind: "state"; readonly timestamp: number; readonly lock: LockView }
  | { readonly kind: "synced"; readonly timestamp: number };

/** What watchers are told of. A transfer is one event: the grant; the end of the hold before is for metrics. */
export function isWatched(event: CoreEvent): event is LockEvent {
  switch (event.kind) {
    case "queued":
    case "dequeued":
    case "granted":
    case "downgraded":
    case "updated":
    case "revoking":
      return true;
    case "holdEnded":
      return event.end !== "transferred";
    default:
      return false;
  }
}

export function isEvent(entry: WatchEntry): entry is LockEvent {
  return entry.kind !== "reset" && entry.kind !== "state" && entry.kind !== "synced";
}

/** How many holders and waiters of one lock a watcher is told. */
export const LISTED_MAX = 10;

/** What an entry, a holder or a waiter takes beside its texts and slots. */
const FIXED_BYTES = 100;
const SLOT_BYTES = 4;

/** About how many bytes an entry takes, in memory and on the wire. */
export function entryBytes(entry: WatchEntry): number {
  switch (entry.kind) {
    case "reset":
    case "synced":
      return FIXED_BYTES;
    case "state":
      return stateBytes(entry.lock);
    case "queued":
    case "dequeued":
      return FIXED_BYTES + entry.name.length + waiterBytes(entry.waiter);
    case "granted":
      return FIXED_BYTES + entry.name.length + holdBytes(entry.hold);
    case "holdEnded":
      return FIXED_BYTES + entry.name.length + entry.message.length;
    default:
      return FIXED_BYTES + entry.name.length + entry.message.length + holdBytes(entry.hold);
  }
}

function stateBytes(lock: LockView): number {
  let sum = FIXED_BYTES + lock.name.length;
  for (const holder of lock.holders.slice(0, LISTED_MAX)) sum += holdBytes(holder);
  for (const waiter of lock.waiters.slice(0, LISTED_MAX)) sum += waiterBytes(waiter);
  return sum;
}

function holdBytes(hold: Pick<HoldFacts, "owner" | "metadata" | "contenderId" | "slots">): number {
  const texts = hold.owner.length + hold.metadata.length + hold.contenderId.length;
  return FIXED_BYTES + texts + hold.slots.length * SLOT_BYTES;
}

function waiterBytes(waiter: WaiterView): number {
  return FIXED_BYTES + waiter.owner.length + waiter.metadata.length + waiter.contenderId.length;
}
