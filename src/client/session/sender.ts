/**
 * Puts what is queued into frames, together with the renewals and reports of progress that are due.
 *
 * Frames leave at the end of a turn of the event loop, so that everything asked for within it shares one. The send time of
 * a frame is read before it is made: a belief that counts from it errs on the safe side.
 */
import type { TimeSource } from "../clock/elapsed.js";
import type { LamportClock } from "../lamport.js";
import { encode, type leasehold, v1 } from "../wire/index.js";
import type { Holdings } from "./holdings.js";
import type { Link } from "./link.js";
import type { Outbox, OutboxLimits } from "./outbox.js";
import { ProgressReports } from "./progress.js";
import { Renewals } from "./renewals.js";
import type { SessionLease } from "./session-lease.js";
import { WallClock } from "./wall-clock.js";

/** While the stream takes nothing, it is looked at this often. */
const BLOCKED_CHECK_MS = 100;

export class Sender {
  readonly #time: TimeSource;
  readonly #lamport: LamportClock;
  readonly #link: Link;
  readonly #outbox: Outbox;
  readonly #holdings: Holdings;
  readonly #alarmBy: (atMs: number) => void;
  readonly #renewals = new Renewals();
  readonly #progress = new ProgressReports();
  readonly #wallClock = new WallClock();
  readonly #flushNow = () => this.#onSoon();
  /** The number of the last frame on this stream. */
  #frame = 0;
  #soon = false;
  /** The stream takes no more for now. */
  #blocked = false;
  limits: OutboxLimits = { inFlightMax: 1, frameBytesMax: 65_536 };
  /** Leases are being ended: no renewals of their own. */
  quiet = false;

  constructor(
    time: TimeSource,
    lamport: LamportClock,
    link: Link,
    outbox: Outbox,
    holdings: Holdings,
    alarmBy: (atMs: number) => void,
  ) {
    this.#time = time;
    this.#lamport = lamport;
    this.#link = link;
    this.#outbox = outbox;
    this.#holdings = holdings;
    this.#alarmBy = alarmBy;
  }

  /** The first frame on a new stream. */
  greet(hello: leasehold.v1.Hello.$Properties): void {
    this.#frame = 1;
    this.#blocked = false;
    this.#renewals.reset();
    this.#progress.reset();
    this.#wallClock.reset();
    const { ackedBelow } = this.#outbox;
    const clock = this.#wallClock.fields(1, this.#time.nowMs(), true);
    this.#link.send(encode(v1.AttachRequest, { frame: 1, hello, ackedBelow, observed: this.#lamport.now(), ...clock }));
  }

  /** Sees to it that what is queued leaves at the end of this turn of the event loop. */
  wake(): void {
    if (this.#link.state !== "connected") {
      this.#link.want();
      return;
    }
    if (this.#soon || this.#blocked) return;
    this.#soon = true;
    this.#time.soon(this.#flushNow);
  }

  unblocked(): void {
    this.#blocked = false;
    if (this.#outbox.hasQueued) this.wake();
  }

  #onSoon(): void {
    this.#soon = false;
    this.#flush(this.#time.nowMs());
  }

  #flush(nowMs: number): void {
    if (this.#link.state !== "connected") return;
    const ttlMs = this.#ttlMs();
    for (let more = true; more && !this.#blocked; ) {
      const commands = this.#outbox.next(nowMs, this.limits);
      const due = commands.length > 0 ? this.#renewals.rides(nowMs, ttlMs) : nowMs >= this.#renewals.dueAtMs(ttlMs);
      const renew = ttlMs < Number.POSITIVE_INFINITY && due;
      more = commands.length > 0 && this.#outbox.hasQueued;
      const progress = this.#progress.take(nowMs);
      if (commands.length > 0 || renew || progress.length > 0) this.#sendFrame(commands, renew, progress, nowMs);
    }
    // A blocked stream is looked after by `onAlarm`.
    if (!this.#blocked && this.#ttlMs() < Number.POSITIVE_INFINITY) this.#alarmBy(this.#dueAtMs(this.#ttlMs()));
  }

  #dueAtMs(ttlMs: number): number {
    return Math.min(this.#renewals.dueAtMs(ttlMs), this.#progress.dueAtMs);
  }

  #sendFrame(commands: leasehold.v1.Command.$Properties[], renew: boolean, progress: number[], nowMs: number): void {
    const frame = ++this.#frame;
    if (renew || progress.length > 0) this.#renewals.sent(frame, nowMs, renew);
    const acked = this.#outbox.takeAckedAbove();
    const { ackedBelow } = this.#outbox;
    const clock = this.#wallClock.fields(frame, nowMs, renew);
    const request = { frame, ackedBelow, acked, renew, commands, progress, observed: this.#lamport.now(), ...clock };
    const bytes = encode(v1.AttachRequest, request);
    this.#blocked = !this.#link.send(bytes);
  }

  /** The smallest TTL that is to be renewed; infinite: none. */
  #ttlMs(): number {
    return this.quiet ? Number.POSITIVE_INFINITY : this.#holdings.smallestTtlMs;
  }

  /** A frame of the server's has arrived, which answers the frame `echo` and those before. Returns the time. */
  heard(echo: number): number {
    const nowMs = this.#time.nowMs();
    this.#wallClock.heard(echo, nowMs);
    return nowMs;
  }

  /** The creation of the first lease leaves in the present frame. */
  firstLease(nowMs: number): void {
    this.#renewals.created(nowMs);
  }

  /** A lease was renewed by this frame. Returns when that was sent; undefined: not known. */
  renewed(lease: SessionLease | undefined, frame: number): number | undefined {
    const sentAtMs = this.#renewals.answered(frame);
    if (lease && sentAtMs !== undefined) this.#progress.answered(lease, sentAtMs);
    return sentAtMs;
  }

  /** When the server wants to be asked next for a renewal. */
  renewAt(atMs: number): void {
    this.#renewals.wanted(atMs);
  }

  /** A holder has made progress. */
  progress(lease: SessionLease): void {
    this.#progress.report(lease);
    this.wake();
  }

  leaseEnded(lease: SessionLease): void {
    this.#progress.forget(lease);
  }

  /** Renews if it is time. Returns when to look again. */
  onAlarm(nowMs: number): number {
    const ttlMs = this.#ttlMs();
    if (this.#link.state !== "connected" || ttlMs === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
    const overdueAtMs = this.#renewals.dueAtMs(ttlMs) + ttlMs / 3;
    const deadAtMs = this.#blocked ? overdueAtMs : this.#renewals.deadAtMs(ttlMs);
    if (nowMs >= deadAtMs) {
      this.#link.drop({ code: 14, reason: "", message: "no answer to renewals" });
      return Number.POSITIVE_INFINITY;
    }
    if (nowMs >= this.#dueAtMs(ttlMs)) this.#flush(nowMs);
    if (this.#blocked) return nowMs + BLOCKED_CHECK_MS;
    return Math.min(this.#dueAtMs(ttlMs), this.#renewals.deadAtMs(ttlMs));
  }
}
