/** What the core answers. */
import type { LeaseEndReason, LockMode, Refusal, Route } from "./types.js";

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
  /** Of these, those that have ended, and whose holds and tickets are still being collected. */
  readonly leasesEnding: number;
  readonly locks: number;
  readonly holds: number;
  /** The holds, by their mode. */
  readonly heldExclusive: number;
  readonly heldShared: number;
  readonly heldSemaphore: number;
  /** For how long the oldest hold has been held, at the last step; 0: there is none. */
  readonly oldestHoldMs: number;
  readonly waiters: number;
  /** The same for the oldest ticket. */
  readonly oldestWaitMs: number;
  readonly sessions: number;
  /** Ids of unary requests that are over. */
  readonly requestsRemembered: number;
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
      /** Whose lease it is, for people. */
      readonly displayId: string;
      readonly owner: string;
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
