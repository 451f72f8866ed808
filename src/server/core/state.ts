import { Deadlines, type Timed } from "./deadlines.js";
import type { LamportClock } from "./lamport.js";
import { NameIndex } from "./name-index.js";
import type { CoreLimits, LeaseEndReason, Route } from "./types.js";

/** A promise of liveness. When it ends, its holds and tickets end with it. */
export interface Lease extends Timed {
  readonly kind: "lease";
  readonly id: string;
  /** Names the lease where its id, a secret, must not be shown. Sorts in order of creation. */
  readonly displayId: string;
  readonly ttlMs: number;
  readonly owner: string;
  readonly metadata: string;
  /** The session that created it, with the sequence number of that command; null and 0 for a unary call. */
  readonly session: Session | null;
  readonly seq: number;
  /** Made for one Acquire and ended with it. */
  readonly own: boolean;
  /** Moved by every renewal; `dueMs` follows lazily, when it comes up in the heap. */
  deadlineMs: number;
  /** Set by the first step that sees the deadline passed. From then on holds and tickets count as absent. */
  dead: LeaseEndReason | null;
  /** The incarnation of the server in which it was last renewed. */
  renewedIn: number;
  restartExtensionMs: number;
  readonly holds: Set<Hold>;
  readonly tickets: Set<Ticket>;
  /** The last batch that wrote something about this lease. */
  batch: number;
}

/** One hold of one lock by one lease. In `Deadlines` only while it waits to be fetched by its caller. */
export interface Hold extends Timed {
  readonly kind: "hold";
  readonly token: number;
  readonly timestamp: number;
  readonly lock: Lock;
  readonly lease: Lease;
  /** The Acquire's sequence number in the lease's session; 0 for a unary call. */
  readonly seq: number;
  /** The unary Acquire's request id, or "". */
  readonly requestId: string;
  readonly owner: string;
  readonly metadata: string;
  /** Wall-clock time, for display. */
  readonly grantedWallMs: number;
  readonly grantedAtMs: number;
  /** Unary: how many calls were told of it and are not known to be gone. Infinity after a restart: nobody knows. */
  told: number;
}

/** A place in a queue. Attached while there is a route to deliver the grant to. */
export interface Ticket extends Timed {
  readonly kind: "ticket";
  /** Rises with every ticket; the order in the queue. */
  readonly serial: number;
  readonly lock: Lock;
  readonly lease: Lease;
  readonly seq: number;
  readonly requestId: string;
  readonly owner: string;
  readonly metadata: string;
  readonly waitMs: number;
  readonly queuedWallMs: number;
  readonly queuedAtMs: number;
  waitUntilMs: number;
  /** Attached unary tickets: when this poll is answered with `waiting`. */
  pollUntilMs: number;
  /** Null: detached. It keeps its place but cannot be granted. */
  route: Route | null;
  previous: Ticket | null;
  next: Ticket | null;
}

/** A lock that somebody holds or waits for. */
export interface Lock {
  readonly name: string;
  hold: Hold | null;
  head: Ticket | null;
  tail: Ticket | null;
  waiters: number;
}

/** What is left of a command of a session when its effect is over but its answer may not have arrived. */
export type SessionOutcome =
  | { readonly kind: "released" }
  | { readonly kind: "cancelled" }
  /** A grant that ended, or a lease that died, before its answer was acknowledged. */
  | { readonly kind: "ended"; readonly token: number };

/** One client's stream of commands, which may be resumed on another connection. */
export interface Session {
  readonly id: string;
  epoch: number;
  /** Null: detached. */
  route: Route | null;
  ackedBelow: number;
  /** By sequence number: the effect of every command whose answer the client has not acknowledged. */
  readonly unacked: Map<number, Lease | Hold | Ticket | SessionOutcome>;
  readonly leases: Map<number, Lease>;
  readonly holds: Set<Hold>;
  readonly tickets: Map<number, Ticket>;
  /** Its record has changed in the batch that is being built. */
  dirty: boolean;
}

/** A unary Acquire that is over, remembered so that its duplicate has no effect. */
export interface PastRequest extends Timed {
  readonly kind: "request";
  readonly key: string;
  readonly end: "cancelled" | "ended" | "timedOut";
  /** The token it had been granted, 0 if none. */
  readonly token: number;
}

/** All of the core's state. Everything but the routes, the deadlines and the derived indexes is durable. */
export interface State {
  readonly limits: CoreLimits;
  readonly clock: LamportClock;
  /** Counts the starts of this store. */
  readonly incarnation: number;
  /** The last token granted. */
  token: number;
  /** The last number used for a ticket or a display id. */
  serial: number;
  /** The number of the batch that is being built. */
  batch: number;
  /** Not "": why nothing is granted. */
  halted: string;
  readonly clusterId: string;
  readonly leases: Map<string, Lease>;
  readonly leaseIndex: NameIndex;
  readonly leasesByDisplayId: Map<string, Lease>;
  readonly locks: Map<string, Lock>;
  readonly lockIndex: NameIndex;
  readonly holds: Map<number, Hold>;
  readonly sessions: Map<string, Session>;
  readonly dirtySessions: Set<Session>;
  /** Unary Acquires that wait or hold, by `requestKey`. */
  readonly requests: Map<string, Hold | Ticket | PastRequest>;
  pastRequests: number;
  /** Unary tickets by the call that waits. */
  readonly callTickets: Map<Route, Ticket>;
  waiters: number;
  readonly deadlines: Deadlines<Lease | Hold | Ticket | PastRequest>;
  /** Dead leases whose holds and tickets are not all collected. */
  readonly collecting: Set<Lease>;
}

export function emptyState(init: {
  limits: CoreLimits;
  clock: LamportClock;
  incarnation: number;
  token: number;
  serial: number;
  clusterId: string;
}): State {
  return {
    ...init,
    batch: 1,
    halted: "",
    leases: new Map(),
    leaseIndex: new NameIndex(),
    leasesByDisplayId: new Map(),
    locks: new Map(),
    lockIndex: new NameIndex(),
    holds: new Map(),
    sessions: new Map(),
    dirtySessions: new Set(),
    requests: new Map(),
    pastRequests: 0,
    callTickets: new Map(),
    waiters: 0,
    deadlines: new Deadlines(),
    collecting: new Set(),
  };
}

/** The key of a unary Acquire among those of all callers: its own id, within the lease that it named. */
export const requestKey = (leaseId: string, requestId: string): string => `${leaseId}/${requestId}`;
