/**
 * A server that keeps its promises to the millisecond and not a millisecond longer, behind a network that delays, loses and
 * breaks. For one client; nobody competes with it. It knows at each moment what it still promises.
 */
import type { Stream, StreamHandlers, Transport } from "../../src/client/transport.js";
import { decode, encode, type leasehold, v1 } from "../../src/client/wire/index.js";
import type { FakeTime, WireCommand, WireResponse } from "./support.js";

type Request = ReturnType<typeof v1.AttachRequest.decode>;
type Result = leasehold.v1.Result.$Properties;

interface Lease {
  readonly ttlMs: number;
  readonly progressEveryMs: number;
  renewedAtMs: number;
  progressAtMs: number;
  dead: boolean;
}

interface Hold {
  readonly token: number;
  readonly lease: Lease;
  readonly seq: number;
  mode: number;
  /** Of its maximum. */
  readonly endsAtMs: number;
  /** When it is taken away at the latest. */
  revokedAtMs: number;
  ended: boolean;
  /** It was taken away without waiting for anybody: the one end that is not announced in time. */
  broken: boolean;
}

const FORCED = v1.EndReason.END_REASON_FORCED;
const refused = (reason: string): Omit<Result, "seq"> => ({ failure: { reason, message: reason } });

/** One stream. Frames arrive in order, each after a delay; when it breaks, what is on its way is lost. */
class Pipe implements Stream {
  open = true;
  #toServerAtMs = 0;
  #toClientAtMs = 0;
  frame = 0;

  constructor(
    readonly server: PromisingServer,
    readonly handlers: StreamHandlers,
  ) {}

  send(bytes: Buffer): boolean {
    const frame = decode(v1.AttachRequest, bytes);
    this.#toServerAtMs = this.#later(this.#toServerAtMs, () => this.server.onFrame(this, frame));
    return true;
  }

  push(response: WireResponse): void {
    const bytes = encode(v1.AttachResponse, { frame: this.frame, timestamp: 1, ...response });
    this.#toClientAtMs = this.#later(this.#toClientAtMs, () => this.handlers.onFrame(bytes));
  }

  #later(lastAtMs: number, f: () => void): number {
    const { time } = this.server;
    const atMs = Math.max(lastAtMs, time.nowMs() + this.server.delayMs());
    time.setTimer(atMs - time.nowMs(), () => this.open && f());
    return atMs;
  }

  end(): void {
    this.open = false;
  }

  destroy(): void {
    this.open = false;
  }

  break(): void {
    if (!this.open) return;
    this.open = false;
    this.handlers.onEnd({ code: 14, message: "broken", reason: "" });
  }
}

export class PromisingServer implements Transport {
  readonly addresses = [{ text: "test:7420", local: true }];
  readonly time: FakeTime;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly holds = new Map<number, Hold>();
  readonly #leases = new Map<number, Lease>();
  readonly #outcomes = new Map<number, Omit<Result, "seq">>();
  /** When each acquire was last asked for, and on which stream. */
  readonly #asked = new Map<number, { readonly atMs: number; readonly pipe: Pipe | null }>();
  #pipe: Pipe | null = null;
  #session = "";
  #tokens = 0;
  /** The longest that a frame takes. */
  delayMsMax = 20;

  constructor(time: FakeTime, random: () => number) {
    this.time = time;
    this.random = random;
  }

  delayMs(): number {
    return Math.floor(this.random() * this.delayMsMax);
  }

  open(_index: number, handlers: StreamHandlers): Stream {
    return new Pipe(this, handlers);
  }

  openWatch(): never {
    throw new Error("there is nothing to watch here");
  }

  // ------------------------------------------------------------------------------------------------ what it promises

  #alive(lease: Lease): boolean {
    const nowMs = this.time.nowMs();
    if (this.#remainingMs(lease, nowMs) <= 0) lease.dead = true;
    return !lease.dead;
  }

  #remainingMs({ renewedAtMs, ttlMs, progressAtMs, progressEveryMs }: Lease, nowMs: number): number {
    const untilMs = renewedAtMs + ttlMs;
    return (progressEveryMs > 0 ? Math.min(untilMs, progressAtMs + progressEveryMs) : untilMs) - nowMs;
  }

  holdOf(token: number): Hold | undefined {
    const hold = this.holds.get(token);
    if (!hold || hold.ended) return undefined;
    const nowMs = this.time.nowMs();
    if (nowMs >= hold.endsAtMs || nowMs >= hold.revokedAtMs || !this.#alive(hold.lease)) hold.ended = true;
    return hold.ended ? undefined : hold;
  }

  // ------------------------------------------------------------------------------------------------ what happens to it

  break(): void {
    this.#pipe?.break();
  }

  /** An administrator takes a lock away. */
  force(token: number, now: boolean): void {
    const hold = this.holdOf(token);
    if (!hold) return;
    const nowMs = this.time.nowMs();
    hold.broken ||= now;
    hold.revokedAtMs = Math.min(hold.revokedAtMs, now ? nowMs : nowMs + this.#remainingMs(hold.lease, nowMs));
    this.#pipe?.push({ holdEnds: [{ token, reason: FORCED, confirm: !now }] });
  }

  onFrame(pipe: Pipe, request: Request): void {
    pipe.frame = request.frame;
    if (request.hello) this.#onHello(pipe, request.hello);
    else if (pipe === this.#pipe) this.#onBatch(pipe, request);
  }

  #onHello(pipe: Pipe, { sessionId, claims = [], outstanding = [] }: leasehold.v1.Hello.$Properties): void {
    if (sessionId !== this.#session) {
      pipe.open = false;
      pipe.handlers.onEnd({ code: 5, message: "unknown", reason: "UNKNOWN_SESSION" });
      return;
    }
    this.#session ||= "s";
    this.#pipe?.break();
    this.#pipe = pipe;
    for (const [token, hold] of this.holds) {
      if (!claims?.includes(token) && !outstanding?.includes(hold.seq)) hold.ended = true;
    }
    const lost = (claims ?? []).filter((token) => !this.holdOf(token));
    pipe.push({ welcome: { sessionId: "s", clusterId: "c", commandsInFlightMax: 64, resumeMs: 5_000, lost } });
    const revoking = (claims ?? []).filter((token) => (this.holdOf(token)?.revokedAtMs ?? Infinity) < Infinity);
    pipe.push({ holdEnds: revoking.map((token) => ({ token, reason: FORCED, confirm: true })) });
  }

  #onBatch(pipe: Pipe, { frame, renew, progress, commands }: Request): void {
    const results: Result[] = [];
    for (const command of commands as WireCommand[]) {
      const result = this.#answer(command);
      if (result) results.push({ seq: command.seq, ...result });
    }
    const nowMs = this.time.nowMs();
    const renewals: leasehold.v1.Renewal.$Properties[] = [];
    for (const [sessionLease, lease] of this.#leases) {
      const reports = progress.includes(sessionLease);
      if (!(renew || reports) || !this.#alive(lease)) continue;
      lease.renewedAtMs = nowMs;
      if (reports) lease.progressAtMs = nowMs;
      const renewAfterMs = Math.floor(this.random() * lease.ttlMs);
      renewals.push({ sessionLease, frame, remainingMs: this.#remainingMs(lease, nowMs), renewAfterMs });
    }
    pipe.push({ results, renewals });
  }

  // ------------------------------------------------------------------------------------------------ commands

  #answer(command: WireCommand): Omit<Result, "seq"> | null {
    const { seq, acquire } = command;
    if (acquire) return this.#onAcquire(seq, acquire);
    const known = this.#outcomes.get(seq);
    const outcome = known ?? this.#execute(command);
    this.#outcomes.set(seq, outcome);
    return outcome;
  }

  #execute(command: WireCommand): Omit<Result, "seq"> {
    const { createLease, release, transfer, downgrade, cancelAcquire } = command;
    const endsLease = command.revokeSessionLease || command.abandonSessionLease;
    if (createLease) return this.#onCreateLease(command.seq, createLease);
    if (endsLease) {
      const lease = this.#leases.get(endsLease);
      if (lease) lease.dead = true;
      return { revokeLease: { revoked: lease !== undefined } };
    }
    if (cancelAcquire) {
      for (const hold of this.holds.values()) if (hold.seq === cancelAcquire.sessionAcquire) hold.ended = true;
      return { cancelAcquire: {} };
    }
    const hold = this.holdOf((release ?? transfer ?? downgrade)?.token ?? 0);
    if (!hold || (!release && hold.revokedAtMs < Infinity)) return refused("STALE_TOKEN");
    if (this.random() < 0.1) return refused(release ? "LIMIT" : "NOT_WAITING");
    if (downgrade) hold.mode = v1.LockMode.LOCK_MODE_SHARED;
    else hold.ended = true;
    return release ? { release: {} } : transfer ? { transfer: { token: ++this.#tokens } } : { downgrade: {} };
  }

  #onCreateLease(seq: number, { ttlMs, progressEveryMs }: leasehold.v1.CreateLeaseRequest.$Properties) {
    const nowMs = this.time.nowMs();
    const lease = {
      ...{ ttlMs: ttlMs ?? 0, progressEveryMs: progressEveryMs ?? 0 },
      ...{ renewedAtMs: nowMs, progressAtMs: nowMs, dead: false },
    };
    this.#leases.set(seq, lease);
    const remainingMs = this.#remainingMs(lease, nowMs);
    return { createLease: { lease: { leaseId: `l${seq}`, ttlMs: lease.ttlMs, remainingMs } } };
  }

  /** A grant after a wait, for which it must have been asked on the present stream. */
  #onAcquire(seq: number, request: leasehold.v1.AcquireRequest.$Properties): Omit<Result, "seq"> | null {
    this.#asked.set(seq, { atMs: this.time.nowMs(), pipe: this.#pipe });
    for (const hold of this.holds.values()) {
      if (hold.seq !== seq) continue;
      return this.holdOf(hold.token) && hold.revokedAtMs === Infinity ? this.#granted(hold) : refused("STALE_TOKEN");
    }
    const waitMs = this.random() < 0.5 ? 0 : Math.floor(this.random() * Math.min(5_000, request.waitMs ?? 0));
    this.time.setTimer(waitMs, () => this.#grant(seq, request));
    return null;
  }

  #grant(seq: number, { sessionLease, mode, maxHoldMs }: leasehold.v1.AcquireRequest.$Properties): void {
    const lease = this.#leases.get(sessionLease ?? 0);
    const isGranted = [...this.holds.values()].some((hold) => hold.seq === seq);
    if (isGranted || this.#asked.get(seq)?.pipe !== this.#pipe || !lease || !this.#alive(lease)) return;
    const endsAtMs = maxHoldMs ? this.time.nowMs() + maxHoldMs : Infinity;
    const token = ++this.#tokens;
    const hold = {
      ...{ token, lease, seq, mode: mode ?? 0, endsAtMs },
      ...{ revokedAtMs: Infinity, ended: false, broken: false },
    };
    this.holds.set(token, hold);
    this.#pipe?.push({ results: [{ seq, ...this.#granted(hold) }] });
  }

  /** The maximum hold counts from the arrival of the request that is answered. */
  #granted({ token, seq, endsAtMs }: Hold): Omit<Result, "seq"> {
    const maxHoldRemainingMs = endsAtMs < Infinity ? endsAtMs - (this.#asked.get(seq)?.atMs ?? 0) : 0;
    return { acquire: { grant: { token, timestamp: 1, maxHoldRemainingMs } } };
  }
}
