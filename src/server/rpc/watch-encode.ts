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

/** Events whose bytes are kept: a watcher that has to wait for its turn is behind by some hundreds. */
const KEPT_MAX = 1_024;

/**
 * Makes responses. The bytes of an event are made once for all watchers: those of a response are those of its fields, one
 * behind the other, so they can be put together from responses of one event each.
 */
export class WatchEncoder {
  readonly #listBytesMax: number;
  /** The oldest ones first. */
  readonly #kept = new Map<LockEvent, Buffer>();

  constructor(listBytesMax: number) {
    this.#listBytesMax = listBytesMax;
  }

  /** `position`: to continue from. `shared`: others are told of the same events. */
  response(entries: readonly WatchEntry[], position: number, shared: boolean): Buffer {
    if (!shared)
      return encode(v1.WatchResponse, { events: entries.map((one) => this.#event(one)), timestamp: position });
    const parts = entries.map((entry) => (isEvent(entry) ? this.#shared(entry) : this.#alone(entry)));
    return Buffer.concat([...parts, encode(v1.WatchResponse, { events: [], timestamp: position })]);
  }

  #shared(event: LockEvent): Buffer {
    const kept = this.#kept.get(event);
    if (kept !== undefined) return kept;
    const bytes = this.#alone(event);
    this.#kept.set(event, bytes);
    if (this.#kept.size > KEPT_MAX) this.#kept.delete(this.#kept.keys().next().value as LockEvent);
    return bytes;
  }

  #alone(entry: WatchEntry): Buffer {
    return encode(v1.WatchResponse, { events: [this.#event(entry)], timestamp: 0 }); // which is not written
  }

  #event(entry: WatchEntry): Body {
    return { timestamp: entry.timestamp, ...body(entry, this.#listBytesMax) };
  }
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
