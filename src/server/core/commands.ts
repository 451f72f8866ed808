/** What goes into the core: what clients ask for, and what happens to their calls and streams. */
import type { LockMode, Principal, Refusal, Route } from "./types.js";

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
  /** Its client has stopped believing in it: it ends as if it had expired. */
  readonly expired: boolean;
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
  /** Absent: anybody. */
  readonly principal?: Principal;
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
  /** Leases in which the client has stopped believing, by the sequence numbers of the commands that created them. */
  readonly abandoned: readonly number[];
  readonly clusterId: string;
  readonly highestToken: number;
  readonly route: Route;
  /** Absent: anybody. */
  readonly principal?: Principal;
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
  /** That of the attach, with the quota that it has now. Absent: anybody. */
  readonly principal?: Principal;
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
