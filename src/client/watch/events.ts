/**
 * What a watch tells, as users see it: plain data, made from the wire's messages.
 *
 * Lengths of time in a holder (`heldMs`, `leaseRemainingMs`, `maxHoldRemainingMs`) are told with "state" only; in the
 * events they are 0.
 */
import { type Holder, holderView, type Waiter, waiterView } from "../views.js";
import { type leasehold, v1 } from "../wire/index.js";

/** What every event of a watch has. */
export interface WatchMoment {
  /** The Lamport timestamp of the event. Timestamps rise; the events of one AcquireAll share theirs. */
  readonly timestamp: number;
  /**
   * Where to continue once this event has been dealt with, to be given as `after`: nothing is missed, and at most some
   * events with the same timestamp come again. 0 while the state is incomplete: begin anew.
   */
  readonly position: number;
}

/** What was known is void, for this reason; the state follows. */
export interface WatchReset extends WatchMoment {
  readonly type: "reset";
  /**
   * - `start`: the watch begins.
   * - `lagged`: events were missed because they were not read fast enough.
   * - `forgotten`: the server has no memory of what happened since the position asked for; it may have been restarted.
   */
  readonly reason: "start" | "lagged" | "forgotten";
}

/** One lock that is held or waited for, as it is at this moment. */
export interface WatchState extends WatchMoment {
  readonly type: "state";
  readonly name: string;
  /** The first ten. */
  readonly holders: readonly Holder[];
  readonly holdersTotal: number;
  /** The first ten in the queue. */
  readonly waiters: readonly Waiter[];
  readonly waitersTotal: number;
}

/** The state is complete: a lock of which nothing was said is free. */
export interface WatchSynced extends WatchMoment {
  readonly type: "synced";
}

/** Somebody has joined the queue of a lock, or has left it without a grant. */
export interface WatchQueue extends WatchMoment {
  readonly type: "queued" | "dequeued";
  readonly name: string;
  readonly waiter: Waiter;
}

/** A lock was granted. */
export interface WatchGranted extends WatchMoment {
  readonly type: "granted";
  readonly name: string;
  /** Who holds it now; the lengths of time in it are not told and 0. */
  readonly holder: Holder;
  /** The ticket that it waited with; "" if it did not wait. */
  readonly ticketId: string;
}

/** A holder has handed its lock on to somebody who waited for it. */
export interface WatchTransferred extends WatchMoment {
  readonly type: "transferred";
  readonly name: string;
  /** The new holder. */
  readonly holder: Holder;
  readonly ticketId: string;
  /** The token of the hold that was handed on, which is over. */
  readonly previousToken: number;
}

/**
 * A hold has ended: given back (`released`), with its lease that died (`expired`) or was ended by its client
 * (`revoked`), taken away by an administrator (`forced`), or because its maximum hold was over (`max_hold`).
 */
export interface WatchEnded extends WatchMoment {
  readonly type: "released" | "expired" | "revoked" | "forced" | "max_hold";
  readonly name: string;
  readonly token: number;
  /** With `forced`: the administrator's reason. Else "". */
  readonly message: string;
}

/**
 * A hold is not what it was: exclusive before and shared now (`downgraded`), its metadata replaced (`updated`), or about
 * to be taken away by an administrator (`revoking`).
 */
export interface WatchChanged extends WatchMoment {
  readonly type: "downgraded" | "updated" | "revoking";
  readonly name: string;
  /** The hold as it is now. */
  readonly holder: Holder;
  /** With `revoking`: the administrator's reason. Else "". */
  readonly message: string;
}

/** What happened to a lock that is watched. Tell them apart by `type`. */
export type WatchEvent =
  | WatchReset
  | WatchState
  | WatchSynced
  | WatchQueue
  | WatchGranted
  | WatchTransferred
  | WatchEnded
  | WatchChanged;

type Without<E, K extends PropertyKey> = E extends unknown ? Omit<E, K> : never;

/** An event before its position in the stream is known. */
export type UnplacedEvent = Without<WatchEvent, "position">;

type Wire = leasehold.v1.WatchEvent.$Properties;

const RESET_REASONS: Readonly<Record<number, WatchReset["reason"]>> = {
  [v1.ResetReason.RESET_REASON_LAGGED]: "lagged",
  [v1.ResetReason.RESET_REASON_FORGOTTEN]: "forgotten",
};

const KINDS = v1.WatchEventKind;
const QUEUE = new Map<number, WatchQueue["type"]>([
  [KINDS.WATCH_EVENT_KIND_QUEUED, "queued"],
  [KINDS.WATCH_EVENT_KIND_DEQUEUED, "dequeued"],
]);
const ENDED = new Map<number, WatchEnded["type"]>([
  [KINDS.WATCH_EVENT_KIND_RELEASED, "released"],
  [KINDS.WATCH_EVENT_KIND_EXPIRED, "expired"],
  [KINDS.WATCH_EVENT_KIND_REVOKED, "revoked"],
  [KINDS.WATCH_EVENT_KIND_FORCED, "forced"],
  [KINDS.WATCH_EVENT_KIND_MAX_HOLD, "max_hold"],
]);
const CHANGED = new Map<number, WatchChanged["type"]>([
  [KINDS.WATCH_EVENT_KIND_DOWNGRADED, "downgraded"],
  [KINDS.WATCH_EVENT_KIND_UPDATED, "updated"],
  [KINDS.WATCH_EVENT_KIND_REVOKING, "revoking"],
]);

/** Null: a kind of event that this version of the client does not know. */
export function eventView(wire: Wire): UnplacedEvent | null {
  const kind = wire.kind ?? 0;
  const timestamp = wire.timestamp ?? 0;
  const name = wire.name ?? "";
  const message = wire.message ?? "";
  const queue = QUEUE.get(kind);
  if (queue) return { type: queue, timestamp, name, waiter: waiterView(wire.waiters?.[0] ?? {}) };
  const ended = ENDED.get(kind);
  if (ended) return { type: ended, timestamp, name, token: wire.token ?? 0, message };
  const changed = CHANGED.get(kind);
  if (changed) return { type: changed, timestamp, name, holder: holderOf(wire), message };
  switch (kind) {
    case KINDS.WATCH_EVENT_KIND_RESET:
      return { type: "reset", timestamp, reason: RESET_REASONS[wire.resetReason ?? 0] ?? "start" };
    case KINDS.WATCH_EVENT_KIND_SYNCED:
      return { type: "synced", timestamp };
    case KINDS.WATCH_EVENT_KIND_STATE:
      return stateView(wire, timestamp, name);
    case KINDS.WATCH_EVENT_KIND_GRANTED:
      return { type: "granted", timestamp, name, holder: holderOf(wire), ticketId: wire.ticketId ?? "" };
    case KINDS.WATCH_EVENT_KIND_TRANSFERRED: {
      const previousToken = wire.token ?? 0;
      return {
        type: "transferred",
        timestamp,
        name,
        holder: holderOf(wire),
        ticketId: wire.ticketId ?? "",
        previousToken,
      };
    }
    default:
      return null;
  }
}

const holderOf = (wire: Wire): Holder => holderView(wire.holders?.[0] ?? {});

function stateView(wire: Wire, timestamp: number, name: string): UnplacedEvent {
  return {
    type: "state",
    timestamp,
    name,
    holders: (wire.holders ?? []).map(holderView),
    holdersTotal: wire.holdersTotal ?? 0,
    waiters: (wire.waiters ?? []).map(waiterView),
    waitersTotal: wire.waitersTotal ?? 0,
  };
}
