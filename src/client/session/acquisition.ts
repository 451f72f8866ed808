/**
 * One attempt to take a lock, or several together.
 *
 * An attempt whose lease dies, or whose session the server has forgotten, while it still waits is made again: it held
 * nothing, so nothing is lost but its place in the queue. A grant that comes when the belief in its lease is already over
 * is none: it is rejected as LOST, and the revocation of the lease takes it back.
 *
 * What the grant says of its maximum hold counts from the send of the request on the present stream, however long it has
 * waited since: what the server has answered meanwhile does not show when it made the grant.
 *
 * The server ends a wait that is over; the deadline here only stands in for a server that does not answer.
 */
import { HoldLimit } from "../belief.js";
import type { LeaseholdError, LostReason } from "../errors.js";
import { HeldLock } from "../held-lock.js";
import { type Busy, busyView } from "../views.js";
import type { leasehold } from "../wire/index.js";
import {
  type AcquireRequest,
  type AcquireTerms,
  acquireBytesMax,
  acquireOnWire,
  busyError,
  lostError,
  noAnswer,
  notSent,
} from "./acquire-request.js";
import { CancelAcquire } from "./cancel-acquire.js";
import { Command, type WireCommand, type WireResult } from "./command.js";
import { failureOf, unexpected } from "./failure.js";
import type { Session } from "./session.js";
import type { SessionLease } from "./session-lease.js";

/** The answer to an attempt. */
export interface AcquireOutcome {
  /** One for each item, in their order. */
  granted(locks: HeldLock[]): void;
  busy(busy: Busy, error: () => LeaseholdError): void;
  failed(error: unknown): void;
}

type Grants = readonly leasehold.v1.Grant.$Properties[];

const NO_SLOTS: readonly number[] = [];
/** By how much the local deadline is later than the server's. */
const BACKSTOP_MS = 2_000;
/** The shortest time in which to look for a server, however short the wait. */
const REACH_MS = 2_000;
const ATTEMPTS_MAX = 3;

export class Acquisition extends Command {
  readonly wire: WireCommand & { seq: number };
  override readonly waits: boolean;
  override readonly lease: SessionLease;
  readonly #request: AcquireRequest;
  readonly #outcome: AcquireOutcome;
  readonly #session: Session;
  readonly #attempt: number;
  /** When the wait is over. */
  readonly #waitUntilMs: number;
  readonly #abort: (() => void) | null;
  readonly #terms: AcquireTerms;
  /** The last time that it was sent. */
  #sentAtMs = 0;

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
    const { wire, terms } = acquireOnWire(request);
    this.wire = wire;
    this.#terms = terms;
    this.#abort = request.signal ? () => this.#onAbort() : null;
    if (this.#abort) request.signal?.addEventListener("abort", this.#abort, { once: true });
  }

  /** A lease that has ended may be one of an earlier session, and its number that of another lease by now. */
  override get refusal(): LeaseholdError | null {
    return this.lease.end === null ? null : lostError(this.#request, this.#deathOfLease());
  }

  override get bytesMax(): number {
    return acquireBytesMax(this.#request);
  }

  override onSend(nowMs: number): void {
    const { holding } = this.#request;
    this.#sentAtMs = nowMs;
    this.#terms.sessionLease = this.lease.seq;
    this.#terms.waitMs = this.waits ? Math.max(0, Math.ceil(this.#waitUntilMs - nowMs)) : 0;
    // What has been given up meanwhile is kept no longer.
    if (this.waits && holding.length > 0) {
      this.#terms.heldTokens = holding.filter((lock) => lock.held).map((lock) => lock.grant.token);
    }
  }

  // ------------------------------------------------------------------------------------------------ answers

  override onResult(result: WireResult, nowMs: number): void {
    const answer = this.#request.all ? result.acquireAll : result.acquire;
    const grants = this.#request.all ? result.acquireAll?.grants?.grants : oneOf(result.acquire?.grant);
    if (grants && grants.length === this.#request.items.length) {
      this.#onGrant(grants, nowMs);
    } else if (answer?.busy) {
      const name = this.#request.items[0]?.name ?? "";
      this.#onBusy(busyView(answer.busy, name), answer.busy.timedOut === true);
    } else if (result.failure) {
      this.#onRefusal(failureOf(result.failure), nowMs);
    } else {
      this.#fail(unexpected("an acquire"));
    }
  }

  #onGrant(grants: Grants, nowMs: number): void {
    if (!this.lease.alive(nowMs)) {
      this.#fail(lostError(this.#request, this.#deathOfLease()));
      return;
    }
    if (this.lease.belief === null) {
      this.#onEarlyGrant(grants);
      return;
    }
    if (this.#request.leases.own) this.lease.madeFor = grants.length;
    const locks = grants.map((grant, i) => this.#lock(grant, i));
    if (this.#finish()) this.#outcome.granted(locks);
  }

  #lock({ token, timestamp, slots, maxHoldRemainingMs }: Grants[number], i: number): HeldLock {
    const { items, maxHoldMs } = this.#request;
    const { name, mode } = items[i] as AcquireRequest["items"][number];
    const limit = maxHoldMs > 0 ? new HoldLimit(maxHoldMs, this.#sentAtMs, maxHoldRemainingMs ?? 0) : null;
    const granted = { name, mode, token: token ?? 0, timestamp: timestamp ?? 0, slots: slots ?? NO_SLOTS, limit };
    return new HeldLock(granted, this.lease);
  }

  /** Before the answer to the creation of its lease: without that there is nothing to believe. */
  #onEarlyGrant(grants: Grants): void {
    const { generation, time } = this.#session;
    this.lease.whenSettled(() => {
      if (this.done) return;
      // If the stream broke in between, the server has taken the grant back, as nobody claimed it.
      if (generation !== this.#session.generation || this.lease.belief === null) this.#again("unknown_to_server");
      else this.#onGrant(grants, time.nowMs());
    });
  }

  #deathOfLease(): LostReason {
    const { end } = this.lease;
    return end?.is === "lost" ? end.reason : "revoked";
  }

  #onBusy(busy: Busy, timedOut: boolean): void {
    if (!this.#finish()) return;
    this.#request.leases.giveBack(this.lease);
    this.#outcome.busy(busy, () => busyError(busy, timedOut ? this.#request.waitMs : 0));
  }

  #onRefusal(refusal: LeaseholdError, nowMs: number): void {
    const { end } = this.lease;
    // A lease that could not be had is the cause, that it does not exist the consequence.
    const error = refusal.reason === "UNKNOWN_LEASE" && end?.is === "refused" ? end.error : refusal;
    if (error.reason === "UNKNOWN_LEASE") {
      this.lease.lose("unknown_to_server", nowMs, false);
      if (!this.done) this.#again("unknown_to_server");
    } else if (error.reason === "STALE_TOKEN") {
      this.#onUndelivered();
    } else if (error.retryAfterMs > 0 && nowMs + error.retryAfterMs < this.#waitUntilMs) {
      this.#session.time.setTimer(error.retryAfterMs, () => this.#renew(this.#attempt), true);
    } else {
      this.#fail(error);
    }
  }

  /** It had been granted, and the grant, or one of several, has ended before it could be delivered. */
  #onUndelivered(): void {
    this.#session.submit(new CancelAcquire(this.#session, this.wire.seq));
    this.#request.leases.giveBack(this.lease);
    this.#again("expired");
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
    else this.#fail(lostError(this.#request, reason));
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

const oneOf = <T>(value: T | null | undefined): T[] | undefined => (value ? [value] : undefined);
