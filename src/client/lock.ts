/** A lock as its holder sees it. What stands behind it is in `held-lock.ts`. */
import type { Duration } from "./duration.js";
import type { LostReason } from "./errors.js";
import type { LeaseState } from "./session/session-lease.js";
import type { LockMode } from "./views.js";

/**
 * How it stands with a lock or lease, computed when it is read:
 *
 * - `held`: for `remainingMs` milliseconds at least, and on if renewals go well and no maximum hold ends it.
 * - `jeopardy`: still held, but no renewal has been confirmed for two thirds of the TTL. Think of an orderly end.
 * - `lost`: for good; it never comes back.
 * - `released`: given back or handed on by this process. A lock whose `transfer` is on its way is in this state, too, and
 *   is held again if the server refuses.
 */
export type LockState = LeaseState;

/** What happens to a lease. */
export interface LeaseEvents {
  /** No renewal was confirmed for two thirds of the TTL. */
  jeopardy: LockState;
  /** A renewal was confirmed after all. */
  recovered: LockState;
  /** It is not held any more, and not because this process gave it back. */
  lost: LostReason;
}

/** What happens to a lock. */
export interface LockEvents extends LeaseEvents {
  /** Its maximum hold comes to its end: a fifth of it is left, or 30 s. Said once. */
  yield: LockState;
}

/** What the server granted. */
export interface LockGrant {
  /** The fencing token: greater than of every grant before. */
  readonly token: number;
  /** The Lamport timestamp of the grant. */
  readonly timestamp: number;
  /** The lease through which the lock is held. Whoever knows it may use the lease: keep it out of logs. */
  readonly leaseId: string;
  /**
   * Semaphores: which permits, numbered from 0; else empty. No two holders have the same one, so that `name#slot` names
   * something that only one of them uses.
   */
  readonly slots: readonly number[];
}

/** A lock that was granted to this process. */
export interface Lock extends AsyncDisposable {
  readonly name: string;
  /** How it is held. From the call of `downgrade` on it counts as shared. */
  readonly mode: LockMode;
  /** What was granted, also after a loss; never throws. For logs and `catch` blocks; for writes take `token`. */
  readonly grant: LockGrant;
  /**
   * The fencing token, to be sent along with every write that the lock protects. Throws LOST when the lock is not held
   * any more.
   */
  readonly token: number;
  /**
   * Aborted when the lock is lost; its reason is a `LeaseholdError` with the code LOST. Not aborted by `release` and
   * `transfer`.
   */
  readonly signal: AbortSignal;
  readonly state: LockState;
  /** Throws LOST unless the lock is held, and for `forMs` milliseconds more if that is given. */
  assertHeld(options?: { readonly forMs?: Duration | undefined }): void;
  /**
   * Calls `f` at every such event until it is disposed of.
   *
   * @example
   * lock.on("yield", () => batch.stopAfterThisItem());
   */
  on<K extends keyof LockEvents>(event: K, f: (value: LockEvents[K]) => void): Disposable;
  /**
   * Gives the lock back. From the call on it counts as gone. Resolves true if this call released it, false if it was lost
   * or handed on before. While the server cannot be reached it is tried until the lease has run out; then it resolves
   * false and the client emits a `warning`. Never rejects. Further calls return the same promise.
   *
   * Call it after a loss, too: when an administrator has taken the lock away, the next holder waits for that, or until the
   * last promise made to this one has run out. (`withLock` does it when its callback has settled.)
   */
  release(): Promise<boolean>;
  /**
   * Hands the lock on to one of those who wait for it, ahead of all others, with a new token and without a gap. Tickets
   * are listed by `client.describe`.
   *
   * From the call on it counts as gone; only when the server refuses is it held again: NOT_WAITING (no such ticket waits
   * for this lock, or its connection is broken), INVALID (a ticket that waits for several locks together, or that other
   * holders do not let in), LIMIT, STORE_DOWN. Rejects LOST when the lock is lost, and OUTCOME_UNKNOWN when nobody can
   * tell any more whether it was handed on: then it is gone in either case.
   *
   * @example
   * const { waiters } = await client.describe(lock.name);
   * const heir = waiters.find((waiter) => waiter.attached && waiter.owner.startsWith("eu-west/"));
   * if (heir) await lock.transfer({ ticketId: heir.ticketId });
   */
  transfer(to: { readonly ticketId: string }): Promise<void>;
  /**
   * Makes an exclusive lock a shared one, with the same token, and lets others in who want to share it. From the call on
   * it counts as shared; only when the server refuses is it exclusive again. Does nothing to a shared lock. Rejects LOST,
   * INVALID (a semaphore), LIMIT, STORE_DOWN, OUTCOME_UNKNOWN (then it stays shared).
   */
  downgrade(): Promise<void>;
  /**
   * Replaces the metadata that others see of this hold: text or bytes, at most 4 KiB. Rejects LOST, INVALID (too long),
   * LIMIT, STORE_DOWN, OUTCOME_UNKNOWN.
   */
  setMetadata(metadata: string | Uint8Array): Promise<void>;
  /**
   * Says that the work goes on, where the lock hangs on a lease that wants to hear that: `client.lease({ progressEvery })`.
   * The report leaves with the next frame. Throws INVALID with any other lease, LOST when the lock is not held any more.
   *
   * @example
   * const lease = await client.lease({ progressEvery: "20s" });
   * await client.withLock("import", { lease }, async (lock) => {
   *   for (const row of rows) {
   *     await insert(row, lock.token);
   *     lock.progress();
   *   }
   * });
   */
  progress(): void;
}
