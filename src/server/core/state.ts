import { Deadlines, type Timed } from "./deadlines.js";
import type { LamportClock } from "./lamport.js";
import { NameIndex } from "./name-index.js";
import type { Usage } from "./principals.js";
import type { CoreLimits, LeaseEndReason, LockItem, LockMode, Route } from "./types.js";

/** A promise of liveness. When it ends, its holds and tickets end with it. */
export interface Lease extends Timed {
  readonly kind: "lease";
  readonly id: string;
  /** Names the lease where its id, a secret, must not be shown. Sorts in order of creation. */
  readonly displayId: string;
  readonly ttlMs: number;
  /** 0: it lives by renewals alone. */
  readonly progressEveryMs: number;
  readonly owner: string;
  readonly metadata: string;
  /** The name of the principal that it belongs to; "": it was made while authentication was off. */
  readonly principal: string;
  /** The session that created it, with the sequence number of that command; null and 0 for a unary call. */
  readonly session: Session | null;
  readonly seq: number;
  /** Made for one Acquire and ended with it. */
  readonly own: boolean;
  /** Moved by every renewal and every report of progress. */
  ttlUntilMs: number;
  /** Moved by every report of progress; infinity without `progressEveryMs`. */
  progressUntilMs: number;
  /** The earlier of the two; `dueMs` follows lazily, when it comes up in the heap. */
  deadlineMs: number;
  /** Set by the first step that sees the deadline passed. From then on holds and tickets count as absent. */
  dead: LeaseEndReason | null;
  diedAtMs: number;
  /** The incarnation of the server in which it was last renewed, and in which progress was last reported. */
  renewedIn: number;
  progressedIn: number;
  restartExtensionMs: number;
  readonly holds: Set<Hold>;
  readonly tickets: Set<Ticket>;
  /** The places of its tickets. */
  waits: number;
  /** Unary holds that are being taken away; null: none ever was. */
  revoking: Set<Hold> | null;
  contenders: Map<string, Contender> | null;
  /** The last batch that wrote something about this lease, or promised less than was promised before. */
  batch: number;
}

/** One task, as it names itself: what it holds, and what it waits for, within one session or one lease. */
export interface Contender {
  readonly holds: Set<Hold>;
  readonly tickets: Set<Ticket>;
}

/** What was granted to one AcquireAll. */
export interface HoldSet {
  /** The token of its first hold; those of the others follow without a gap. */
  readonly firstToken: number;
  readonly size: number;
  /** Those that have not ended, in the order of their tokens. */
  readonly holds: Hold[];
}

/** One hold of one lock by one lease. In `Deadlines` while there is a time at which it ends by itself. */
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
  metadata: string;
  readonly contenderId: string;
  /** Wall-clock time, for display. */
  readonly grantedWallMs: number;
  readonly grantedAtMs: number;
  mode: LockMode;
  /** Semaphores; else 0, 0 and empty. */
  readonly permits: number;
  readonly permitLimit: number;
  readonly slots: readonly number[];
  readonly lockDelayMs: number;
  /** Null: granted to an Acquire, not to an AcquireAll. */
  readonly set: HoldSet | null;
  /** Unary: how many calls were told of it and are not known to be gone. Infinity after a restart: nobody knows. */
  told: number;
  /** Nobody knows of it: until when somebody may ask for it. Infinity: somebody does. */
  unfetchedUntilMs: number;
  /** Infinity: it has no maximum. */
  readonly maxHoldUntilMs: number;
  /** Not null: an administrator takes it away, and why. */
  revoking: string | null;
  revokingUntilMs: number;
  /** The tickets that claim it; null: none ever did. */
  claimers: Set<Ticket> | null;
  /** Its neighbours among the holders of the lock, in order of their grants. */
  previous: Hold | null;
  next: Hold | null;
}

/** An Acquire that waits. Attached while there is a route to deliver the grant to. */
export interface Ticket extends Timed {
  readonly kind: "ticket";
  /** Rises with every ticket; the order in the queues. */
  readonly serial: number;
  /** One in the queue of each of its locks, in the order of the request. */
  readonly places: readonly Place[];
  readonly all: boolean;
  readonly lease: Lease;
  readonly seq: number;
  readonly requestId: string;
  readonly owner: string;
  readonly metadata: string;
  readonly contenderId: string;
  /** What its Acquire named as kept while it waits, for the record. */
  readonly heldTokens: readonly number[];
  readonly lockDelayMs: number;
  readonly maxHoldMs: number;
  readonly waitMs: number;
  readonly queuedWallMs: number;
  readonly queuedAtMs: number;
  waitUntilMs: number;
  /** When its Acquire came for the last time: since then somebody waits at this ticket. */
  askedAtMs: number;
  /** Attached unary tickets: when this poll is answered with `waiting`. */
  pollUntilMs: number;
  /** Null: detached. It keeps its places but cannot be granted. */
  route: Route | null;
  /** The holds that its caller keeps while it waits; null: none ever. */
  claims: Set<Hold> | null;
}

/** A ticket's place in the queue of one lock. */
export interface Place {
  readonly ticket: Ticket;
  readonly lock: Lock;
  readonly item: LockItem;
  previous: Place | null;
  next: Place | null;
}

/** A lock that is held, waited for, or barred by a lock delay. */
export interface Lock {
  readonly name: string;
  /** Holders in order of their grants, those with dead leases among them. */
  first: Hold | null;
  last: Hold | null;
  holders: number;
  /** Its holders take permits, or did; else null. */
  semaphore: Semaphore | null;
  /** The queue, in order of ticket numbers, the tickets of dead leases among them. */
  head: Place | null;
  tail: Place | null;
  waiters: number;
  delay: Delay | null;
}

/** The sums over the semaphore holds of a lock. */
export interface Semaphore {
  permits: number;
  /** How many holds declared each limit. */
  readonly limits: Map<number, number>;
  /** Who has each slot that is in use. */
  readonly slots: Map<number, Hold>;
  /** No lower slot is free. */
  lowestFree: number;
}

/** Nobody gets the lock before it is over. */
export interface Delay extends Timed {
  readonly kind: "delay";
  readonly lock: Lock;
  untilMs: number;
}

/** What is left of a command of a session when its effect is over but its answer may not have arrived. */
export type SessionOutcome =
  | { readonly kind: "released" }
  | { readonly kind: "downgraded" }
  | { readonly kind: "metadataSet" }
  /** With the token of the grant that it made. */
  | { readonly kind: "transferred"; readonly token: number }
  | { readonly kind: "cancelled" }
  /** A grant that ended, or a lease that died, before its answer was acknowledged. */
  | { readonly kind: "ended"; readonly token: number };

/** One client's stream of commands, which may be resumed on another connection. */
export interface Session {
  readonly id: string;
  /** Whose it is. One that belongs to nobody becomes the first principal's that resumes it. */
  principal: string;
  epoch: number;
  /** Null: detached. */
  route: Route | null;
  ackedBelow: number;
  /**
   * By sequence number: the effect of every command whose answer the client has not acknowledged. Of several holds of one
   * AcquireAll the first that has not ended.
   */
  readonly unacked: Map<number, Lease | Hold | Ticket | SessionOutcome>;
  readonly leases: Map<number, Lease>;
  readonly holds: Set<Hold>;
  readonly tickets: Map<number, Ticket>;
  contenders: Map<string, Contender> | null;
  /** Its record has changed in the batch that is being built. */
  dirty: boolean;
}

/** A unary Acquire that is over, remembered so that its duplicate has no effect. */
export interface PastRequest extends Timed {
  readonly kind: "request";
  readonly key: string;
  readonly end: "cancelled" | "ended" | "timedOut" | "deadlock";
  /** The token it had been granted, 0 if none. */
  readonly token: number;
}

/** All of the core's state. Everything but the routes, the deadlines and the derived indexes is durable. */
export interface State {
  readonly limits: CoreLimits;
  readonly clock: LamportClock;
  /** Counts the starts of this store. */
  readonly incarnation: number;
  /** Added to a time of this incarnation: the time served by all of them. */
  readonly servedOffsetMs: number;
  /** The last token granted. */
  token: number;
  /** The last number used for a ticket or a display id. */
  serial: number;
  /** The number of the batch that is being built. */
  batch: number;
  /** Not "": why nothing is granted. */
  halted: string;
  /** Nothing is granted before: the store was restored. In the past: it was not, or it is over. */
  readonly quietUntilMs: number;
  readonly clusterId: string;
  readonly leases: Map<string, Lease>;
  readonly leaseIndex: NameIndex;
  readonly leasesByDisplayId: Map<string, Lease>;
  readonly locks: Map<string, Lock>;
  readonly lockIndex: NameIndex;
  /** By token, and so in the order of the grants. */
  readonly holds: Map<number, Hold>;
  /** How many of them there are of each mode. */
  readonly held: Record<LockMode, number>;
  /** By serial, and so in the order of arrival. */
  readonly tickets: Map<number, Ticket>;
  readonly sessions: Map<string, Session>;
  readonly dirtySessions: Set<Session>;
  /** Unary Acquires that wait or hold, by `requestKey`. */
  readonly requests: Map<string, Hold | Ticket | PastRequest>;
  pastRequests: number;
  /** What each principal has, by its name; nobody in particular has no entry, and who has nothing has none. */
  readonly usage: Map<string, Usage>;
  /** Unary tickets by the call that waits. */
  readonly callTickets: Map<Route, Ticket>;
  readonly deadlines: Deadlines<Lease | Hold | Ticket | PastRequest | Delay>;
  /** Dead leases whose holds and tickets are not all collected. */
  readonly collecting: Set<Lease>;
  /** Locks at which somebody may have become next, in the order in which that was noticed. */
  readonly unsettled: Set<Lock>;
  /** Holds that may have become part of a deadlock. */
  readonly suspects: Set<Hold>;
}

export function emptyState(init: {
  limits: CoreLimits;
  clock: LamportClock;
  incarnation: number;
  servedOffsetMs: number;
  token: number;
  serial: number;
  clusterId: string;
  quietUntilMs: number;
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
    held: { exclusive: 0, shared: 0, semaphore: 0 },
    tickets: new Map(),
    sessions: new Map(),
    dirtySessions: new Set(),
    requests: new Map(),
    pastRequests: 0,
    usage: new Map(),
    callTickets: new Map(),
    deadlines: new Deadlines(),
    collecting: new Set(),
    unsettled: new Set(),
    suspects: new Set(),
  };
}

/**
 * The key of a unary Acquire among those of all callers: its own id, within the lease that it named; without one, within
 * what its principal asked for. The name of a principal may hold any character, so its length comes with it, behind an @
 * that no lease is left with: clients may name leases that never were.
 */
export function requestKey(leaseId: string, principal: string, requestId: string): string {
  if (leaseId.startsWith("@")) return `@${leaseId}/${requestId}`;
  if (leaseId !== "" || principal === "") return `${leaseId}/${requestId}`;
  return `@${principal.length}/${principal}/${requestId}`;
}
