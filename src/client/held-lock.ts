/**
 * A lock that this process holds, or held.
 *
 * Everything is answered from the belief in its lease, and in its maximum hold if it has one, at the moment of the
 * question, so that a process that wakes from a stall learns of its loss at once, before any timer or message has told it.
 *
 * From the call of `release` or `transfer` on the lock counts as gone, although the server may still have it. A transfer
 * that is refused brings it back, unless it was lost in the meantime.
 *
 * A lock may be lost although the server still has the hold: an administrator takes it away and wants to hear that the
 * holder has stopped, or its maximum hold is over here and a little later there. Nothing is given back before the holder's
 * code says that it has ended, by `release`; a lease that was made for the lock lives until then.
 */
import { checkKeys, checkMetadata, checkTicketId } from "./arguments.js";
import type { HoldLimit } from "./belief.js";
import { type Duration, durationMs, formatMs } from "./duration.js";
import { Emitter } from "./emitter.js";
import { invalid, LeaseholdError, LOST_TEXT, type LostReason } from "./errors.js";
import type { Lock, LockEvents, LockGrant, LockState } from "./lock.js";
import { Downgrade, Release, SetMetadata, Transfer } from "./session/hold-commands.js";
import { drop } from "./session/lease-provider.js";
import type { LeaseListener, SessionLease } from "./session/session-lease.js";
import type { HoldTrace } from "./tracing.js";
import type { LockMode } from "./views.js";

interface Loss {
  readonly reason: LostReason;
  /** What the administrator gave as the reason. */
  readonly message: string;
}

type End =
  | ({ readonly is: "lost" } & Loss)
  | { readonly is: "released" }
  /** A transfer is on its way. `loss`: what it comes back to if it is refused. */
  | { readonly is: "leaving"; readonly loss: Loss | null }
  | { readonly is: "transferred" }
  | { readonly is: "closed" };

/** A grant as it arrived. */
export interface Granted {
  readonly name: string;
  readonly mode: LockMode;
  readonly token: number;
  readonly timestamp: number;
  readonly slots: readonly number[];
  /** Null: it has no maximum. */
  readonly limit: HoldLimit | null;
}

export class HeldLock implements Lock, LeaseListener {
  readonly name: string;
  readonly lease: SessionLease;
  readonly limit: HoldLimit | null;
  readonly #granted: Granted;
  #mode: LockMode;
  #end: End | null = null;
  /** The server has it no more, as it said itself or as follows from the end of its lease. */
  #gone = false;
  /** The lease does not live for the sake of this lock any more. */
  #leftLease = false;
  #yielded = false;
  #abort: AbortController | null = null;
  #events: Emitter<LockEvents> | null = null;
  #released: Promise<boolean> | null = null;
  #downgraded: Promise<void> | null = null;
  /** Null: nobody traces it. */
  trace: HoldTrace | null = null;

  constructor(granted: Granted, lease: SessionLease) {
    this.name = granted.name;
    this.lease = lease;
    this.limit = granted.limit;
    this.#granted = granted;
    this.#mode = granted.mode;
    lease.session.holdings.addLock(this, granted.token);
    if (granted.limit) lease.session.lockLimited(granted.limit.yieldAtMs);
  }

  get mode(): LockMode {
    return this.#mode;
  }

  get grant(): LockGrant {
    const { token, timestamp, slots } = this.#granted;
    return { token, timestamp, leaseId: this.lease.id, slots };
  }

  get token(): number {
    this.#assert();
    return this.#granted.token;
  }

  get state(): LockState {
    this.#check();
    if (this.#end === null) return this.#limited(this.lease.state(this.#nowMs()));
    return this.#end.is === "lost" ? { is: "lost", reason: this.#end.reason } : { is: "released" };
  }

  #limited(state: LockState): LockState {
    if (this.limit === null || !("remainingMs" in state)) return state;
    return { is: state.is, remainingMs: Math.min(state.remainingMs, this.limit.remainingMs(this.#nowMs())) };
  }

  get signal(): AbortSignal {
    this.#check();
    if (this.#abort === null) {
      this.#abort = new AbortController();
      if (this.failed) this.#abort.abort(this.error());
    }
    return this.#abort.signal;
  }

  assertHeld(options: { readonly forMs?: Duration | undefined } = {}): void {
    checkKeys(options, ["forMs"], "the options of assertHeld");
    const neededMs = options.forMs === undefined ? 0 : durationMs(options.forMs, "forMs");
    this.#assert();
    const { state } = this;
    const remainingMs = "remainingMs" in state ? state.remainingMs : 0;
    if (remainingMs >= neededMs) return;
    const message = `the lock ${JSON.stringify(this.name)} is held for ${formatMs(remainingMs)} more, not for ${formatMs(neededMs)}`;
    throw new LeaseholdError("LOST", message);
  }

  on<K extends keyof LockEvents>(event: K, f: (value: LockEvents[K]) => void): Disposable {
    this.#events ??= new Emitter();
    return this.#events.on(event, f);
  }

  // -------------------------------------------------------------------------------- giving it up, changing it

  release(): Promise<boolean> {
    if (this.#released === null) {
      this.#released = this.#release();
      this.trace?.releasing(this.#released);
    }
    return this.#released;
  }

  #release(): Promise<boolean> {
    this.#check();
    const wasLost = this.#end?.is === "lost";
    if (this.#end === null || this.#end.is === "leaving") this.#over({ is: "released" });
    else if (!wasLost || this.#gone) return Promise.resolve(false);
    return new Promise((resolve) => {
      const done = (released: boolean) => resolve(released && !wasLost);
      this.lease.session.submit(new Release(this, this.#granted.token, done));
      this.#leaveLease();
    });
  }

  async transfer(to: { readonly ticketId: string }): Promise<void> {
    checkKeys(to, ["ticketId"], "the arguments of transfer");
    const ticketId = checkTicketId(to.ticketId);
    this.#assert();
    this.#end = { is: "leaving", loss: null };
    await new Promise<void>((resolve, reject) => {
      this.lease.session.submit(new Transfer(this, this.#granted.token, ticketId, resolve, reject));
    });
  }

  async downgrade(): Promise<void> {
    this.#assert();
    if (this.#mode === "semaphore") throw invalid("a semaphore cannot be downgraded");
    if (this.#mode === "exclusive") {
      this.#mode = "shared";
      this.#downgraded = new Promise<void>((resolve, reject) => {
        this.lease.session.submit(new Downgrade(this, this.#granted.token, resolve, reject));
      });
    }
    await this.#downgraded;
  }

  async setMetadata(metadata: string | Uint8Array): Promise<void> {
    const bytes = checkMetadata(metadata);
    this.#assert();
    await new Promise<void>((resolve, reject) => {
      this.lease.session.submit(new SetMetadata(this, this.#granted.token, bytes, resolve, reject));
    });
  }

  progress(): void {
    this.lease.progress(this.#nowMs());
    this.#assert();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  // -------------------------------------------------------------------------------- how it stands

  #nowMs(): number {
    return this.lease.session.time.nowMs();
  }

  /** Notices what time has brought. */
  #check(): void {
    if (this.#end !== null && this.#end.is !== "leaving") return;
    const nowMs = this.#nowMs();
    this.lease.check(nowMs);
    if (this.limit && this.limit.remainingMs(nowMs) === 0) this.holdEnded("max_hold", false);
  }

  #assert(): void {
    this.#check();
    if (this.#end !== null) throw this.error();
  }

  get held(): boolean {
    this.#check();
    return this.#end === null;
  }

  /** Lost or taken away, as opposed to given up by its holder. */
  get failed(): boolean {
    this.#check();
    return this.#end?.is === "lost" || this.#end?.is === "closed";
  }

  /** Why it is not held. */
  error(): LeaseholdError {
    const end = this.#end;
    const lock = `the lock ${JSON.stringify(this.name)}`;
    if (end?.is === "lost") {
      const why = end.message ? `${LOST_TEXT[end.reason]}: ${end.message}` : LOST_TEXT[end.reason];
      return new LeaseholdError("LOST", `${lock} is lost: ${why}`, { lost: end.reason });
    }
    if (end?.is === "closed") return new LeaseholdError("CLOSED", `${lock} was released because its client was closed`);
    if (end?.is === "leaving" || end?.is === "transferred") {
      const what = end.is === "leaving" ? "is being handed on" : "has been handed on";
      return new LeaseholdError("LOST", `${lock} ${what}`, { lost: "transferred", retryable: false });
    }
    return new LeaseholdError("LOST", `${lock} has been released`, { retryable: false });
  }

  // -------------------------------------------------------------------------------- told by its commands

  /** The server has handed it on. */
  handedOn(): void {
    if (this.#end?.is === "leaving") this.#over({ is: "transferred" });
    this.#forget();
  }

  /** The server has refused to hand it on. */
  kept(): void {
    if (!this.#backFromTransfer()) return;
    if (this.#gone) this.#leaveLease();
    if (this.#end === null && this.limit) this.lease.session.lockLimited(this.#nowMs());
  }

  /** It was not handed on: it is what it would have become without that. */
  #backFromTransfer(): boolean {
    if (this.#end?.is !== "leaving") return false;
    const { loss } = this.#end;
    this.#end = null;
    if (loss) this.#lose(loss);
    return true;
  }

  /** The server has refused to make it shared. */
  stillExclusive(): void {
    this.#mode = "exclusive";
  }

  /** Its token does not hold the lock, says the server; so it does of one that is being taken away. */
  stale(): void {
    this.#backFromTransfer();
    if (this.held) this.holdEnded("unknown_to_server", true);
  }

  /** The server has it no more. */
  #forget(): void {
    this.#gone = true;
    this.lease.session.holdings.removeLock(this, this.#granted.token);
    this.#leaveLease();
  }

  /** The lease that was made for this lock, and perhaps for others, ends with the last of them. */
  #leaveLease(): void {
    if (this.#leftLease) return;
    this.#leftLease = true;
    if (this.lease.madeFor > 0 && --this.lease.madeFor === 0) drop(this.lease);
  }

  // -------------------------------------------------------------------------------- told by the session

  /** The hold has ended, or does not count any more. `gone`: the server has it no more. */
  holdEnded(reason: LostReason, gone: boolean, message = ""): void {
    const loss = { reason, message };
    if (this.#end?.is === "leaving") {
      // Whether it had been handed on before, the answer to the transfer tells.
      this.#end = { is: "leaving", loss: this.#end.loss ?? loss };
      this.#gone ||= gone;
      if (gone) this.lease.session.holdings.removeLock(this, this.#granted.token);
      return;
    }
    this.#lose(loss);
    if (gone) this.#forget();
  }

  /** It will not be held again. */
  #over(end: Exclude<End, { readonly is: "leaving" }>): void {
    this.#end = end;
    this.trace?.ended(end.is === "lost" ? end.reason : end.is);
  }

  #lose(loss: Loss): void {
    if (this.#end !== null) return;
    this.#over({ is: "lost", ...loss });
    this.#abort?.abort(this.error());
    this.#events?.emit("lost", loss.reason);
  }

  /** Its lease is dead. */
  lost(reason: LostReason): void {
    this.#gone = true;
    if (this.#end?.is === "leaving") this.#end = null;
    this.#lose({ reason, message: "" });
  }

  jeopardy(state: LockState): void {
    if (this.#end !== null) return;
    this.trace?.event("jeopardy");
    this.#events?.emit("jeopardy", this.#limited(state));
  }

  recovered(state: LockState): void {
    if (this.#end !== null) return;
    this.trace?.event("recovered");
    this.#events?.emit("recovered", this.#limited(state));
  }

  /** Its lease was ended on purpose. */
  leaseReleased(): void {
    this.#gone = true;
    if (this.#end === null || this.#end.is === "leaving") this.#over({ is: "released" });
  }

  /** Its client is being closed, which ends its lease. */
  closed(): void {
    if (this.#end !== null && this.#end.is !== "leaving") return;
    this.#over({ is: "closed" });
    this.#abort?.abort(this.error());
  }

  /** Says that its maximum hold comes to its end, and notices when it has. Returns when to look again. */
  onAlarm(nowMs: number): number {
    if (this.limit === null || !this.held) return Number.POSITIVE_INFINITY;
    if (nowMs < this.limit.yieldAtMs) return this.limit.yieldAtMs;
    if (!this.#yielded) {
      this.#yielded = true;
      this.#events?.emit("yield", this.state);
    }
    return this.limit.deadlineMs;
  }
}
