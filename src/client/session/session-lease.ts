/**
 * A lease of this session, as the client believes in it.
 *
 * It starts unconfirmed, while its creation is on the way. It ends once, and for one of three reasons: it was lost, its
 * creation was refused, or its owner ended it.
 */
import { Belief } from "../belief.js";
import { invalid, type LeaseholdError, type LostReason } from "../errors.js";
import { Command, type WireCommand, type WireResult } from "./command.js";
import { failureOf, unexpected } from "./failure.js";
import type { Session } from "./session.js";

export type LeaseState =
  | { readonly is: "held" | "jeopardy"; readonly remainingMs: number }
  | { readonly is: "lost"; readonly reason: LostReason }
  | { readonly is: "released" };

/** Hears of what happens to a lease. */
export interface LeaseListener {
  jeopardy(state: LeaseState): void;
  recovered(state: LeaseState): void;
  lost(reason: LostReason): void;
}

type End =
  | { readonly is: "lost"; readonly reason: LostReason }
  | { readonly is: "released" }
  | { readonly is: "refused"; readonly error: LeaseholdError };

export class SessionLease {
  readonly session: Session;
  /** As asked for. */
  readonly ttlMs: number;
  /** Not 0: it lives only for this long after a report of progress. */
  readonly progressEveryMs: number;
  readonly owner: string;
  /** Held by somebody's wish, so that the session stays connected for its sake. */
  readonly kept: boolean;
  /** The sequence number of the command that creates it; 0 before that was sent. */
  seq = 0;
  /** The lease id; "" while unconfirmed. */
  id = "";
  belief: Belief | null = null;
  listener: LeaseListener | null = null;
  /** How many locks it was made for that still need it; it ends with the last. 0: it was not made for locks. */
  madeFor = 0;
  /** The command that asks for it. */
  creation: CreateLease | null = null;
  #end: End | null = null;
  #grantedTtlMs: number;
  #inJeopardy = false;
  #settled: (() => void)[] = [];

  constructor(session: Session, ttlMs: number, owner: string, kept: boolean, progressEveryMs = 0) {
    this.session = session;
    this.ttlMs = ttlMs;
    this.progressEveryMs = progressEveryMs;
    this.owner = owner;
    this.kept = kept;
    this.#grantedTtlMs = ttlMs;
  }

  /** As the server has made it. */
  get grantedTtlMs(): number {
    return this.#grantedTtlMs;
  }

  /** How long it lives after a confirmation at most. */
  get termMs(): number {
    return this.#term(this.ttlMs);
  }

  #term(ttlMs: number): number {
    return this.progressEveryMs > 0 ? Math.min(ttlMs, this.progressEveryMs) : ttlMs;
  }

  get end(): End | null {
    return this.#end;
  }

  /** Neither ended nor, by the time it is, past its deadline. */
  alive(nowMs: number): boolean {
    this.check(nowMs);
    return this.#end === null;
  }

  /** Whether the server still has it by the client's belief, even if its owner has ended it meanwhile. */
  believed(nowMs: number): boolean {
    this.check(nowMs);
    return this.#end?.is !== "lost" && this.belief !== null && this.belief.at(nowMs) !== "lost";
  }

  /** Notices that the belief is over. */
  check(nowMs: number): void {
    if (this.#end === null && this.belief !== null && this.belief.at(nowMs) === "lost")
      this.lose("expired", nowMs, true);
  }

  state(nowMs: number): LeaseState {
    this.check(nowMs);
    if (this.#end?.is === "lost") return this.#end;
    if (this.#end !== null || this.belief === null) return { is: "released" };
    return {
      is: this.belief.at(nowMs) === "jeopardy" ? "jeopardy" : "held",
      remainingMs: this.belief.remainingMs(nowMs),
    };
  }

  /** Calls `f` when it is known whether the lease came to be. */
  whenSettled(f: () => void): void {
    if (this.belief !== null || this.#end !== null) f();
    else this.#settled.push(f);
  }

  #settle(): void {
    const waiting = this.#settled;
    this.#settled = [];
    for (const f of waiting) f();
  }

  /** The server has made it. */
  confirmCreated(id: string, ttlMs: number, sentAtMs: number, remainingMs: number, nowMs: number): void {
    if (this.#end !== null) return;
    this.id = id;
    this.#grantedTtlMs = ttlMs;
    this.belief = new Belief(this.#term(ttlMs), sentAtMs, remainingMs);
    this.check(nowMs);
    if (this.#end === null) this.session.leaseConfirmed(this);
    this.#settle();
  }

  /** Its holder has made progress, which the server is to be told soon. Throws INVALID if the lease asks for none. */
  progress(nowMs: number): void {
    if (this.progressEveryMs === 0) {
      throw invalid("the lease does not ask for progress: make it with client.lease({ progressEvery })");
    }
    if (this.alive(nowMs)) this.session.progress(this);
  }

  /** The server has renewed it. */
  confirm(sentAtMs: number, remainingMs: number, nowMs: number): void {
    if (this.#end !== null || this.belief === null) return;
    if (!this.belief.confirm(sentAtMs, remainingMs, nowMs)) {
      this.check(nowMs);
      return;
    }
    if (this.#inJeopardy && this.belief.at(nowMs) === "held") {
      this.#inJeopardy = false;
      this.session.tellHolders(this, (listener) => listener.recovered(this.state(nowMs)));
    }
    this.session.leaseConfirmed(this);
  }

  /** Says what time has brought and returns when to look again. */
  onAlarm(nowMs: number): number {
    this.check(nowMs);
    if (this.#end !== null || this.belief === null) return Number.POSITIVE_INFINITY;
    if (this.belief.at(nowMs) === "held") return this.belief.jeopardyAtMs;
    if (!this.#inJeopardy) {
      this.#inJeopardy = true;
      this.session.tellHolders(this, (listener) => listener.jeopardy(this.state(nowMs)));
    }
    return this.belief.deadlineMs;
  }

  /** `abandoned`: the server may still have it, and would renew it with all others if it were not told. */
  lose(reason: LostReason, nowMs: number, abandoned: boolean): void {
    if (this.#end !== null) return;
    this.#end = { is: "lost", reason };
    this.session.leaseEnded(this, abandoned);
    this.session.leaseLost(this, reason, nowMs);
    this.#settle();
  }

  /** Its creation failed. */
  refuse(error: LeaseholdError): void {
    if (this.#end !== null) return;
    this.#end = { is: "refused", error };
    this.session.leaseEnded(this, false);
    this.#settle();
  }

  /** Its owner has no more use for it. Whoever calls this sends the revocation. */
  release(): void {
    if (this.#end !== null) return;
    this.#end = { is: "released" };
    if (this.seq === 0 && this.creation) this.session.settle(this.creation);
    this.session.leaseEnded(this, false);
    this.#settle();
  }
}

/** Asks for a lease. */
export class CreateLease extends Command {
  readonly wire;
  /** Otherwise somebody waits for a lock with this lease, not for the lease. */
  override readonly awaited: boolean;
  override readonly lease: SessionLease;
  #sentAtMs = 0;

  constructor(lease: SessionLease) {
    super();
    this.lease = lease;
    lease.creation = this;
    this.awaited = lease.kept;
    const { time, patienceMs } = lease.session;
    if (lease.kept) this.deadlineMs = time.nowMs() + patienceMs;
    const { ttlMs, owner, progressEveryMs } = lease;
    const plain = { ttlMs, owner };
    this.wire = { seq: 0, createLease: progressEveryMs > 0 ? { ...plain, progressEveryMs } : plain };
  }

  override get bytesMax(): number {
    return 64 + 3 * this.lease.owner.length;
  }

  override onSend(nowMs: number): void {
    this.#sentAtMs = nowMs;
    this.lease.seq = this.wire.seq;
    if (this.lease.end === null) this.lease.session.leaseSent(this.lease, nowMs);
  }

  override onResult(result: WireResult, nowMs: number): void {
    this.lease.session.settle(this);
    const made = result.createLease?.lease;
    if (made) {
      const ttlMs = made.ttlMs || this.lease.ttlMs;
      this.lease.confirmCreated(made.leaseId ?? "", ttlMs, this.#sentAtMs, made.remainingMs ?? 0, nowMs);
    } else {
      this.lease.refuse(result.failure ? failureOf(result.failure) : unexpected("CreateLease"));
    }
  }

  override onDeadline(nowMs: number): void {
    const { session, ttlMs } = this.lease;
    this.onFailure(session.unreachable());
    if (session.abandoned(this)) session.submit(new RevokeLease(session, this.wire.seq, nowMs + ttlMs, null));
  }

  override onLeaseLost(): void {
    this.lease.session.settle(this);
  }

  override onSessionLost(): void {
    this.lease.seq = 0;
    if (this.lease.end === null) this.lease.session.resubmit(this);
    else this.lease.session.settle(this);
  }

  override onFailure(error: LeaseholdError): void {
    this.lease.session.settle(this);
    this.lease.refuse(error);
  }
}

/** How long to wait before a refused revocation is tried again, if the server does not say. */
const RETRY_MS = 200;

/**
 * Ends a lease that the server knows. It is not given up while the session lives: the server renews all leases of a
 * session together, so one that was forgotten here would live, and hold its locks, for as long as the others do.
 */
export class RevokeLease extends Command {
  readonly wire: WireCommand & { seq: number };
  /** Whoever waits for it does so until the deadline only; then the command goes on by itself. */
  override readonly awaited = false;
  override readonly urgent = true;
  override readonly insists = true;
  readonly #session: Session;
  /** Told once. Null: nobody waits, or it was told. */
  #waiter: ((revoked: boolean) => void) | null;

  /** `abandoned`: the belief in it is over, so that to the server it has expired. */
  constructor(
    session: Session,
    leaseSeq: number,
    deadlineMs: number,
    waiter: ((revoked: boolean) => void) | null,
    abandoned = false,
  ) {
    super();
    this.wire = { seq: 0, ...(abandoned ? { abandonSessionLease: leaseSeq } : { revokeSessionLease: leaseSeq }) };
    this.deadlineMs = deadlineMs;
    this.#session = session;
    this.#waiter = waiter;
  }

  #tell(revoked: boolean): void {
    const waiter = this.#waiter;
    this.#waiter = null;
    waiter?.(revoked);
  }

  #finish(revoked: boolean): void {
    this.#session.settle(this);
    this.#tell(revoked);
  }

  override onResult(result: WireResult): void {
    const error = result.failure ? failureOf(result.failure) : null;
    if (error?.retryable && error.code !== "LOST") this.#again(error.retryAfterMs || RETRY_MS);
    else this.#finish(result.revokeLease?.revoked ?? false);
  }

  #again(delayMs: number): void {
    const { incarnation } = this.#session;
    this.#session.time.setTimer(delayMs, () => {
      // In another session the number would be that of another lease.
      if (incarnation !== this.#session.incarnation) {
        this.#finish(false);
        return;
      }
      this.wire.seq = 0;
      this.#session.submit(this);
    });
  }

  override onDeadline(): void {
    this.deadlineMs = Number.POSITIVE_INFINITY;
    this.#tell(false);
  }

  override onSessionLost(): void {
    this.#finish(false);
  }

  override onFailure(): void {
    this.#finish(false);
  }
}
