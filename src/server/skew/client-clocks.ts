/**
 * The clocks of all clients that tell theirs: of session streams while they are attached, and of leases that are renewed
 * by unary calls as long as they live. Written by the transport, read by metrics and Status; nothing else knows of it, so
 * that nothing can be decided by it. In memory only.
 */
import type { Logger } from "../log.js";
import { ClockEstimate } from "./estimate.js";
import { SkewLog } from "./log.js";
import { type ClientClock, type ClockOwner, type ClockSkewReport, mergeLeases, reportOf } from "./report.js";

/** What a client tells of its wall clock with one frame or call. Zeros: it does not tell. */
export interface ClockReading {
  readonly wallClockMs: number;
  readonly roundTripMs: number;
  /** The frame that took so long; unary: 0, it is the last call. */
  readonly roundTripFrame: number;
}

/** A lease that a unary call has created or renewed. */
export interface RenewedLease {
  readonly leaseId: string;
  readonly displayId: string;
  readonly owner: string;
  readonly ttlMs: number;
}

export interface ClientClocksOptions {
  readonly warnMs: number;
  /** Never goes back; times of arrival are on this clock. */
  readonly monotonicMs: () => number;
  /** The wall clock, in milliseconds since 1970. */
  readonly wallMs: () => number;
  /** What is read now has not waited for a server that stalled. */
  readonly onTime: () => boolean;
  readonly log?: Pick<Logger, "info" | "warn"> | undefined;
}

/** Sessions are bounded by `limits.streamsMax`. Of leases beyond this the one that was renewed longest ago is forgotten. */
const LEASES_MAX = 10_000;
/** Of the most skewed. */
const LISTED_MAX = 10;

interface Entry {
  readonly who: ClockOwner;
  readonly estimate: ClockEstimate;
  /** As the log has it. */
  skewed: boolean;
}

interface LeaseEntry extends Entry {
  untilMs: number;
}

/** The clock of one session stream. */
export interface SessionClock {
  /** A frame has arrived just now. */
  heard(frame: number, reading: ClockReading): void;
  /** The client is welcome: from now on its clock counts. */
  attached(): void;
  /** The stream is over. Safe to repeat. */
  gone(): void;
}

export class ClientClocks {
  readonly #options: ClientClocksOptions;
  readonly #log: SkewLog | undefined;
  readonly #sessions = new Set<Entry>();
  /** By lease id, the one renewed last at the end. */
  readonly #leases = new Map<string, LeaseEntry>();

  constructor(options: ClientClocksOptions) {
    this.#options = options;
    this.#log = options.log && new SkewLog(options.log);
  }

  /** A stream has said Hello. */
  session(owner: string, client: string): SessionClock {
    const who = { owner, client, leaseDisplayId: "" };
    const entry: Entry = { who, estimate: new ClockEstimate(), skewed: false };
    return {
      heard: (frame, reading) => {
        const nowMs = this.#options.monotonicMs();
        this.#take(entry.estimate, frame, reading, nowMs);
        if (this.#sessions.has(entry)) this.#judge(entry, nowMs);
      },
      attached: () => {
        this.#sessions.add(entry);
        this.#judge(entry, this.#options.monotonicMs());
      },
      gone: () => {
        this.#sessions.delete(entry);
      },
    };
  }

  /** A unary call that arrived at `arrivedAtMs`, and told its client's clock, has created or renewed this lease. */
  lease(lease: RenewedLease, reading: ClockReading, arrivedAtMs: number): void {
    const { leaseId, displayId, owner, ttlMs } = lease;
    const known = this.#leases.get(leaseId);
    const who = { owner, client: "", leaseDisplayId: displayId };
    const entry = known ?? { who, estimate: new ClockEstimate(), skewed: false, untilMs: 0 };
    entry.untilMs = arrivedAtMs + ttlMs;
    this.#leases.delete(leaseId);
    this.#leases.set(leaseId, entry);
    if (this.#leases.size > LEASES_MAX) this.#forgetOldest();
    this.#take(entry.estimate, 0, reading, arrivedAtMs);
    this.#judge(entry, arrivedAtMs);
  }

  /** The lease was revoked. */
  leaseEnded(leaseId: string): void {
    this.#leases.delete(leaseId);
  }

  report(): ClockSkewReport {
    const nowMs = this.#options.monotonicMs();
    const wallMs = this.#options.wallMs();
    const leases: ClientClock[] = [];
    for (const [leaseId, entry] of this.#leases) {
      if (entry.untilMs <= nowMs) this.#leases.delete(leaseId);
      else leases.push(clockOf(entry, nowMs, wallMs));
    }
    const clocks = mergeLeases(leases);
    for (const entry of this.#sessions) {
      if (entry.estimate.known) clocks.push(clockOf(entry, nowMs, wallMs));
    }
    return reportOf(clocks, this.#options.warnMs, LISTED_MAX);
  }

  #take(estimate: ClockEstimate, frame: number, reading: ClockReading, nowMs: number): void {
    const { wallClockMs, roundTripMs, roundTripFrame } = reading;
    if (roundTripMs > 0) estimate.roundTrip(roundTripFrame, roundTripMs, nowMs);
    if (wallClockMs > 0) estimate.reading(wallClockMs, frame, nowMs, this.#options.onTime());
  }

  /** For the log. Between right and wrong lies a band in which nothing changes, so that nobody flickers. */
  #judge(entry: Entry, nowMs: number): void {
    if (this.#log === undefined || !entry.estimate.known) return;
    const { warnMs, wallMs } = this.#options;
    const clock = clockOf(entry, nowMs, wallMs());
    const skewed = clock.certainMs > (entry.skewed ? warnMs / 2 : warnMs);
    if (skewed === entry.skewed) return;
    entry.skewed = skewed;
    this.#log.changed(clock, skewed, nowMs);
  }

  #forgetOldest(): void {
    for (const leaseId of this.#leases.keys()) {
      this.#leases.delete(leaseId);
      return;
    }
  }
}

/** Field by field: there may be many, and a spread costs ten times as much. */
function clockOf({ who, estimate }: Entry, nowMs: number, wallMs: number): ClientClock {
  const { owner, client, leaseDisplayId } = who;
  const { offsetMs, errorMs, certainMs, agoMs } = estimate.at(nowMs, wallMs);
  return { owner, client, leaseDisplayId, offsetMs, errorMs, certainMs, agoMs };
}
