import type { WaiterView } from "./outcomes.js";
import type { KnotWait, LeaseEndReason, LockMode } from "./types.js";

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
