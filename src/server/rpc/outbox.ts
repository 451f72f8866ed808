/**
 * What the next frame of a session stream will say: the replies of one batch, collected and written as one frame, or as
 * several when one would be too large. Every frame names the last client frame that was processed.
 */
import { encode, type leasehold, v1 } from "@leasehold/client/wire";
import type { Outcome, Reply } from "../core/types.js";
import { endReason, failureResult, holdEnd, sessionResult } from "./encode.js";
import type { WireFailure } from "./errors.js";
import type { RenewalPacing } from "./pacing.js";

type Entries = Pick<leasehold.v1.AttachResponse, "results" | "renewals" | "leaseEnds" | "holdEnds">;
type ReplyOf<K extends Reply["kind"]> = Extract<Reply, { kind: K }>;

export class Outbox {
  private echo = 0;
  private timestamp = 0;
  private clockAheadBy = 0;
  private hello: leasehold.v1.Welcome.$Properties | null = null;
  private entries = noEntries();
  private dirty = false;

  constructor(
    private readonly frameBytesMax: number,
    private readonly listBytesMax: number,
    private readonly pacing: RenewalPacing,
  ) {}

  /** Whether there is anything to say. */
  get filled(): boolean {
    return this.dirty;
  }

  /** The timestamp of the frame to come. */
  stamp(timestamp: number): void {
    this.timestamp = timestamp;
  }

  /** Throws, without effect, for an outcome that no session command has. */
  result(seq: number, outcome: Outcome): void {
    this.entries.results.push(sessionResult(seq, outcome, this.listBytesMax));
    this.dirty = true;
  }

  failure(seq: number, failure: WireFailure): void {
    this.entries.results.push(failureResult(seq, failure, this.listBytesMax));
    this.dirty = true;
  }

  processed(frame: number): void {
    this.echo = frame;
    this.dirty = true;
  }

  /** The client's clock is ahead of what was taken from it. */
  clockAhead(by: number): void {
    if (by > this.clockAheadBy) this.clockAheadBy = by;
  }

  renewal(reply: ReplyOf<"renewal">): void {
    const { leaseSeq, remainingMs, frame } = reply;
    const renewAfterMs = this.pacing.renewAfterMs(remainingMs);
    this.entries.renewals.push({ sessionLease: leaseSeq, remainingMs, frame, renewAfterMs });
    this.dirty = true;
  }

  leaseEnd(reply: ReplyOf<"leaseEnd">): void {
    this.entries.leaseEnds.push({ sessionLease: reply.leaseSeq, reason: endReason(reply.reason) });
    this.dirty = true;
  }

  holdEnd(reply: ReplyOf<"holdEnd">): void {
    this.entries.holdEnds.push(holdEnd(reply));
    this.dirty = true;
  }

  welcome(welcome: leasehold.v1.Welcome.$Properties): void {
    this.hello = welcome;
    this.processed(Math.max(this.echo, 1)); // Hello is the client's first frame
  }

  /** The frames to write now. */
  take(): Buffer[] {
    const frames: Buffer[] = [];
    const { entries } = this;
    this.entries = noEntries();
    this.dirty = false;
    this.encode(entries, frames);
    return frames;
  }

  private encode(entries: Entries, frames: Buffer[]): void {
    const bytes = encode(v1.AttachResponse, {
      frame: this.echo,
      welcome: this.hello,
      ...entries,
      timestamp: this.timestamp,
      clockAheadBy: this.clockAheadBy,
    });
    const halves = bytes.length > this.frameBytesMax ? split(entries) : null;
    if (halves !== null) {
      this.encode(halves[0], frames);
      this.encode(halves[1], frames);
      return;
    }
    this.hello = null;
    this.clockAheadBy = 0;
    frames.push(bytes);
  }
}

function noEntries(): Entries {
  return { results: [], renewals: [], leaseEnds: [], holdEnds: [] };
}

/** Null for what cannot be split: one entry at most. */
function split(entries: Entries): [Entries, Entries] | null {
  const { results, renewals, leaseEnds, holdEnds } = entries;
  const total = results.length + renewals.length + leaseEnds.length + holdEnds.length;
  if (total < 2) return null;
  const ofResults = Math.floor(total / 2);
  const ofRenewals = Math.max(0, ofResults - results.length);
  const ofLeaseEnds = Math.max(0, ofRenewals - renewals.length);
  const ofHoldEnds = Math.max(0, ofLeaseEnds - leaseEnds.length);
  return [
    {
      results: results.slice(0, ofResults),
      renewals: renewals.slice(0, ofRenewals),
      leaseEnds: leaseEnds.slice(0, ofLeaseEnds),
      holdEnds: holdEnds.slice(0, ofHoldEnds),
    },
    {
      results: results.slice(ofResults),
      renewals: renewals.slice(ofRenewals),
      leaseEnds: leaseEnds.slice(ofLeaseEnds),
      holdEnds: holdEnds.slice(ofHoldEnds),
    },
  ];
}
