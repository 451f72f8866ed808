import type { LeaseholdError, LostReason } from "../errors.js";
import type { leasehold } from "../wire/index.js";
import type { SessionLease } from "./session-lease.js";

export type WireCommand = leasehold.v1.Command.$Properties;
export type WireResult = leasehold.v1.Result.$Properties;
export type WireFailure = leasehold.v1.Failure.$Properties;

/**
 * Something that the client asks of the server. It is sent with a sequence number, again after each reconnection until
 * its result has arrived, and has its effect once.
 */
export abstract class Command {
  /** What is sent; `seq` is assigned at the first send and 0 before. */
  abstract readonly wire: WireCommand & { seq: number };
  /** Goes ahead of the queue: it is answered at once and often lets others go on. */
  readonly urgent: boolean = false;
  /** Somebody waits for it: it keeps the session connected. Others go ahead of the queue, and have no effect on it. */
  readonly awaited: boolean = true;
  /** Gives up or changes something that is held: nobody gives the command up before its deadline. */
  readonly insists: boolean = false;
  /** May stay unanswered for long, in the queue of a lock. */
  readonly waits: boolean = false;
  /** The lease that it depends on. */
  readonly lease: SessionLease | null = null;
  /** When `onDeadline` is called unless it is settled before. */
  deadlineMs = Number.POSITIVE_INFINITY;
  /** Settled for the caller. It may still have a result to come, of which nobody will hear. */
  done = false;

  /** Why it must not be sent, if so. */
  get refusal(): LeaseholdError | null {
    return null;
  }

  /** An upper bound of its size on the wire. */
  get bytesMax(): number {
    return 64;
  }

  /** About to be sent, for the first time or again. */
  onSend(_nowMs: number): void {}
  /** Its result has arrived. Not called when it is done. */
  abstract onResult(result: WireResult, nowMs: number): void;
  /** Its deadline has passed. */
  onDeadline(_nowMs: number): void {}
  /** Its lease is dead, but the session lives. */
  onLeaseLost(_reason: LostReason, _nowMs: number): void {}
  /** The stream broke. False: it need not be sent again, the server settles it when the session resumes. */
  onDisconnect(): boolean {
    return !this.done;
  }
  /** The session is gone and with it everything that the command may have done; a new one takes its place. */
  abstract onSessionLost(reason: LostReason, nowMs: number): void;
  /** It cannot be carried out. */
  abstract onFailure(error: LeaseholdError): void;
}
