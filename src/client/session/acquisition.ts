/**
 * One attempt to take a lock.
 *
 * An attempt whose lease dies, or whose session the server has forgotten, while it still waits is made again: it held
 * nothing, so nothing is lost but its place in the queue. A grant that comes when the belief in its lease is already over
 * is none: it is rejected as LOST, and the revocation of the lease takes it back.
 *
 * The server ends a wait that is over; the deadline here only stands in for a server that does not answer.
 */
import { formatMs } from "../duration.js";
import { LeaseholdError, type LostReason } from "../errors.js";
import { HeldLock, LOST_TEXT } from "../lock.js";
import { type Busy, busyView } from "../views.js";
import { v1 } from "../wire/index.js";
import { Command, type WireCommand, type WireResult } from "./command.js";
import { failureOf, unexpected } from "./failure.js";
import type { LeaseProvider } from "./lease-provider.js";
import type { Session } from "./session.js";
import type { SessionLease } from "./session-lease.js";

/** What is asked for; every value has been checked. */
export interface AcquireRequest {
  readonly name: string;
  /** 0: try once. */
  readonly waitMs: number;
  /** Through which lease. */
  readonly leases: LeaseProvider;
  readonly owner: string;
  readonly metadata: Uint8Array | null;
  readonly signal: AbortSignal | null;
}

/** The answer to an attempt. */
export interface AcquireOutcome {
  granted(lock: HeldLock): void;
  busy(busy: Busy, error: () => LeaseholdError): void;
  failed(error: unknown): void;
}

/** By how much the local deadline is later than the server's. */
const BACKSTOP_MS = 2_000;
/** The shortest time in which to look for a server, however short the wait. */
const REACH_MS = 2_000;
const ATTEMPTS_MAX = 3;
/** How long to wait before a refused withdrawal is tried again, if the server does not say. */
const RETRY_MS = 200;

export class Acquisition extends Command {
  readonly wire: WireCommand & { seq: number; acquire: { sessionLease: number; waitMs: number } };
  override readonly waits: boolean;
  override readonly lease: SessionLease;
  readonly #request: AcquireRequest;
  readonly #outcome: AcquireOutcome;
  readonly #session: Session;
  readonly #attempt: number;
  /** When the wait is over. */
  readonly #waitUntilMs: number;
  readonly #abort: (() => void) | null;

  constructor(
    session: Session,
    request: AcquireRequest,
    outcome: AcquireOutcome,
    waitUntilMs: number,
    attempt: number,
  ) {
    super();
    this.#session = session;
    this.#request = request;
    this.#outcome = outcome;
    this.#attempt = attempt;
    this.#waitUntilMs = waitUntilMs;
    this.deadlineMs = Math.max(waitUntilMs, waitUntilMs - request.waitMs + REACH_MS);
    this.waits = request.waitMs > 0;
    this.lease = request.leases.take();
    this.wire = { seq: 0, acquire: this.#wireRequest() };
    this.#abort = request.signal ? () => this.#onAbort() : null;
    if (this.#abort) request.signal?.addEventListener("abort", this.#abort, { once: true });
  }

  #wireRequest() {
    const { name, owner, metadata } = this.#request;
    const mode = v1.LockMode.LOCK_MODE_EXCLUSIVE;
    const plain = { name, mode, sessionLease: 0, waitMs: 0 };
    return owner === "" && metadata === null ? plain : { ...plain, owner, metadata };
  }

  /** A lease that has ended may be one of an earlier session, and its number that of another lease by now. */
  override get refusal(): LeaseholdError | null {
    return this.lease.end === null ? null : this.#lostError(this.#deathOfLease());
  }

  override get bytesMax(): number {
    const { name, owner, metadata } = this.#request;
    return 64 + 3 * (name.length + owner.length) + (metadata?.length ?? 0);
  }

  override onSend(nowMs: number): void {
    const { acquire } = this.wire;
    acquire.sessionLease = this.lease.seq;
    acquire.waitMs = this.waits ? Math.max(0, Math.ceil(this.#waitUntilMs - nowMs)) : 0;
  }

  // ------------------------------------------------------------------------------------------------ answers

  override onResult(result: WireResult, nowMs: number): void {
    const answer = result.acquire;
    if (answer?.grant) {
      this.#onGrant(answer.grant.token ?? 0, answer.grant.timestamp ?? 0, nowMs);
    } else if (answer?.busy) {
      this.#onBusy(busyView(answer.busy), answer.busy.timedOut === true);
    } else if (result.failure) {
      this.#onRefusal(failureOf(result.failure), nowMs);
    } else {
      this.#fail(unexpected("Acquire"));
    }
  }

  #onGrant(token: number, timestamp: number, nowMs: number): void {
    if (!this.lease.alive(nowMs)) {
      this.#fail(this.#lostError(this.#deathOfLease()));
      return;
    }
    if (this.lease.belief === null) {
      this.#onEarlyGrant(token, timestamp);
      return;
    }
    const lock = new HeldLock(this.#request.name, this.lease, this.#request.leases.own, token, timestamp);
    this.#session.holdings.addLock(lock, token);
    if (this.#finish()) this.#outcome.granted(lock);
  }

  /** Before the answer to the creation of its lease: without that there is nothing to believe. */
  #onEarlyGrant(token: number, timestamp: number): void {
    const { generation, time } = this.#session;
    this.lease.whenSettled(() => {
      if (this.done) return;
      // If the stream broke in between, the server has taken the grant back, as nobody claimed it.
      if (generation !== this.#session.generation || this.lease.belief === null) this.#again("unknown_to_server");
      else this.#onGrant(token, timestamp, time.nowMs());
    });
  }

  #deathOfLease(): LostReason {
    const { end } = this.lease;
    return end?.is === "lost" ? end.reason : "revoked";
  }

  #onBusy(busy: Busy, timedOut: boolean): void {
    if (!this.#finish()) return;
    this.#request.leases.giveBack(this.lease);
    this.#outcome.busy(busy, () => busyError(this.#request.name, busy, timedOut ? this.#request.waitMs : 0));
  }

  #onRefusal(refusal: LeaseholdError, nowMs: number): void {
    const { end } = this.lease;
    // A lease that could not be had is the cause, that it does not exist the consequence.
    const error = refusal.reason === "UNKNOWN_LEASE" && end?.is === "refused" ? end.error : refusal;
    if (error.reason === "UNKNOWN_LEASE") {
      this.lease.lose("unknown_to_server", nowMs, false);
      if (!this.done) this.#again("unknown_to_server");
    } else if (error.reason === "STALE_TOKEN") {
      this.#again("expired"); // it had been granted, and the grant has ended before it could be delivered
    } else if (error.retryAfterMs > 0 && nowMs + error.retryAfterMs < this.#waitUntilMs) {
      this.#session.time.setTimer(error.retryAfterMs, () => this.#renew(this.#attempt), true);
    } else {
      this.#fail(error);
    }
  }

  /** The same request as a new command. */
  #renew(attempt: number): void {
    if (!this.#finish()) return;
    const next = new Acquisition(this.#session, this.#request, this.#outcome, this.#waitUntilMs, attempt);
    this.#session.submit(next);
  }

  /** The lease died before there was a grant. */
  #again(reason: LostReason): void {
    if (this.lease.end?.is === "refused") {
      this.#fail(this.lease.end.error);
      return;
    }
    const inTime = this.#session.time.nowMs() < Math.max(this.#waitUntilMs, this.deadlineMs);
    if (this.#request.leases.renewable && this.#attempt < ATTEMPTS_MAX && inTime) this.#renew(this.#attempt + 1);
    else this.#fail(this.#lostError(reason));
  }

  #lostError(reason: LostReason): LeaseholdError {
    const message = `could not take the lock ${JSON.stringify(this.#request.name)}: ${LOST_TEXT[reason]}`;
    return new LeaseholdError("LOST", message, { lost: reason });
  }

  // ------------------------------------------------------------------------------------------------ other ends

  #finish(): boolean {
    if (this.#abort) this.#request.signal?.removeEventListener("abort", this.#abort);
    return this.#session.settle(this);
  }

  #fail(error: unknown): void {
    if (!this.#finish()) return;
    this.#request.leases.giveBack(this.lease);
    this.#outcome.failed(error);
  }

  /** Fails while the server may still act on it. */
  #withdraw(error: unknown): void {
    if (this.done) return;
    const { seq } = this.wire;
    this.#fail(error);
    if (this.#session.abandoned(this)) this.#session.submit(new CancelAcquire(this.#session, seq));
  }

  #onAbort(): void {
    this.#withdraw(this.#request.signal?.reason);
  }

  override onDeadline(nowMs: number): void {
    if (!this.#session.connected) {
      this.#withdraw(this.#session.unreachable());
      return;
    }
    const { patienceMs } = this.#session;
    const startMs = this.#waitUntilMs - this.#request.waitMs;
    const backstopMs = Math.max(this.#waitUntilMs + BACKSTOP_MS, startMs + patienceMs);
    if (nowMs < backstopMs) {
      this.deadlineMs = backstopMs;
      return;
    }
    this.#withdraw(this.wire.seq === 0 ? notSent() : noAnswer(this.#request));
  }

  override onLeaseLost(reason: LostReason): void {
    this.#again(reason);
  }

  override onSessionLost(reason: LostReason): void {
    if (this.lease.end === null) this.#session.resubmit(this);
    else this.#again(reason);
  }

  override onFailure(error: LeaseholdError): void {
    this.#fail(error);
  }
}

/** Withdraws an acquire: its place in the queue, or the grant that crossed the withdrawal. */
class CancelAcquire extends Command {
  readonly wire;
  override readonly awaited = false;
  override readonly urgent = true;
  readonly #session: Session;

  constructor(session: Session, seq: number) {
    super();
    this.#session = session;
    this.wire = { seq: 0, cancelAcquire: { sessionAcquire: seq } };
  }

  override onResult(result: WireResult): void {
    const error = result.failure ? failureOf(result.failure) : null;
    if (error?.retryable) this.#again(error.retryAfterMs || RETRY_MS);
    else this.#session.settle(this);
  }

  /** Unless the stream broke meanwhile: then the resumption has settled it. */
  #again(delayMs: number): void {
    const { generation, time } = this.#session;
    time.setTimer(delayMs, () => {
      if (generation !== this.#session.generation) return;
      this.wire.seq = 0;
      this.#session.submit(this);
    });
  }

  /** What it withdraws is not named when the session resumes, and so is undone by that. */
  override onDisconnect(): boolean {
    return false;
  }

  override onSessionLost(): void {
    this.#session.settle(this);
  }

  override onFailure(): void {
    this.#session.settle(this);
  }
}

function busyError(name: string, busy: Busy, waitedMs: number): LeaseholdError {
  const by = busy.holders.map((holder) => `${holder.owner || "somebody"} (for ${formatMs(holder.heldMs)})`).join(", ");
  const state = by ? `is held by ${by}` : busy.reserved ? "is kept for a waiter whose connection broke" : "is busy";
  const others = busy.waiters > 0 ? `; ${busy.waiters} waiting` : "";
  const waited = waitedMs > 0 ? `waited ${formatMs(waitedMs)}: ` : "";
  return new LeaseholdError("BUSY", `${waited}the lock ${JSON.stringify(name)} ${state}${others}`, { busy });
}

const noAnswer = (request: AcquireRequest): LeaseholdError =>
  new LeaseholdError(
    "UNREACHABLE",
    `the server did not answer for the lock ${JSON.stringify(request.name)} within its wait`,
  );

const notSent = (): LeaseholdError =>
  new LeaseholdError("LIMIT", "the wait was over before the request could be sent: too many are in flight");
