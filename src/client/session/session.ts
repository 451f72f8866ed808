/**
 * The client's end of the session protocol.
 *
 * Everything goes over one stream, in frames. The first says Hello, and nothing else leaves before the server has
 * answered it with Welcome. When the stream breaks, the next Hello names the session, the tokens still believed to be
 * held, and the commands still in flight; these are then sent again under their old numbers, so that each has one effect.
 * Commands that nobody waits for any more are not named: the server then undoes them by itself.
 *
 * If the server does not know the session any more, nothing of it is left there: its leases and locks are lost, and what
 * was asked for is asked anew in a new session.
 *
 * When nothing has been held or awaited for a while, the leases are ended and the stream is closed, so that the process
 * may end; the next command starts a new session.
 *
 * Time in this folder is elapsed time (see `clock/elapsed.ts`).
 */
import { Alarm } from "../clock/alarm.js";
import type { TimeSource } from "../clock/elapsed.js";
import { fromStatus, type LeaseholdError, type LostReason } from "../errors.js";
import type { LamportClock } from "../lamport.js";
import type { Transport } from "../transport.js";
import { decode, type leasehold, type StatusDetails, v1 } from "../wire/index.js";
import type { Command } from "./command.js";
import { closedError, isFatal, queueFull } from "./failure.js";
import { Holdings } from "./holdings.js";
import { Identity } from "./identity.js";
import { Idleness } from "./idleness.js";
import { Link } from "./link.js";
import { hearOfHolds, hearOfLeases, type Response } from "./news.js";
import { Outbox } from "./outbox.js";
import { Reports } from "./reports.js";
import { Sender } from "./sender.js";
import { type LeaseListener, RevokeLease, type SessionLease } from "./session-lease.js";

export interface SessionOptions {
  readonly transport: Transport;
  readonly time: TimeSource;
  /** From 0 to 1. */
  readonly random: () => number;
  /** How long a server may take to answer. */
  readonly connectTimeoutMs: number;
  /** How long the stream stays open when nothing is held or awaited. */
  readonly idleMs: number;
  /** For people: name and version of this library, and who uses it. */
  readonly clientName: string;
  readonly owner?: string | undefined;
}

/** The least time between two looks at all deadlines. */
const ALARM_STEP_MS = 5;

export class Session {
  readonly time: TimeSource;
  readonly lamport: LamportClock;
  readonly holdings = new Holdings();
  readonly reports = new Reports();
  readonly #options: SessionOptions;
  readonly #link: Link;
  readonly #outbox = new Outbox();
  readonly #sender: Sender;
  readonly #alarm: Alarm;
  readonly #identity: Identity;
  readonly #idleness: Idleness;
  /** How many commands somebody waits for. */
  #awaited = 0;
  #closed = false;
  /** The stream broke while the server had leases of ours: what was on its way then, only a resumption settles. */
  #unsettled = false;
  #onFlushed: (() => void) | null = null;
  /** Counts the streams that were lost: what an older one has delivered may since have been taken back. */
  generation = 0;
  /** Counts the sessions: numbers of commands and leases mean nothing in another one. */
  incarnation = 0;

  constructor(options: SessionOptions, lamport: LamportClock) {
    this.#options = options;
    this.time = options.time;
    this.lamport = lamport;
    this.#identity = new Identity(options.clientName, options.owner);
    this.#alarm = new Alarm(options.time, () => this.#onAlarm());
    const alarmBy = (atMs: number) => this.#alarm.by(atMs);
    this.#idleness = new Idleness(options.time, options.idleMs, alarmBy);
    this.#link = new Link(options, {
      greet: () => this.#greet(),
      onFrame: (bytes) => this.#onFrame(bytes),
      onDrain: () => this.#sender.unblocked(),
      onDown: (status, wasConnected) => this.#onDown(status, wasConnected),
      onState: (state) => void this.reports.events.emit("state", state),
    });
    this.#sender = new Sender(options.time, lamport, this.#link, this.#outbox, this.holdings, alarmBy);
  }

  // ------------------------------------------------------------------------------------------------ for commands

  /** Sends a command as soon as possible. */
  submit(command: Command): void {
    if (command.awaited) this.keep();
    const refusal = this.#closed ? closedError() : command.refusal;
    if (refusal !== null || !this.#outbox.push(command)) {
      command.onFailure(refusal ?? queueFull());
      return;
    }
    if (command.deadlineMs < Number.POSITIVE_INFINITY) this.#alarm.by(command.deadlineMs);
    this.#sender.wake();
  }

  /** Sends an unsettled command again, as a new one. */
  resubmit(command: Command): void {
    if (command.awaited) this.#awaited -= 1;
    this.submit(command);
  }

  /** Marks a command as settled. False if it was settled before. */
  settle(command: Command): boolean {
    if (command.done) return false;
    command.done = true;
    if (command.awaited) this.unkeep();
    return true;
  }

  /**
   * A settled command is of no more interest. True: the server may yet carry it out, unless it is told; false: it will
   * not, or undoes it when the session resumes.
   */
  abandoned(command: Command): boolean {
    if (command.wire.seq === 0) return false;
    if (this.#link.state === "connecting" || this.#link.state === "connected") return true;
    this.#outbox.remove(command);
    return false;
  }

  /** Somebody waits for something: the stream is to be opened, or to stay open. */
  keep(): void {
    this.#awaited += 1;
    this.#idleness.end();
    this.#sender.quiet = false;
  }

  unkeep(): void {
    this.#awaited -= 1;
    this.#considerIdle();
  }

  /** Opens the stream although there is nothing to send yet. */
  connect(): void {
    this.#link.want();
  }

  get connected(): boolean {
    return this.#link.state === "connected";
  }

  /** How long to wait for a server's answer where the caller does not say it. */
  get patienceMs(): number {
    return this.#options.connectTimeoutMs;
  }

  /** What to tell those who wait for an answer no longer. */
  unreachable(): LeaseholdError {
    return this.reports.unreachable(this.#link.address);
  }

  // ------------------------------------------------------------------------------------------------ for leases

  /** The creation of a lease leaves in the present frame. */
  leaseSent(lease: SessionLease, nowMs: number): void {
    if (this.holdings.leases.size === 0) this.#sender.firstLease(nowMs);
    this.holdings.addLease(lease);
  }

  /** A belief was confirmed: look again when it will be in doubt. */
  leaseConfirmed(lease: SessionLease): void {
    if (lease.belief) this.#alarm.by(lease.belief.jeopardyAtMs);
  }

  /** The holder of a lease that asks for it has made progress. */
  progress(lease: SessionLease): void {
    this.#sender.progress(lease);
  }

  /** A lock ends by itself at a certain time, and is to look at the clock before. */
  lockLimited(atMs: number): void {
    this.#alarm.by(atMs);
  }

  /** `abandoned`: the server may still have it, and would renew it with the others if it were not told. */
  leaseEnded(lease: SessionLease, abandoned: boolean): void {
    this.holdings.removeLease(lease);
    this.#sender.leaseEnded(lease);
    if (abandoned && lease.seq > 0 && !this.#closed) {
      this.submit(new RevokeLease(this, lease.seq, Number.POSITIVE_INFINITY, null, true));
    }
    this.#considerIdle();
  }

  /** Tells everything that depends on a lease that it is lost. */
  leaseLost(lease: SessionLease, reason: LostReason, nowMs: number): void {
    this.holdings.leaseLost(lease, reason);
    const affected = [...this.#outbox.all()].filter((command) => command.lease === lease);
    for (const command of affected) if (!command.done) command.onLeaseLost(reason, nowMs);
    this.#considerIdle();
  }

  tellHolders(lease: SessionLease, tell: (listener: LeaseListener) => void): void {
    this.holdings.tellHolders(lease, tell);
  }

  // ------------------------------------------------------------------------------------------------ the stream

  #greet(): void {
    const resumes = this.#identity.hasSession;
    const claims = resumes ? this.holdings.claims(this.time.nowMs()) : [];
    const abandoned = resumes ? [...this.#outbox.all()].flatMap(({ wire }) => wire.abandonSessionLease ?? []) : [];
    const outstanding = resumes ? this.#outbox.resumed() : [];
    this.#sender.greet(this.#identity.hello(claims, outstanding, abandoned, this.holdings.highestToken));
  }

  #onFrame(bytes: Uint8Array): void {
    let response: Response;
    try {
      response = decode(v1.AttachResponse, bytes);
    } catch (error) {
      this.#link.drop({ code: 13, reason: "", message: `the server's frame is malformed: ${String(error)}` });
      return;
    }
    const nowMs = this.#sender.heard(response.frame);
    this.lamport.merge(response.timestamp);
    if (response.clockAheadBy) this.reports.clockAhead(response.clockAheadBy);
    if (!this.connected) {
      this.#onWelcome(response.welcome);
      return;
    }
    hearOfLeases(response, this.holdings, this.#sender, nowMs);
    const unheard = hearOfHolds(response.holdEnds, this.holdings);
    for (const result of response.results) {
      const command = this.#outbox.take(result.seq ?? 0);
      if (command && !command.done) command.onResult(result, nowMs);
    }
    hearOfHolds(unheard, this.holdings);
    this.#considerIdle();
    if (this.#outbox.hasQueued) this.#sender.wake();
    this.#checkFlushed();
  }

  #onWelcome(welcome: leasehold.v1.Welcome.$Properties | null | undefined): void {
    const accepted = this.#identity.accept(welcome);
    if ("message" in accepted) {
      this.#link.drop(accepted);
      return;
    }
    this.#sender.limits = accepted;
    for (const token of welcome?.lost ?? []) this.holdings.claimLost(token);
    this.#unsettled = false;
    this.reports.succeeded();
    this.#link.established();
    this.#considerIdle();
    this.#sender.wake();
  }

  #onDown(status: StatusDetails, wasConnected: boolean): { reconnect: boolean; notBeforeMs: number } {
    const nowMs = this.time.nowMs();
    const failure = fromStatus(status);
    this.reports.failed(failure);
    this.generation += 1;
    this.#sender.quiet = false;
    if (wasConnected) this.#unsettled = this.holdings.leases.size > 0;
    this.#outbox.disconnected();
    if (failure.reason === "UNKNOWN_SESSION") this.#startAnew("unknown_to_server", nowMs);
    else if (failure.reason === "SESSION_REPLACED") this.#startAnew("session_replaced", nowMs);
    else if (failure.reason === "CLUSTER_MISMATCH") this.#onWrongCluster(failure, nowMs);
    else if (failure.code === "INVALID" || (isFatal(failure) && !wasConnected)) this.#failWaiting(failure);
    this.#forgetIfIdle();
    return { reconnect: this.#needed && !this.#closed, notBeforeMs: failure.retryAfterMs };
  }

  /** The session is no more: everything that it held is lost, everything that was asked for is asked anew. */
  #startAnew(reason: LostReason, nowMs: number): void {
    const commands = this.#forget();
    this.holdings.loseAll(reason, nowMs);
    for (const command of commands) if (!command.done) command.onSessionLost(reason, nowMs);
  }

  #onWrongCluster(failure: LeaseholdError, nowMs: number): void {
    const commands = this.#forget();
    this.holdings.loseAll("unknown_to_server", nowMs);
    for (const command of commands) if (!command.done) command.onFailure(failure);
    this.reports.warn(failure);
  }

  /** All but what concerns holds and leases that there are, which has until the lease ends. */
  #failWaiting(failure: LeaseholdError): void {
    for (const command of [...this.#outbox.all()]) {
      if (command.done || !command.awaited || command.insists) continue;
      command.onFailure(failure);
      this.abandoned(command);
    }
  }

  /** Returns what was on its way. */
  #forget(): Command[] {
    this.#unsettled = false;
    this.#identity.forgetSession();
    this.incarnation += 1;
    return this.#outbox.reset();
  }

  // ------------------------------------------------------------------------------------------------ time

  #onAlarm(): void {
    const nowMs = this.time.nowMs();
    let nextMs = this.holdings.onAlarm(nowMs);
    for (const command of [...this.#outbox.all()]) {
      if (!command.done && command.deadlineMs <= nowMs) command.onDeadline(nowMs);
      if (!command.done) nextMs = Math.min(nextMs, command.deadlineMs);
    }
    nextMs = Math.min(nextMs, this.#sender.onAlarm(nowMs), this.#checkIdle(nowMs));
    if (this.#link.state === "idle" && !this.#needed) return;
    if (nextMs < Number.POSITIVE_INFINITY) this.#alarm.by(Math.max(nextMs, nowMs + ALARM_STEP_MS));
  }

  /** Whether anything is held, awaited, or left for the server to settle. */
  get #needed(): boolean {
    if (this.#awaited > 0 || this.holdings.inUse) return true;
    return this.#unsettled && this.holdings.leases.size > 0;
  }

  /** Something ended: perhaps it was the last. */
  #considerIdle(): void {
    if (!this.#needed && !this.#closed) this.#idleness.begin();
  }

  /** Leaves, if there has been no reason to stay for a while. Returns when to look again. */
  #checkIdle(nowMs: number): number {
    if (this.#needed || this.#closed) {
      this.#idleness.end();
      return Number.POSITIVE_INFINITY;
    }
    this.#idleness.begin();
    const { restAtMs, leaveAtMs } = this.#idleness;
    if (nowMs < restAtMs) return restAtMs;
    // The server is told that the leases are of no more use; if it does not answer, they run out by themselves.
    if (!this.connected || this.holdings.leases.size === 0 || nowMs >= leaveAtMs) {
      this.#rest();
      return Number.POSITIVE_INFINITY;
    }
    this.#sender.quiet = true;
    for (const lease of [...this.holdings.leases.values()]) this.#retire(lease, leaveAtMs);
    return leaveAtMs;
  }

  /** Ends a lease that nobody uses; then the stream, unless somebody has come. */
  #retire(lease: SessionLease, deadlineMs: number): void {
    lease.release();
    const then = () => void (this.#needed || this.holdings.leases.size > 0 || this.#rest());
    this.submit(new RevokeLease(this, lease.seq, deadlineMs, then));
  }

  /** Closes the stream; the next command opens a new session. */
  #rest(): void {
    this.#link.rest();
    this.#forgetIfIdle();
    this.#alarm.stop();
  }

  #forgetIfIdle(): void {
    if (this.#needed || !this.#identity.hasSession || this.connected) return;
    const commands = this.#forget();
    this.holdings.loseAll("expired", this.time.nowMs());
    for (const command of commands) if (!command.done) command.onFailure(closedError());
  }

  // ------------------------------------------------------------------------------------------------ closing

  /** Rejects everything that waits, except releases and revocations. */
  cancelWaiting(): void {
    this.#failWaiting(closedError());
  }

  /** Resolves when the server has answered all that ends something, what nobody waits for included. */
  flushed(): Promise<void> {
    return new Promise((resolve) => {
      this.#onFlushed = resolve;
      this.#checkFlushed();
    });
  }

  #checkFlushed(): void {
    if (this.#onFlushed !== null && !this.#outbox.hasUrgent) this.#onFlushed();
  }

  /** The end: nothing is sent any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#link.close();
    this.#alarm.stop();
    for (const command of this.#forget()) if (!command.done) command.onFailure(closedError());
    this.holdings.loseAll("expired", this.time.nowMs());
  }
}
