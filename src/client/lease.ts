/** A lease of the user's own: several locks may hang on it, and all of them end with it. */
import { Emitter } from "./emitter.js";
import { LeaseholdError, LOST_TEXT, type LostReason } from "./errors.js";
import type { LeaseEvents, LockState } from "./lock.js";
import { revoke } from "./session/lease-provider.js";
import type { LeaseListener, SessionLease } from "./session/session-lease.js";

/**
 * A promise of liveness that this client renews until it is revoked. Locks that were taken with it end with it.
 *
 * @example
 * const lease = await client.lease({ ttl: "5s" });
 * const a = await client.acquire("a", { lease });
 * const b = await client.acquire("b", { lease });
 * await lease.revoke(); // gives both back
 */
export interface Lease extends AsyncDisposable {
  /** Whoever knows it may use the lease: keep it out of logs. */
  readonly id: string;
  readonly ttlMs: number;
  readonly state: LockState;
  /** Aborted when the lease is lost; its reason is a `LeaseholdError` with the code LOST. Not aborted by `revoke`. */
  readonly signal: AbortSignal;
  /** Calls `f` at every such event until it is disposed of. */
  on<K extends keyof LeaseEvents>(event: K, f: (value: LeaseEvents[K]) => void): Disposable;
  /** Ends it with all its locks. Resolves true if this call ended it, false if it had ended before. Never rejects. */
  revoke(): Promise<boolean>;
  /**
   * Says that the work goes on. Only for a lease that was made with `progressEvery`, which is lost when nothing was said
   * for that long; throws INVALID for others, LOST when it is lost. The report leaves with the next frame, and is cheap:
   * say it for every step of the work.
   *
   * @example
   * const lease = await client.lease({ progressEvery: "20s" });
   * for await (const row of rows) {
   *   await insert(row);
   *   lease.progress();
   * }
   */
  progress(): void;
}

export class UserLease implements Lease, LeaseListener {
  /** For this client only. */
  readonly lease: SessionLease;
  readonly #events = new Emitter<LeaseEvents>();
  #abort: AbortController | null = null;
  #revoked: Promise<boolean> | null = null;

  constructor(lease: SessionLease) {
    this.lease = lease;
    lease.listener = this;
  }

  get id(): string {
    return this.lease.id;
  }

  get ttlMs(): number {
    return this.lease.grantedTtlMs;
  }

  get state(): LockState {
    return this.lease.state(this.#nowMs());
  }

  get signal(): AbortSignal {
    this.lease.check(this.#nowMs());
    this.#abort ??= new AbortController();
    const { end } = this.lease;
    if (end?.is === "lost" && !this.#abort.signal.aborted) this.#abort.abort(lostError(end.reason));
    return this.#abort.signal;
  }

  on<K extends keyof LeaseEvents>(event: K, f: (value: LeaseEvents[K]) => void): Disposable {
    return this.#events.on(event, f);
  }

  revoke(): Promise<boolean> {
    this.#revoked ??= this.#revoke();
    return this.#revoked;
  }

  #revoke(): Promise<boolean> {
    const { lease } = this;
    if (!lease.alive(this.#nowMs())) return Promise.resolve(false);
    const done = revoke(lease);
    lease.session.holdings.releaseAll(lease);
    return done;
  }

  progress(): void {
    this.lease.progress(this.#nowMs());
    const { end } = this.lease;
    if (end?.is === "lost") throw lostError(end.reason);
    if (end !== null) throw new LeaseholdError("LOST", "the lease has been revoked", { retryable: false });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.revoke();
  }

  #nowMs(): number {
    return this.lease.session.time.nowMs();
  }

  // -------------------------------------------------------------------------------- told by the session

  jeopardy(state: LockState): void {
    this.#events.emit("jeopardy", state);
  }

  recovered(state: LockState): void {
    this.#events.emit("recovered", state);
  }

  lost(reason: LostReason): void {
    this.#abort?.abort(lostError(reason));
    this.#events.emit("lost", reason);
  }
}

const lostError = (reason: LostReason): LeaseholdError =>
  new LeaseholdError("LOST", `the lease is lost: ${LOST_TEXT[reason]}`, { lost: reason });
