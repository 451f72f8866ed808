/**
 * A lock that this process holds, or held.
 *
 * Everything is answered from the belief in its lease at the moment of the question, so that a process that wakes from a
 * stall learns of its loss at once, before any timer or message has told it.
 */
import { checkKeys } from "./arguments.js";
import { type Duration, durationMs, formatMs } from "./duration.js";
import { Emitter } from "./emitter.js";
import { LeaseholdError, type LostReason } from "./errors.js";
import { Command, type WireResult } from "./session/command.js";
import { failureOf, unexpected } from "./session/failure.js";
import { type LeaseListener, type LeaseState, RevokeLease, type SessionLease } from "./session/session-lease.js";

/**
 * How it stands with a lock or lease, computed when it is read:
 *
 * - `held`: for `remainingMs` milliseconds at least, and on if renewals go well.
 * - `jeopardy`: still held, but no renewal has been confirmed for two thirds of the TTL. Think of an orderly end.
 * - `lost`: for good; it never comes back.
 * - `released`: given back by this process.
 */
export type LockState = LeaseState;

/** What happens to a lock or lease. */
export interface LockEvents {
  /** No renewal was confirmed for two thirds of the TTL. */
  jeopardy: LockState;
  /** A renewal was confirmed after all. */
  recovered: LockState;
  /** It is not held any more, and not because this process gave it back. */
  lost: LostReason;
}

/** What the server granted. */
export interface LockGrant {
  /** The fencing token: greater than of every grant before. */
  readonly token: number;
  /** The Lamport timestamp of the grant. */
  readonly timestamp: number;
  /** The lease through which the lock is held. Whoever knows it may use the lease: keep it out of logs. */
  readonly leaseId: string;
}

/** A lock that was granted to this process. */
export interface Lock extends AsyncDisposable {
  readonly name: string;
  /** What was granted, also after a loss; never throws. For logs and `catch` blocks; for writes take `token`. */
  readonly grant: LockGrant;
  /**
   * The fencing token, to be sent along with every write that the lock protects. Throws LOST when the lock is not held
   * any more.
   */
  readonly token: number;
  /** Aborted when the lock is lost; its reason is a `LeaseholdError` with the code LOST. Not aborted by `release`. */
  readonly signal: AbortSignal;
  readonly state: LockState;
  /** Throws LOST unless the lock is held, and for `forMs` milliseconds more if that is given. */
  assertHeld(options?: { readonly forMs?: Duration | undefined }): void;
  /** Calls `f` at every such event until it is disposed of. */
  on<K extends keyof LockEvents>(event: K, f: (value: LockEvents[K]) => void): Disposable;
  /**
   * Gives the lock back. From the call on it counts as gone. Resolves true if this call released it, false if it was lost
   * before. While the server cannot be reached it is tried until the lease has run out; then it resolves false and the
   * client emits a `warning`. Never rejects. Further calls return the same promise.
   */
  release(): Promise<boolean>;
}

type End =
  | { readonly is: "lost"; readonly reason: LostReason }
  | { readonly is: "released" }
  | { readonly is: "closed" };

export class HeldLock implements Lock, LeaseListener {
  readonly name: string;
  readonly lease: SessionLease;
  readonly #token: number;
  readonly #timestamp: number;
  #end: End | null = null;
  #abort: AbortController | null = null;
  #events: Emitter<LockEvents> | null = null;
  #released: Promise<boolean> | null = null;
  /** The lease was made for this lock and ends with it. */
  readonly #ownsLease: boolean;

  constructor(name: string, lease: SessionLease, ownsLease: boolean, token: number, timestamp: number) {
    this.name = name;
    this.lease = lease;
    this.#ownsLease = ownsLease;
    this.#token = token;
    this.#timestamp = timestamp;
  }

  get grant(): LockGrant {
    return { token: this.#token, timestamp: this.#timestamp, leaseId: this.lease.id };
  }

  get token(): number {
    this.#check();
    if (this.#end !== null) throw this.error();
    return this.#token;
  }

  get state(): LockState {
    this.#check();
    if (this.#end === null) return this.lease.state(this.#nowMs());
    return this.#end.is === "lost" ? this.#end : { is: "released" };
  }

  get signal(): AbortSignal {
    this.#check();
    if (this.#abort === null) {
      this.#abort = new AbortController();
      if (this.#end !== null && this.#end.is !== "released") this.#abort.abort(this.error());
    }
    return this.#abort.signal;
  }

  assertHeld(options: { readonly forMs?: Duration | undefined } = {}): void {
    checkKeys(options, ["forMs"], "the options of assertHeld");
    this.#check();
    if (this.#end !== null) throw this.error();
    if (options.forMs === undefined) return;
    const neededMs = durationMs(options.forMs, "forMs");
    const remainingMs = this.lease.belief?.remainingMs(this.#nowMs()) ?? 0;
    if (remainingMs >= neededMs) return;
    const message = `the lock ${JSON.stringify(this.name)} is held for ${formatMs(remainingMs)} more, not for ${formatMs(neededMs)}`;
    throw new LeaseholdError("LOST", message);
  }

  on<K extends keyof LockEvents>(event: K, f: (value: LockEvents[K]) => void): Disposable {
    this.#events ??= new Emitter();
    return this.#events.on(event, f);
  }

  release(): Promise<boolean> {
    this.#released ??= this.#release();
    return this.#released;
  }

  #release(): Promise<boolean> {
    this.#check();
    if (this.#end !== null) return Promise.resolve(false);
    this.#end = { is: "released" };
    return new Promise((resolve) => {
      const { session } = this.lease;
      session.submit(new Release(this, this.#token, resolve));
      if (this.#ownsLease) this.#endLease();
    });
  }

  /** Ends the lease that was made for this lock. */
  #endLease(): void {
    const { session, seq } = this.lease;
    this.lease.release();
    session.submit(new RevokeLease(session, seq, Number.POSITIVE_INFINITY, null));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  #nowMs(): number {
    return this.lease.session.time.nowMs();
  }

  /** Notices that the belief in the lease is over; that ends this lock, too. */
  #check(): void {
    if (this.#end === null) this.lease.check(this.#nowMs());
  }

  /** Why it is not held. */
  error(): LeaseholdError {
    const name = JSON.stringify(this.name);
    if (this.#end?.is === "lost") {
      const { reason } = this.#end;
      return new LeaseholdError("LOST", `the lock ${name} is lost: ${LOST_TEXT[reason]}`, { lost: reason });
    }
    if (this.#end?.is === "closed")
      return new LeaseholdError("CLOSED", `the lock ${name} was released because its client was closed`);
    return new LeaseholdError("LOST", `the lock ${name} has been released`, { retryable: false });
  }

  /** Lost or taken away, as opposed to released by its holder. */
  get failed(): boolean {
    this.#check();
    return this.#end !== null && this.#end.is !== "released";
  }

  // -------------------------------------------------------------------------------- told by the session

  lose(reason: LostReason): void {
    if (this.#end !== null) return;
    this.#end = { is: "lost", reason };
    this.#abort?.abort(this.error());
    this.#events?.emit("lost", reason);
  }

  lost(reason: LostReason): void {
    this.lose(reason);
  }

  jeopardy(state: LockState): void {
    if (this.#end === null) this.#events?.emit("jeopardy", state);
  }

  recovered(state: LockState): void {
    if (this.#end === null) this.#events?.emit("recovered", state);
  }

  /** Its lease was ended on purpose. */
  leaseReleased(): void {
    this.#end ??= { is: "released" };
  }

  /** Its client is being closed, which ends its lease. */
  closed(): void {
    if (this.#end !== null) return;
    this.#end = { is: "closed" };
    this.#abort?.abort(this.error());
  }
}

export const LOST_TEXT: Readonly<Record<LostReason, string>> = {
  expired: "its lease was not renewed in time",
  revoked: "its lease was revoked",
  session_replaced: "another process has taken over this client's session",
  unknown_to_server: "the server does not know it any more",
};

/** How long to wait before a refused release is tried again, if the server does not say. */
const RETRY_MS = 200;

/** Releases a lock; gives up when its lease has run out, which frees the lock as well. */
class Release extends Command {
  readonly wire;
  override readonly urgent = true;
  override readonly isRelease = true;
  override readonly lease: SessionLease;
  readonly #lock: HeldLock;
  readonly #resolve: (released: boolean) => void;

  constructor(lock: HeldLock, token: number, resolve: (released: boolean) => void) {
    super();
    this.wire = { seq: 0, release: { name: lock.name, token } };
    this.lease = lock.lease;
    this.#lock = lock;
    this.#resolve = resolve;
    this.deadlineMs = lock.lease.belief?.deadlineMs ?? 0;
  }

  override get bytesMax(): number {
    return 64 + 3 * this.#lock.name.length;
  }

  #finish(released: boolean): void {
    const { session } = this.lease;
    session.holdings.removeLock(this.#lock, this.wire.release.token);
    if (session.settle(this)) this.#resolve(released);
  }

  override onResult(result: WireResult, nowMs: number): void {
    if (result.release) {
      this.#finish(true);
      return;
    }
    const error = result.failure ? failureOf(result.failure) : unexpected("Release");
    // That there is nothing to release is an answer. A refusal that is about the moment is tried again.
    if (error.code === "STALE_TOKEN" || error.code === "LOST") this.#finish(false);
    else if (error.retryable && this.#moveDeadline(nowMs)) this.#again(error);
    else this.#giveUp(error.message);
  }

  #again(error: LeaseholdError): void {
    const { session } = this.lease;
    session.time.setTimer(error.retryAfterMs || RETRY_MS, () => {
      if (this.done) return;
      this.wire.seq = 0;
      session.resubmit(this);
    });
  }

  /** The lease may have been renewed since. Returns whether there is time left. */
  #moveDeadline(nowMs: number): boolean {
    if (this.lease.end === null && this.lease.belief) this.deadlineMs = this.lease.belief.deadlineMs;
    return this.deadlineMs > nowMs;
  }

  override onDeadline(nowMs: number): void {
    if (!this.#moveDeadline(nowMs)) this.#giveUp("no answer came before its lease ran out");
  }

  #giveUp(why: string): void {
    const { session } = this.lease;
    if (this.done) return;
    this.#finish(false);
    session.abandoned(this);
    session.reports.warn(
      new LeaseholdError(
        "UNREACHABLE",
        `could not confirm the release of the lock ${JSON.stringify(this.#lock.name)}: ${why}`,
      ),
    );
  }

  override onLeaseLost(reason: LostReason): void {
    if (reason === "expired") this.#giveUp(LOST_TEXT.expired);
    else this.#finish(false);
  }

  override onSessionLost(): void {
    this.#finish(false);
  }

  override onFailure(error: LeaseholdError): void {
    this.#giveUp(error.message);
  }
}
