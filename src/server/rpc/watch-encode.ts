/** What watchers are told, as the wire shows it. */
import { encode, type leasehold, v1 } from "@leasehold/client/wire";
import type { HoldEnd, HoldFacts, LockEvent } from "../core/types.js";
import { isEvent, LISTED_MAX, type WatchEntry } from "../watch/entry.js";
import { cut, holder, holderBytes, waiter, waiterBytes } from "./encode-views.js";

type Body = leasehold.v1.WatchEvent.$Properties;
type Kind = NonNullable<Body["kind"]>;

const RESET = 1;
const STATE = 2;
const SYNCED = 3;
const QUEUED = 4;
const DEQUEUED = 5;
const GRANTED = 6;
const TRANSFERRED = 12;

const ends = {
  released: 7,
  cancelled: 7,
  undelivered: 7,
  expired: 8,
  revoked: 9,
  forced: 10,
  max_hold: 11,
  transferred: TRANSFERRED,
} as const satisfies Record<HoldEnd, Kind>;

const changes = { downgraded: 13, updated: 14, revoking: 15 } as const;

const resetReasons = { start: 1, lagged: 2, forgotten: 3 } as const;

/** One response. `position`: to continue from. */
export function watchResponse(entries: readonly WatchEntry[], position: number, listBytesMax: number): Buffer {
  const events = entries.map((entry) => ({ timestamp: entry.timestamp, ...body(entry, listBytesMax) }));
  return encode(v1.WatchResponse, { events, timestamp: position });
}

function body(entry: WatchEntry, listBytesMax: number): Body {
  if (isEvent(entry)) return { name: entry.name, ...eventBody(entry) };
  if (entry.kind === "reset") return { kind: RESET, resetReason: resetReasons[entry.reason] };
  if (entry.kind === "synced") return { kind: SYNCED };
  const { lock } = entry;
  return {
    kind: STATE,
    name: lock.name,
    holders: cut(lock.holders.slice(0, LISTED_MAX), holderBytes, listBytesMax / 2).map(holder),
    holdersTotal: lock.holdersTotal,
    waiters: cut(lock.waiters.slice(0, LISTED_MAX), waiterBytes, listBytesMax / 2).map(waiter),
    waitersTotal: lock.waitersTotal,
  };
}

function eventBody(event: LockEvent): Body {
  switch (event.kind) {
    case "queued":
      return { kind: QUEUED, waiters: [waiter(event.waiter)] };
    case "dequeued":
      return { kind: DEQUEUED, waiters: [waiter(event.waiter)] };
    case "granted": {
      const { transferredFrom, ticketId } = event;
      const kind = transferredFrom === 0 ? GRANTED : TRANSFERRED;
      return { kind, holders: [holdBody(event.hold, false)], token: transferredFrom, ticketId };
    }
    case "holdEnded":
      return { kind: ends[event.end], token: event.token, message: event.message };
    default: {
      const holders = [holdBody(event.hold, event.kind === "revoking")];
      return { kind: changes[event.kind], holders, message: event.message };
    }
  }
}

/** An event tells what a hold is, not for how long it has been one or will be. */
function holdBody(hold: HoldFacts, revoking: boolean): leasehold.v1.Holder.$Properties {
  return holder({ ...hold, heldMs: 0, leaseRemainingMs: 0, maxHoldRemainingMs: 0, revoking });
}
