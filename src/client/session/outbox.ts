/**
 * The commands of a session on their way: first queued, then in flight until their result arrives.
 *
 * Sequence numbers are given at the first send, so that they rise by one on the wire whatever was withdrawn before. The
 * server bounds the commands in flight; the rest waits here, up to a bound of its own. Two queues, because a release must
 * not wait behind a thousand acquires that wait for it; for the same reason acquires that may wait leave an eighth of the
 * places in flight to all others.
 */
import { ChurnMap } from "../churn-map.js";
import type { Command, WireCommand } from "./command.js";

/** What the server permits, as its Welcome said. */
export interface OutboxLimits {
  readonly inFlightMax: number;
  readonly frameBytesMax: number;
}

/** Commands that may wait for their first send. */
const QUEUED_MAX = 16_384;
/** Of a frame's own fields, generously. */
const FRAME_OVERHEAD_BYTES = 128;
/** Of a command in a frame: tags and lengths. */
const COMMAND_OVERHEAD_BYTES = 16;

const NONE: number[] = [];

/** A first-in-first-out queue in an array, whose front is cut off now and then. */
class Fifo {
  #items: Command[] = [];
  #head = 0;

  get size(): number {
    return this.#items.length - this.#head;
  }

  push(command: Command): void {
    this.#items.push(command);
  }

  peek(): Command | undefined {
    return this.#items[this.#head];
  }

  shift(): void {
    this.#head += 1;
    if (this.#head < 1_024 && this.#head < this.#items.length) return;
    this.#items = this.#items.slice(this.#head);
    this.#head = 0;
  }

  *[Symbol.iterator](): Generator<Command> {
    for (let i = this.#head; i < this.#items.length; i++) yield this.#items[i] as Command;
  }

  /** Keeps only what passes. */
  filter(keep: (command: Command) => boolean): void {
    this.#items = this.#items.slice(this.#head).filter(keep);
    this.#head = 0;
  }
}

export class Outbox {
  readonly #urgent = new Fifo();
  readonly #queued = new Fifo();
  /** By sequence number, in rising order. */
  #inFlight = new ChurnMap<number, Command>();
  /** In flight but to be sent again, in rising order. */
  #resend: Command[] = [];
  #nextSeq = 1;
  /** Answered since the last frame. */
  #answered: number[] = [];

  /** Takes a command, unless the queue is full. */
  push(command: Command): boolean {
    if (command.urgent || !command.awaited) this.#urgent.push(command);
    else if (this.#queued.size < QUEUED_MAX) this.#queued.push(command);
    else return false;
    return true;
  }

  /** Whether a release, revocation or withdrawal has not been answered. */
  get hasUrgent(): boolean {
    for (const command of this.all()) if (command.urgent && !command.done) return true;
    return false;
  }

  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** Results of all commands below have arrived. */
  get ackedBelow(): number {
    for (const seq of this.#inFlight.keys()) return seq;
    return this.#nextSeq;
  }

  /**
   * Results of these have arrived as well, although `ackedBelow` does not say so: an acquire that waits for half a minute
   * must not make the server remember all that came after it. Each is returned once.
   */
  takeAckedAbove(): number[] {
    if (this.#answered.length === 0) return NONE;
    const { ackedBelow } = this;
    const above = this.#answered.filter((seq) => seq >= ackedBelow);
    this.#answered = [];
    return above;
  }

  /** The command that a result answers; undefined: none that is known. */
  take(seq: number): Command | undefined {
    const command = this.#inFlight.get(seq);
    if (command === undefined) return undefined;
    this.#inFlight.delete(seq);
    this.#answered.push(seq);
    return command;
  }

  /** Moves what fits into a frame in flight and returns it. Empty: there is nothing to send now. */
  next(nowMs: number, limits: OutboxLimits): WireCommand[] {
    const batch: WireCommand[] = [];
    let bytes = FRAME_OVERHEAD_BYTES;
    const fits = (command: Command): boolean => {
      bytes += command.bytesMax + COMMAND_OVERHEAD_BYTES;
      return batch.length === 0 || bytes <= limits.frameBytesMax;
    };
    const add = (command: Command): void => {
      command.onSend(nowMs);
      batch.push(command.wire);
    };
    let resent = 0;
    for (const command of this.#resend) {
      if (!fits(command)) break;
      add(command);
      resent += 1;
    }
    this.#resend.splice(0, resent);
    if (this.#resend.length > 0) return batch;
    this.#drain(this.#urgent, limits, fits, add);
    this.#drain(this.#queued, limits, fits, add);
    return batch;
  }

  #drain(
    queue: Fifo,
    limits: OutboxLimits,
    fits: (command: Command) => boolean,
    add: (command: Command) => void,
  ): void {
    const forWaiters = limits.inFlightMax - Math.max(1, limits.inFlightMax >> 3);
    for (let command = queue.peek(); command; command = queue.peek()) {
      if (!command.done) {
        if (this.#inFlight.size >= (command.waits ? forWaiters : limits.inFlightMax) || !fits(command)) return;
        command.wire.seq = this.#nextSeq++;
        this.#inFlight.set(command.wire.seq, command);
        add(command);
      }
      queue.shift();
    }
  }

  /** Whether anything waits to be sent. */
  get hasQueued(): boolean {
    return this.#urgent.size > 0 || this.#queued.size > 0 || this.#resend.length > 0;
  }

  /** The stream broke: forgets what the server will settle by itself and returns the sequence numbers of the rest. */
  disconnected(): void {
    for (const [seq, command] of this.#inFlight) if (!command.onDisconnect()) this.#inFlight.delete(seq);
    for (const queue of [this.#urgent, this.#queued]) queue.filter((command) => command.onDisconnect());
    this.#resend = [];
    // At the resumption the server forgets whatever is not named as outstanding.
    this.#answered = [];
  }

  /** The session resumes: what is in flight is sent again. Returns the sequence numbers. */
  resumed(): number[] {
    this.#resend = [...this.#inFlight.values()];
    return [...this.#inFlight.keys()];
  }

  /** The session is over: numbers start anew. Returns all commands that were on their way, in order. */
  reset(): Command[] {
    const all = [...this.all()];
    this.#inFlight = new ChurnMap();
    this.#resend = [];
    this.#answered = [];
    for (const queue of [this.#urgent, this.#queued]) queue.filter(() => false);
    this.#nextSeq = 1;
    for (const command of all) command.wire.seq = 0;
    return all;
  }

  /** Takes a command out that the server is not to hear of any more; only while there is no stream. */
  remove(command: Command): void {
    if (this.#inFlight.get(command.wire.seq) === command) this.#inFlight.delete(command.wire.seq);
  }

  /** Everything on its way; in flight first. */
  *all(): Generator<Command> {
    yield* this.#inFlight.values();
    yield* this.#urgent;
    yield* this.#queued;
  }
}
