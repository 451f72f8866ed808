/** The client as its users see it. */
import type { Duration } from "./duration.js";
import type { LeaseholdError } from "./errors.js";
import type { Clock } from "./lamport.js";
import type { Lease } from "./lease.js";
import type { Lock } from "./lock.js";
import type { AcquireOptions, LeaseOptions, TryOptions } from "./options.js";
import type { LinkState } from "./session/link.js";
import type { Busy, LockDescription, LockSummary } from "./views.js";

/** How it stands with the connection. `idle`: none is needed; it is opened again when one is. */
export type ClientState = LinkState;

/** What happens to a client. */
export interface ClientEvents {
  state: ClientState;
  /**
   * Something that nobody waits for went wrong, such as a release that could not be confirmed. If nobody listens, it
   * becomes a process warning.
   */
  warning: LeaseholdError;
}

export type TryResult =
  | { readonly acquired: true; readonly lock: Lock }
  | { readonly acquired: false; readonly busy: Busy };
export type TryRun<T> = { readonly ran: true; readonly value: T } | { readonly ran: false; readonly busy: Busy };

/** A connection to Leasehold. Made by `connect`. */
export interface Client extends AsyncDisposable {
  /**
   * Takes the lock, runs `f`, gives the lock back, and resolves with what `f` resolved with.
   *
   * If the lock is lost on the way, `lock.signal` is aborted, and once `f` has settled this rejects with LOST, whether or
   * not `f` succeeded: its work was not protected to the end. An error of `f` is then the `cause`. Rejects BUSY when the
   * wait is over, DEADLOCK at once when called inside a `withLock` for the same name, UNREACHABLE, and whatever `f`
   * rejects with.
   *
   * @example
   * await client.withLock("orders/42", { wait: "5s" }, async (lock) => {
   *   await saveOrder(order, { fencingToken: lock.token, signal: lock.signal });
   * });
   */
  withLock<T>(name: string, f: (lock: Lock) => Promise<T> | T): Promise<T>;
  withLock<T>(name: string, options: AcquireOptions, f: (lock: Lock) => Promise<T> | T): Promise<T>;
  /**
   * Like `withLock`, but does not wait: when the lock is taken, `f` does not run, and the result says who holds it.
   *
   * @example
   * const nightly = await client.tryWithLock("cron/nightly", (lock) => sendReport(lock.signal));
   * if (!nightly.ran) console.log("skipped, held by", nightly.busy.holders[0]?.owner);
   */
  tryWithLock<T>(name: string, f: (lock: Lock) => Promise<T> | T): Promise<TryRun<T>>;
  tryWithLock<T>(name: string, options: TryOptions, f: (lock: Lock) => Promise<T> | T): Promise<TryRun<T>>;
  /**
   * Takes the lock; the caller releases it. Rejects BUSY (naming the holder) when the wait is over, UNREACHABLE when no
   * server answers within it, LOST when its lease ended before there was a grant, LIMIT, INVALID, CLOSED, and with
   * `signal.reason` when the signal is aborted.
   */
  acquire(name: string, options?: AcquireOptions): Promise<Lock>;
  /** Takes the lock if it is free. That it is not is no error. */
  tryAcquire(name: string, options?: TryOptions): Promise<TryResult>;
  /** Makes a lease to hang several locks on. Rejects LIMIT, INVALID, UNREACHABLE. */
  lease(options?: LeaseOptions): Promise<Lease>;
  /** Tells who holds a lock and who waits for it. */
  describe(name: string): Promise<LockDescription>;
  /** The locks that are held or waited for and whose name begins with the prefix, by name, fetched in pages. */
  locks(options?: {
    readonly prefix?: string | undefined;
    readonly pageSize?: number | undefined;
  }): AsyncIterable<LockSummary>;
  /**
   * Whether a token holds a lock at this moment. The answer may be outdated when it arrives: no substitute for a storage
   * that refuses lower tokens.
   */
  validate(name: string, token: number): Promise<boolean>;
  readonly clock: Clock;
  /** Calls `f` at every such event until it is disposed of. */
  on<K extends keyof ClientEvents>(event: K, f: (value: ClientEvents[K]) => void): Disposable;
  /**
   * Ends all leases and with them all locks, rejects with CLOSED what waits, and disconnects. Resolves when the server has
   * confirmed, or after the timeout (default 5 s): then the leases run out by themselves. Never rejects but for a wrong
   * argument.
   */
  close(options?: { readonly timeout?: Duration | undefined }): Promise<void>;
}
