/** The client as its users see it. */
import type { Duration } from "./duration.js";
import type { CampaignOptions, LeadOptions } from "./election/campaign.js";
import type { Leadership } from "./election/leadership.js";
import type { Leader, ObserveOptions } from "./election/observe.js";
import type { LeaseholdError } from "./errors.js";
import type { Clock } from "./lamport.js";
import type { Lease } from "./lease.js";
import type { Lock } from "./lock.js";
import type { LockSet } from "./lock-set.js";
import type { AcquireAllOptions, AcquireOptions, LeaseOptions, LockSpec, TryOptions } from "./options.js";
import type { LinkState } from "./session/link.js";
import type { Busy, LockDescription, LockSummary } from "./views.js";
import type { WatchEvent } from "./watch/events.js";
import type { WatchOptions, WatchTarget } from "./watch/watches.js";

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
   * wait is over, DEADLOCK (at once when called inside a `withLock` that holds the same lock alone, else when the server
   * finds that the wait would never end; `error.knot` tells who waits for whom), UNREACHABLE, and whatever `f` rejects with.
   *
   * Locks that the callbacks around hold are named to the server as kept while this waits.
   *
   * @example
   * await client.withLock("orders/42", { wait: "5s" }, async (lock) => {
   *   await saveOrder(order, { fencingToken: lock.token, signal: lock.signal });
   * });
   * // readers together
   * await client.withLock("config", { mode: "shared" }, (lock) => readConfig(lock.signal));
   * // at most five at a time
   * await client.withLock("api/stripe", { permits: { of: 5 } }, (lock) => fetch(url, { signal: lock.signal }));
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
   * Takes several locks together, runs `f`, and gives them back. In all else like `withLock`: when any of them is lost, the
   * set's `signal` is aborted, and this rejects LOST once `f` has settled.
   *
   * @example
   * await client.withLocks(["accounts/1", { name: "rates", mode: "shared" }], async (set) => {
   *   await post(set.get("accounts/1").token, set.signal);
   * });
   */
  withLocks<T>(names: readonly LockSpec[], f: (set: LockSet) => Promise<T> | T): Promise<T>;
  withLocks<T>(names: readonly LockSpec[], options: AcquireAllOptions, f: (set: LockSet) => Promise<T> | T): Promise<T>;
  /**
   * Takes the lock; the caller releases it. Rejects BUSY (naming the holder) when the wait is over, DEADLOCK when the wait
   * would never end as far as `holding` and the callbacks around tell, UNREACHABLE when no server answers within it, LOST
   * when its lease ended before there was a grant, LIMIT, INVALID, CLOSED, and with `signal.reason` when the signal is
   * aborted.
   *
   * @example
   * const lock = await client.acquire("reports/7", { maxHold: "10m", lockDelay: "5s" });
   * const next = await client.acquire("reports/8", { holding: [lock] });
   */
  acquire(name: string, options?: AcquireOptions): Promise<Lock>;
  /**
   * Takes 1 to 64 locks together, or none of them; the caller releases them. They have one place in all of their queues,
   * nobody ever sees a part of it, and two of these cannot block each other, whatever the order of the names. With `ttl`
   * they share a lease of their own. Rejects as `acquire` does; BUSY names the first that is not free.
   *
   * @example
   * const set = await client.acquireAll(["accounts/1", "accounts/2"], { wait: "5s" });
   * const [first, second] = set.locks;
   */
  acquireAll(names: readonly LockSpec[], options?: AcquireAllOptions): Promise<LockSet>;
  /** Takes the lock if it is free. That it is not is no error. */
  tryAcquire(name: string, options?: TryOptions): Promise<TryResult>;
  /**
   * Stands for election and resolves when it is won. The caller resigns.
   *
   * An election is an exclusive lock of that name, and a leadership is lost in the ways in which a lock is. Candidates
   * are elected in the order in which they came. Unless `wait` says otherwise the candidacy lasts for ever. Rejects as
   * `acquire` does.
   *
   * @example
   * const me = await client.campaign("billing", { value: "10.0.0.7:8080" });
   * await me.proclaim("10.0.0.7:8081");
   * await me.resign();
   */
  campaign(name: string, options?: CampaignOptions): Promise<Leadership>;
  /**
   * Stands for election, runs `f` while leading, and stands again after a loss.
   *
   * When the leadership is lost, its `signal` is aborted, and the next campaign begins once `f` has settled, whatever it
   * settled with. When `f` settles while leading, that is the end: the leadership is resigned, and this resolves, or
   * rejects with the error of `f`. Aborting `options.signal` ends the candidacy; while leading it aborts the leadership's
   * `signal`, and this resolves once `f` has settled and the leadership is resigned. (An error of `f` other than the
   * abort itself still rejects.) A campaign that fails with a `retryable` error is repeated; others reject: DENIED,
   * INVALID, DEADLOCK, CLOSED, and LOST when `options.lease` has ended.
   *
   * @example
   * await client.lead("billing", { value: podName, signal: stop.signal }, async (me) => {
   *   for await (const job of jobs(me.signal)) await run(job, me.token);
   * });
   */
  lead(name: string, f: (leadership: Leadership) => Promise<unknown> | unknown): Promise<void>;
  lead(name: string, options: LeadOptions, f: (leadership: Leadership) => Promise<unknown> | unknown): Promise<void>;
  /**
   * Tells who leads: first who leads now, then every change. Null: nobody.
   *
   * Leaders come in the order of their tokens, never an older one after a newer one; a new value of the same leader comes
   * with the same token. None is left out, unless this loop is slower than the server's memory is long, or the server
   * was restarted: then those in between are. Begins, ends, reconnects and rejects like `watch`, and rejects INVALID when
   * the server's store has been replaced by an older one, since what follows would not be in order.
   *
   * @example
   * for await (const leader of client.observe("billing", { signal })) {
   *   if (leader) proxy.use(leader.valueText);
   *   else proxy.hold();
   * }
   */
  observe(name: string, options?: ObserveOptions): AsyncIterable<Leader | null>;
  /**
   * Tells what happens to a lock, or to all locks whose name begins with a prefix, in the order in which it became
   * durable: first "reset", a "state" for each lock that is held or waited for, and "synced"; then the events. With
   * `after` it continues where an earlier watch left off.
   *
   * It begins with the first `next()`, and while it goes on the process does. Leaving the loop ends it. When the
   * connection is lost, it is opened again, silently, and what was missed is made up for; when that is not possible,
   * because there was too much or because the server was restarted, "reset" comes, and the state. So it is with a loop
   * that is too slow; nobody else is held up by it.
   *
   * Throws INVALID for wrong arguments. The iteration rejects UNREACHABLE when no server answers within the client's
   * `timeout` at the beginning, later never; LIMIT when the server has too many watchers then; DENIED; INVALID; CLOSED
   * when the client is closed; and with `signal.reason` when the signal is aborted.
   *
   * @example
   * for await (const event of client.watch({ prefix: "orders/" }, { after: await load(), signal })) {
   *   if (event.type === "expired") alert(`${event.name}: token ${event.token} has expired`);
   *   await save(event.position);
   * }
   */
  watch(target: WatchTarget, options?: WatchOptions): AsyncIterable<WatchEvent>;
  /**
   * Makes a lease to hang several locks on, or one that ends when its holder hangs. Rejects LIMIT, INVALID, UNREACHABLE.
   *
   * @example
   * const lease = await client.lease({ ttl: "10s", progressEvery: "1m" });
   */
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
