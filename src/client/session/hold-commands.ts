/**
 * What a holder does to its hold: give it back, hand it on, change it.
 *
 * Each is sent again when the session resumes, until it is answered or the lease has run out. What the server answers is
 * definite, but for a failure of its own; a broken stream says nothing.
 */
import { LeaseholdError, LOST_TEXT, type LostReason } from "../errors.js";
import type { HeldLock } from "../held-lock.js";
import { Command, type WireCommand, type WireResult } from "./command.js";
import { failureOf, unexpected } from "./failure.js";
import type { SessionLease } from "./session-lease.js";

type NumberedCommand = WireCommand & { seq: number };

/** How long to wait before a refused release is tried again, if the server does not say. */
const RETRY_MS = 200;

abstract class HoldCommand extends Command {
  override readonly urgent = true;
  override readonly insists = true;
  override readonly lease: SessionLease;
  readonly wire: NumberedCommand;
  protected readonly lock: HeldLock;

  constructor(lock: HeldLock, wire: NumberedCommand) {
    super();
    this.lock = lock;
    this.lease = lock.lease;
    this.wire = wire;
    this.deadlineMs = lock.lease.belief?.deadlineMs ?? 0;
  }

  override get bytesMax(): number {
    return 64 + 3 * this.lock.name.length;
  }

  /** Whether the result is that it was done. */
  protected abstract isDone(result: WireResult): boolean;
  protected abstract onDone(): void;
  /** The token does not hold the lock. */
  protected abstract onStale(): void;
  /** It was not done. */
  protected abstract onRefused(error: LeaseholdError, nowMs: number): void;
  /** Nobody will tell any more whether it was done. */
  protected abstract onUnknown(why: string, cause?: LeaseholdError): void;

  override onResult(result: WireResult, nowMs: number): void {
    if (this.isDone(result)) {
      this.onDone();
      return;
    }
    const error = result.failure ? failureOf(result.failure) : unexpected("what was asked of a hold");
    if (error.code === "STALE_TOKEN" || error.code === "LOST") this.onStale();
    else if (error.code === "INTERNAL" || error.code === "OUTCOME_UNKNOWN") this.onUnknown(error.message, error);
    else this.onRefused(error, nowMs);
  }

  /** The lease may have been renewed since. Returns whether there is time left. */
  protected moveDeadline(nowMs: number): boolean {
    if (this.lease.end === null && this.lease.belief) this.deadlineMs = this.lease.belief.deadlineMs;
    return this.deadlineMs > nowMs;
  }

  override onDeadline(nowMs: number): void {
    if (this.moveDeadline(nowMs)) return;
    this.onUnknown("no answer came before its lease ran out");
    this.lease.session.abandoned(this);
  }

  override onFailure(error: LeaseholdError): void {
    this.onUnknown(error.message, error);
  }
}

/** Gives a lock back. Refusals for the moment are not taken for an answer. */
export class Release extends HoldCommand {
  readonly #token: number;
  readonly #resolve: (released: boolean) => void;

  constructor(lock: HeldLock, token: number, resolve: (released: boolean) => void) {
    super(lock, { seq: 0, release: { name: lock.name, token } });
    this.#token = token;
    this.#resolve = resolve;
  }

  protected override isDone(result: WireResult): boolean {
    return result.release != null;
  }

  #finish(released: boolean): void {
    const { session } = this.lease;
    session.holdings.removeLock(this.lock, this.#token);
    if (session.settle(this)) this.#resolve(released);
  }

  protected override onDone(): void {
    this.#finish(true);
  }

  protected override onStale(): void {
    this.#finish(false);
  }

  protected override onRefused(error: LeaseholdError, nowMs: number): void {
    if (!error.retryable || !this.moveDeadline(nowMs)) {
      this.onUnknown(error.message);
      return;
    }
    const { session } = this.lease;
    session.time.setTimer(error.retryAfterMs || RETRY_MS, () => {
      if (this.done) return;
      this.wire.seq = 0;
      session.resubmit(this);
    });
  }

  protected override onUnknown(why: string): void {
    if (this.done) return;
    this.#finish(false);
    const message = `could not confirm the release of the lock ${JSON.stringify(this.lock.name)}: ${why}`;
    this.lease.session.reports.warn(new LeaseholdError("UNREACHABLE", message));
  }

  override onLeaseLost(reason: LostReason): void {
    if (reason !== "expired") this.#finish(false);
    else {
      this.onUnknown(LOST_TEXT.expired);
      this.lease.session.abandoned(this);
    }
  }

  override onSessionLost(): void {
    this.#finish(false);
  }
}

/** What somebody waits for, to go on with the lock or without it. */
abstract class HoldChange extends HoldCommand {
  readonly #resolve: () => void;
  readonly #reject: (error: unknown) => void;
  /** For messages. */
  protected abstract readonly what: string;

  constructor(lock: HeldLock, wire: NumberedCommand, resolve: () => void, reject: (error: unknown) => void) {
    super(lock, wire);
    this.#resolve = resolve;
    this.#reject = reject;
  }

  protected override onDone(): void {
    if (this.lease.session.settle(this)) this.#resolve();
  }

  protected fail(error: LeaseholdError): void {
    if (this.lease.session.settle(this)) this.#reject(error);
  }

  protected override onStale(): void {
    this.lock.stale();
    this.fail(this.lock.error());
  }

  protected override onRefused(error: LeaseholdError): void {
    this.fail(error);
  }

  protected override onUnknown(why: string, cause?: LeaseholdError): void {
    if (cause?.code === "CLOSED") {
      this.fail(cause);
      return;
    }
    const message = `nobody can tell whether the lock ${JSON.stringify(this.lock.name)} was ${this.what}: ${why}`;
    this.fail(new LeaseholdError("OUTCOME_UNKNOWN", message, cause ? { cause } : {}));
  }

  /** The lock is lost with its lease: what became of the change makes no difference. */
  override onLeaseLost(_reason: LostReason): void {
    this.fail(this.lock.error());
    this.lease.session.abandoned(this);
  }

  override onSessionLost(_reason: LostReason): void {
    this.fail(this.lock.error());
  }
}

export class Transfer extends HoldChange {
  protected readonly what = "handed on";

  constructor(lock: HeldLock, token: number, ticketId: string, resolve: () => void, reject: (error: unknown) => void) {
    super(lock, { seq: 0, transfer: { name: lock.name, token, ticketId } }, resolve, reject);
  }

  override get bytesMax(): number {
    return super.bytesMax + 3 * (this.wire.transfer?.ticketId?.length ?? 0);
  }

  protected override isDone(result: WireResult): boolean {
    return result.transfer != null;
  }

  protected override onDone(): void {
    this.lock.handedOn();
    super.onDone();
  }

  protected override onRefused(error: LeaseholdError): void {
    this.lock.kept();
    super.onRefused(error);
  }

  /** If the server has it still, it is to have it no longer. */
  protected override onUnknown(why: string, cause?: LeaseholdError): void {
    super.onUnknown(why, cause);
    void this.lock.release();
  }

  override onLeaseLost(reason: LostReason): void {
    this.onUnknown(LOST_TEXT[reason]);
    this.lease.session.abandoned(this);
  }

  override onSessionLost(reason: LostReason): void {
    this.onUnknown(LOST_TEXT[reason]);
  }
}

export class Downgrade extends HoldChange {
  protected readonly what = "downgraded";

  constructor(lock: HeldLock, token: number, resolve: () => void, reject: (error: unknown) => void) {
    super(lock, { seq: 0, downgrade: { name: lock.name, token } }, resolve, reject);
  }

  protected override isDone(result: WireResult): boolean {
    return result.downgrade != null;
  }

  protected override onRefused(error: LeaseholdError): void {
    this.lock.stillExclusive();
    super.onRefused(error);
  }
}

export class SetMetadata extends HoldChange {
  protected readonly what = "given its metadata";

  constructor(
    lock: HeldLock,
    token: number,
    metadata: Uint8Array,
    resolve: () => void,
    reject: (error: unknown) => void,
  ) {
    super(lock, { seq: 0, setMetadata: { name: lock.name, token, metadata } }, resolve, reject);
  }

  override get bytesMax(): number {
    return super.bytesMax + (this.wire.setMetadata?.metadata?.length ?? 0);
  }

  protected override isDone(result: WireResult): boolean {
    return result.setMetadata != null;
  }
}
