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
  | "CANCELLED_REQUEST"
  | "CLOCK_JUMP"
  | "STORE_DOWN";

export interface Refusal {
  readonly kind: "refused";
  readonly reason: Reason;
  readonly message: string;
}

/** Why a lease ended. */
export type LeaseEndReason = "expired" | "revoked";

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
}
export interface RenewLease {
  readonly kind: "renewLease";
  readonly leaseId: string;
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
export interface Acquire {
  readonly kind: "acquire";
  readonly name: string;
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
  | Validate
  | DescribeLock
  | ListLocks
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
}
export interface HolderView {
  readonly token: number;
  readonly timestamp: number;
  readonly owner: string;
  readonly metadata: string;
  readonly heldMs: number;
  readonly leaseRemainingMs: number;
  readonly leaseDisplayId: string;
}
export interface WaiterView {
  readonly ticketId: string;
  readonly position: number;
  readonly owner: string;
  readonly metadata: string;
  readonly waitedMs: number;
  readonly attached: boolean;
}
export interface LockView {
  readonly name: string;
  readonly holders: readonly HolderView[];
  readonly waiters: readonly WaiterView[];
  readonly waitersTotal: number;
  /** Free, but kept for the first in the queue, who is detached. */
  readonly reserved: boolean;
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
  | { readonly kind: "renewed"; readonly ttlMs: number; readonly remainingMs: number }
  | { readonly kind: "revoked"; readonly revoked: boolean }
  | { readonly kind: "leases"; readonly leases: readonly LeaseView[]; readonly next: string }
  | {
      readonly kind: "grant";
      readonly token: number;
      readonly timestamp: number;
      readonly leaseId: string;
      readonly leaseTtlMs: number;
      readonly leaseRemainingMs: number;
    }
  | {
      readonly kind: "busy";
      readonly holders: readonly HolderView[];
      readonly waiters: number;
      readonly reserved: boolean;
      readonly timedOut: boolean;
    }
  | { readonly kind: "waiting"; readonly ticketId: string; readonly position: number; readonly pollWithinMs: number }
  | { readonly kind: "cancelled"; readonly what: "nothing" | "ticket" | "grant" }
  | { readonly kind: "released" }
  | { readonly kind: "validated"; readonly held: boolean }
  | { readonly kind: "lock"; readonly lock: LockView }
  | { readonly kind: "locks"; readonly locks: readonly LockView[]; readonly next: string }
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
  /** Another stream has taken the session over: close this one. */
  | { readonly kind: "replaced"; readonly route: Route };

/** What happened, for metrics and logs. */
export type CoreEvent =
  | { readonly kind: "granted"; readonly name: string; readonly token: number; readonly waitedMs: number }
  | {
      readonly kind: "acquireEnded";
      readonly outcome: "busy" | "timeout" | "cancelled" | "expired";
      readonly waitedMs: number;
    }
  | {
      readonly kind: "holdEnded";
      readonly name: string;
      readonly token: number;
      readonly end: HoldEnd;
      readonly heldMs: number;
    }
  | { readonly kind: "leaseCreated" }
  | { readonly kind: "leaseRenewed"; readonly result: "ok" | "unknown"; readonly slackRatio: number }
  | { readonly kind: "leaseEnded"; readonly reason: LeaseEndReason }
  | { readonly kind: "staleToken"; readonly rpc: "release" }
  | { readonly kind: "clockJumpRefused" }
  | { readonly kind: "sessionAttached"; readonly result: "new" | "resumed" | "unknown" | "stale" }
  | { readonly kind: "halted"; readonly why: string };

export type HoldEnd = "released" | "expired" | "revoked" | "cancelled" | "undelivered";

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
