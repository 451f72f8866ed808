/**
 * What goes into the core and what comes out of it.
 *
 * The core is a state machine: `step(command, nowMs)` changes its state and puts what follows from that into an
 * `Effects`. It does no I/O, reads no clock, sets no timer and draws no random number: time and fresh identifiers come
 * with the command. Replies and events must not leave the process before the mutations of the same batch are durable;
 * that is the caller's part of the contract.
 *
 * Expected refusals are values (`Refusal`). A throw from the core is a bug.
 */

/** Why a command was refused; identical to the `reason` on the wire. */
export type Reason =
  | "INVALID"
  | "LIMIT"
  | "UNKNOWN_LEASE"
  | "UNKNOWN_SESSION"
  | "SESSION_REPLACED"
  | "CLUSTER_MISMATCH"
  | "STALE_TOKEN"
  | "NOT_WAITING"
  | "DEADLOCK"
  | "CANCELLED_REQUEST"
  | "CLOCK_JUMP"
  | "STORE_DOWN";

export interface Refusal {
  readonly kind: "refused";
  readonly reason: Reason;
  readonly message: string;
  /** DEADLOCK: the waits that wait for each other, the oldest first. */
  readonly knot?: readonly KnotWait[];
}

/** One of the waits of a deadlock. */
export interface KnotWait {
  readonly ticketId: string;
  readonly owner: string;
  readonly contenderId: string;
  /** Names of the locks that it waits for. */
  readonly waitsFor: readonly string[];
  /** Names of the locks that it holds and others of the knot wait for. */
  readonly holds: readonly string[];
}

/** Why a lease ended. */
export type LeaseEndReason = "expired" | "revoked";

export type LockMode = "exclusive" | "shared" | "semaphore";

/**
 * Where a reply goes. Opaque to the core, which keeps it with a ticket until there is something to say. One object per
 * unary call and one per stream of a session.
 */
export interface Route {
  readonly kind: "call" | "stream";
}

// ---------------------------------------------------------------------------------------------------- commands

/** The lease through which an Acquire wants to hold. */
export type HolderSpec =
  | { readonly kind: "lease"; readonly leaseId: string }
  /** A lease of its own that ends with the grant. */
  | { readonly kind: "own"; readonly leaseId: string; readonly ttlMs: number }
  /** The lease that the command `seq` of the same session created. */
  | { readonly kind: "session"; readonly seq: number };

export interface CreateLease {
  readonly kind: "createLease";
  /** Fresh, secret, 128 random bits. */
  readonly leaseId: string;
  readonly ttlMs: number;
  readonly owner: string;
  /** Base64. */
  readonly metadata: string;
  /** Not 0: renewals count only for this long after the last report of progress. */
  readonly progressEveryMs: number;
}
export interface RenewLease {
  readonly kind: "renewLease";
  readonly leaseId: string;
  /** The holder has made progress. */
  readonly progress: boolean;
}
export interface RevokeLease {
  readonly kind: "revokeLease";
  readonly lease:
    | { readonly kind: "lease"; readonly leaseId: string }
    | { readonly kind: "session"; readonly seq: number };
}
export interface GetLease {
  readonly kind: "getLease";
  readonly leaseId: string;
}
export interface ListLeases {
  readonly kind: "listLeases";
  /** Display ids greater than this. */
  readonly after: string;
  readonly limit: number;
}
/** One lock of an Acquire. */
export interface LockItem {
  readonly name: string;
  readonly mode: LockMode;
  /** Semaphores: how many to take, at least 1 and at most `permitLimit`. Else 0. */
  readonly permits: number;
  /** Semaphores: how many there are, as the caller knows it. Else 0. */
  readonly permitLimit: number;
}
/** Acquire, and AcquireAll. */
export interface Acquire {
  readonly kind: "acquire";
  /** One, or for AcquireAll up to `locksPerAcquireMax` of different names. */
  readonly items: readonly LockItem[];
  /** An AcquireAll, which is answered as one even if it has a single item. */
  readonly all: boolean;
  readonly holder: HolderSpec;
  /** 0: try once. */
  readonly waitMs: number;
  /** Unary only: how long this call is held open before it answers `waiting`. */
  readonly pollMs: number;
  /** Unary only; "" for none. */
  readonly requestId: string;
  readonly owner: string;
  /** Base64. */
  readonly metadata: string;
  /** Wall-clock time in ms since 1970, for display only. */
  readonly wallMs: number;
  readonly lockDelayMs: number;
  /** 0: no maximum. */
  readonly maxHoldMs: number;
  /** "" for none. */
  readonly contenderId: string;
  /** Grants that the caller keeps while it waits. */
  readonly heldTokens: readonly number[];
}
export interface CancelAcquire {
  readonly kind: "cancelAcquire";
  readonly target:
    | { readonly kind: "request"; readonly requestId: string; readonly leaseId: string }
    | { readonly kind: "session"; readonly seq: number };
}
export interface Release {
  readonly kind: "release";
  readonly name: string;
  readonly token: number;
}
export interface Transfer {
  readonly kind: "transfer";
  readonly name: string;
  readonly token: number;
  /** "T12" */
  readonly ticketId: string;
}
export interface Downgrade {
  readonly kind: "downgrade";
  readonly name: string;
  readonly token: number;
}
export interface SetMetadata {
  readonly kind: "setMetadata";
  readonly name: string;
  readonly token: number;
  /** Base64. */
  readonly metadata: string;
}
/** An administrator takes a lock away. Unary only. */
export interface ForceRelease {
  readonly kind: "forceRelease";
  readonly name: string;
  /** 0: all holders. */
  readonly token: number;
  readonly message: string;
  /** Do not wait for the holders to confirm. */
  readonly now: boolean;
}
export interface Validate {
  readonly kind: "validate";
  readonly name: string;
  readonly token: number;
}
export interface DescribeLock {
  readonly kind: "describeLock";
  readonly name: string;
  readonly waitersMax: number;
  readonly wallMs: number;
}
export interface ListLocks {
  readonly kind: "listLocks";
  readonly prefix: string;
  /** Names greater than this. */
  readonly after: string;
  readonly limit: number;
  readonly wallMs: number;
}
/** The longest holds and waits. Unary only. */
export interface TopLocks {
  readonly kind: "topLocks";
  readonly limit: number;
  readonly wallMs: number;
}
export interface Tick {
  readonly kind: "tick";
  readonly observed: number;
  readonly count: number;
}
export interface Status {
  readonly kind: "status";
}

/** What a client may ask for, by a unary call or inside a session frame. */
export type Request =
  | CreateLease
  | RenewLease
  | RevokeLease
  | GetLease
  | ListLeases
  | Acquire
  | CancelAcquire
  | Release
  | Transfer
  | Downgrade
  | SetMetadata
  | ForceRelease
  | Validate
  | DescribeLock
  | ListLocks
  | TopLocks
  | Tick
  | Status;

/** A unary call. */
export interface Call {
  readonly kind: "call";
  readonly request: Request;
  readonly route: Route;
  readonly observed: number;
}

/** A stream says Hello: a new session, or the resumption of one. */
export interface Attach {
  readonly kind: "attach";
  /** "" for a new session; then `newSessionId` is used. */
  readonly sessionId: string;
  /** Fresh, secret, 128 random bits. */
  readonly newSessionId: string;
  readonly epoch: number;
  readonly claims: readonly number[];
  readonly outstanding: readonly number[];
  readonly clusterId: string;
  readonly highestToken: number;
  readonly route: Route;
  readonly observed: number;
}

/** One frame of a session: a batch of requests and a renewal. Discarded when `epoch` is not the session's. */
export interface Frame {
  readonly kind: "frame";
  readonly sessionId: string;
  readonly epoch: number;
  /** The client's number of this frame. */
  readonly frame: number;
  readonly ackedBelow: number;
  readonly acked: readonly number[];
  readonly renew: boolean;
  /** Leases whose holders have made progress, by the sequence numbers of the commands that created them. */
  readonly progress: readonly number[];
  readonly observed: number;
  readonly requests: readonly { readonly seq: number; readonly request: Request | Refusal }[];
}

/** The stream of a session broke, or ended. */
export interface Detach {
  readonly kind: "detach";
  readonly sessionId: string;
  readonly epoch: number;
}

/** A unary Acquire's call ended before its reply could be written. `token` is set when that reply was a grant. */
export interface CallGone {
  readonly kind: "callGone";
  readonly route: Route;
  readonly token: number | null;
}

/** Time has passed: work off what is due, a bounded slice at a time. */
export interface Expire {
  readonly kind: "expire";
}

export type Command = Call | Attach | Frame | Detach | CallGone | Expire;

// ---------------------------------------------------------------------------------------------------- outcomes

export interface LeaseView {
  readonly leaseId: string;
  readonly displayId: string;
  readonly ttlMs: number;
  readonly remainingMs: number;
  readonly owner: string;
  readonly metadata: string;
  readonly holds: number;
  readonly waits: number;
  readonly restartExtensionMs: number;
  readonly progressEveryMs: number;
}
export interface HolderView {
  readonly token: number;
  readonly timestamp: number;
  readonly owner: string;
  readonly metadata: string;
  readonly heldMs: number;
  readonly leaseRemainingMs: number;
  readonly leaseDisplayId: string;
  readonly mode: LockMode;
  readonly permits: number;
  readonly permitLimit: number;
  readonly slots: readonly number[];
  /** 0: no maximum hold. */
  readonly maxHoldRemainingMs: number;
  readonly revoking: boolean;
  readonly contenderId: string;
}
export interface WaiterView {
  readonly ticketId: string;
  readonly position: number;
  readonly owner: string;
  readonly metadata: string;
  readonly waitedMs: number;
  readonly attached: boolean;
  readonly mode: LockMode;
  readonly permits: number;
  readonly permitLimit: number;
  /** For how many locks it waits together. */
  readonly locks: number;
  readonly contenderId: string;
  /** Null: not looked for, or nothing is in the way. */
  readonly blockedBy: BlockerView | null;
}
/** The end of the chain from a waiter over holders that wait themselves. */
export interface BlockerView {
  readonly lock: string;
  /** 0: not a hold. */
  readonly token: number;
  /** "": not a ticket. Neither: the lock delay. */
  readonly ticketId: string;
  readonly owner: string;
  readonly hops: number;
}
export interface LockView {
  readonly name: string;
  /** The first of them, in the order of their tokens. */
  readonly holders: readonly HolderView[];
  readonly holdersTotal: number;
  readonly waiters: readonly WaiterView[];
  readonly waitersTotal: number;
  /** Free for the first in the queue, and kept for it: it is detached, or waits for other locks as well. */
  readonly reserved: boolean;
  readonly delayRemainingMs: number;
}
export interface GrantedLock {
  readonly name: string;
  readonly token: number;
  /** Semaphores only. */
  readonly slots: readonly number[];
}
export interface Counts {
  readonly leases: number;
  readonly locks: number;
  readonly holds: number;
  readonly waiters: number;
  readonly sessions: number;
  readonly lastToken: number;
  readonly timestamp: number;
  readonly incarnation: number;
  /** Not "": the core refuses to grant, and why. */
  readonly halted: string;
}

export type Outcome =
  | Refusal
  | { readonly kind: "lease"; readonly lease: LeaseView }
  | {
      readonly kind: "renewed";
      readonly ttlMs: number;
      readonly remainingMs: number;
      /** Unary grants of the lease that are being taken away. */
      readonly revoking: readonly { readonly token: number; readonly message: string }[];
    }
  | { readonly kind: "revoked"; readonly revoked: boolean }
  | { readonly kind: "leases"; readonly leases: readonly LeaseView[]; readonly next: string }
  | {
      readonly kind: "grant";
      /** One for each item of the request, in its order. */
      readonly grants: readonly GrantedLock[];
      readonly all: boolean;
      readonly timestamp: number;
      readonly leaseId: string;
      readonly leaseTtlMs: number;
      readonly leaseRemainingMs: number;
      /** 0: no maximum hold. */
      readonly maxHoldRemainingMs: number;
    }
  | {
      readonly kind: "busy";
      /** The lock that is not free; of several the first. */
      readonly name: string;
      readonly all: boolean;
      readonly holders: readonly HolderView[];
      readonly holdersTotal: number;
      readonly waiters: number;
      readonly reserved: boolean;
      readonly delayRemainingMs: number;
      readonly timedOut: boolean;
    }
  | {
      readonly kind: "waiting";
      readonly all: boolean;
      readonly ticketId: string;
      /** In the first queue in which it is not next. */
      readonly position: number;
      readonly pollWithinMs: number;
    }
  | { readonly kind: "cancelled"; readonly what: "nothing" | "ticket" | "grant" }
  | { readonly kind: "released" }
  | { readonly kind: "transferred"; readonly token: number }
  | { readonly kind: "downgraded" }
  | { readonly kind: "metadataSet" }
  | {
      readonly kind: "forced";
      readonly ended: readonly number[];
      readonly revoking: readonly number[];
      readonly withinMs: number;
    }
  | { readonly kind: "validated"; readonly held: boolean }
  | { readonly kind: "lock"; readonly lock: LockView }
  /** `timestamp`: the state is that after all events up to it. */
  | {
      readonly kind: "locks";
      readonly locks: readonly LockView[];
      readonly next: string;
      readonly timestamp: number;
    }
  | {
      readonly kind: "top";
      readonly holds: readonly { readonly name: string; readonly holder: HolderView }[];
      readonly waits: readonly { readonly name: string; readonly waiter: WaiterView }[];
    }
  | { readonly kind: "ticks"; readonly first: number; readonly last: number }
  | { readonly kind: "status"; readonly counts: Counts }
  | {
      readonly kind: "welcome";
      readonly sessionId: string;
      readonly epoch: number;
      readonly resumed: boolean;
      readonly lost: readonly number[];
    };

/** What a route is told. */
export type Reply =
  /** The answer to a call, or to the request `seq` of a session. */
  | {
      readonly kind: "outcome";
      readonly route: Route;
      readonly seq: number;
      readonly outcome: Outcome;
      readonly clockAheadBy: number;
    }
  /** A frame of a session was processed: advances the echo. */
  | { readonly kind: "processed"; readonly route: Route; readonly frame: number; readonly clockAheadBy: number }
  | {
      readonly kind: "renewal";
      readonly route: Route;
      readonly frame: number;
      readonly leaseSeq: number;
      readonly remainingMs: number;
    }
  | { readonly kind: "leaseEnd"; readonly route: Route; readonly leaseSeq: number; readonly reason: LeaseEndReason }
  /** A grant of the session ends, or has ended, although its client did not release it. */
  | {
      readonly kind: "holdEnd";
      readonly route: Route;
      readonly token: number;
      readonly reason: "forced" | "max_hold";
      /** The next grant waits for the client's Release. */
      readonly confirm: boolean;
      readonly message: string;
    }
  /** Another stream has taken the session over: close this one. */
  | { readonly kind: "replaced"; readonly route: Route };

/**
 * What happened to a lock, for watchers, metrics and logs. Timestamps rise from event to event; only the events of one
 * AcquireAll share theirs.
 */
export type LockEvent =
  | {
      readonly kind: "queued";
      readonly name: string;
      readonly timestamp: number;
      readonly waiter: WaiterView;
    }
  | {
      readonly kind: "dequeued";
      readonly name: string;
      readonly timestamp: number;
      readonly waiter: WaiterView;
    }
  | {
      readonly kind: "granted";
      readonly name: string;
      readonly timestamp: number;
      readonly token: number;
      readonly mode: LockMode;
      readonly waitedMs: number;
      /** "": it did not wait. */
      readonly ticketId: string;
      /** Not 0: this hold was handed over by the hold with that token, which ended with it. */
      readonly transferredFrom: number;
      readonly hold: HoldFacts;
    }
  | {
      readonly kind: "holdEnded";
      readonly name: string;
      readonly timestamp: number;
      readonly token: number;
      readonly mode: LockMode;
      readonly end: HoldEnd;
      readonly heldMs: number;
      readonly message: string;
    }
  | {
      /** `revoking`: an administrator has begun to take it away. `updated`: its metadata was replaced. */
      readonly kind: "downgraded" | "updated" | "revoking";
      readonly name: string;
      readonly timestamp: number;
      readonly token: number;
      readonly message: string;
      readonly hold: HoldFacts;
    };

/** What an event tells of a hold, as it was then. */
export interface HoldFacts {
  readonly token: number;
  readonly timestamp: number;
  readonly owner: string;
  /** Base64. */
  readonly metadata: string;
  readonly mode: LockMode;
  readonly permits: number;
  readonly permitLimit: number;
  readonly slots: readonly number[];
  readonly leaseDisplayId: string;
  readonly contenderId: string;
}

/** What happened, for metrics, logs and watchers. */
export type CoreEvent =
  | LockEvent
  | {
      readonly kind: "acquireEnded";
      readonly outcome: "busy" | "timeout" | "cancelled" | "expired" | "deadlock";
      readonly mode: LockMode;
      readonly waitedMs: number;
    }
  | { readonly kind: "deadlock"; readonly knot: readonly KnotWait[] }
  /** The search for a deadlock was given up at its bound; the wait goes on. */
  | { readonly kind: "deadlockSearchCut" }
  | { readonly kind: "leaseCreated" }
  | { readonly kind: "leaseRenewed"; readonly result: "ok" | "unknown"; readonly slackRatio: number }
  | { readonly kind: "leaseEnded"; readonly reason: LeaseEndReason; readonly hung: boolean }
  /** A lease outlived a restart; it may live this much longer than promised. */
  | { readonly kind: "leaseExtended"; readonly extensionMs: number }
  | { readonly kind: "staleToken"; readonly rpc: "release" | "transfer" | "downgrade" | "setMetadata" }
  | { readonly kind: "clockJumpRefused" }
  | { readonly kind: "sessionAttached"; readonly result: "new" | "resumed" | "unknown" | "stale" }
  | { readonly kind: "halted"; readonly why: string };

export type HoldEnd =
  | "released"
  | "expired"
  | "revoked"
  | "cancelled"
  | "undelivered"
  | "transferred"
  | "max_hold"
  | "forced";

/** What follows from a batch of commands. */
export interface Effects {
  /** Key, value, key, value, …; a null value deletes. See `journal.ts`. */
  readonly mutations: (string | null)[];
  readonly replies: Reply[];
  readonly events: CoreEvent[];
}

// ---------------------------------------------------------------------------------------------------- limits

/** Every bound that the core enforces. */
export interface CoreLimits {
  readonly nameBytesMax: number;
  readonly metadataBytesMax: number;
  readonly ownerBytesMax: number;
  readonly ttlMsMin: number;
  readonly ttlMsMax: number;
  readonly ttlMsDefault: number;
  readonly waitMsMax: number;
  readonly leasesMax: number;
  readonly locksMax: number;
  readonly waitersPerLockMax: number;
  readonly holdersPerLockMax: number;
  /** Names of one AcquireAll. */
  readonly locksPerAcquireMax: number;
  readonly permitLimitMax: number;
  readonly contenderBytesMax: number;
  readonly heldTokensMax: number;
  readonly lockDelayMsMax: number;
  readonly maxHoldMsMax: number;
  /** Bytes of an administrator's reason. */
  readonly forceMessageBytesMax: number;
  /** Tickets and holds that one search for a deadlock looks at. */
  readonly deadlockSearchMax: number;
  /** Hops over which DescribeLock follows who blocks whom. */
  readonly blockerHopsMax: number;
  /** Holds and waits of one lease, and leases of one session. */
  readonly holdsPerLeaseMax: number;
  readonly sessionsMax: number;
  /** Unanswered or unacknowledged commands of one session. */
  readonly commandsPerSessionMax: number;
  /** Ids of unary requests that are remembered after their end, so that a late duplicate has no effect. */
  readonly requestsRememberedMax: number;
  readonly requestRememberedMs: number;
  /** How long a waiter whose connection broke keeps its place. */
  readonly resumeMs: number;
  /** Timestamps per Tick. */
  readonly tickCountMax: number;
  /** By how much observed timestamps may move the Lamport clock, per second of served time. */
  readonly clockJumpPerSecondMax: number;
  /** Leases, holds and tickets that one `expire` command works off. */
  readonly expirySliceMax: number;
}
