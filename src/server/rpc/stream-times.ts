/**
 * How long the commands of one stream take, from the arrival of their frame to their result, for metrics.
 *
 * The clock is read once for a frame, and once for the results of a batch. Commands that are not answered are kept in a
 * ring, by their numbers, which rise: an array's element is cheaper than a map's entry, and most commands are answered
 * long before the ring comes round. One that still waits then, for a lock, moves to a map. So a stream has a small ring
 * and an entry for each command that waits for long.
 */
import type { Outcome } from "../core/types.js";
import { type Rpc, rpcOfRequest } from "../metrics/definitions.js";
import type { WireFailure } from "./errors.js";
import type { BatchFrame } from "./frames.js";

/** A command was answered; "OK" when it was not refused. */
export type OnResult = (rpc: Rpc, reason: WireFailure["reason"] | "OK", durationMs: number) => void;

/** Stands for Hello: commands are numbered from 1. */
export const HELLO_SEQ = 0;

/** Commands of one frame that ask for the same thing share it. */
interface Pending {
  readonly rpc: Rpc;
  readonly arrivedMs: number;
}

/** Powers of two. The ring of a stream with few commands stays small. */
const RING_MIN = 16;
const RING_MAX = 512;

export class StreamTimes {
  readonly #onResult: OnResult | undefined;
  readonly #waitingMax: number;
  /** The command with the number s is at s modulo the size. */
  #seqs = new Float64Array(RING_MIN).fill(-1);
  #pending = new Array<Pending | undefined>(RING_MIN).fill(undefined);
  readonly #waiting = new Map<number, Pending>();
  /** When the results of this batch are given; 0: the clock has not been read for it. */
  #nowMs = 0;

  /** `waitingMax`: of more that wait for long, some are not measured. */
  constructor(onResult: OnResult | undefined, waitingMax: number) {
    this.#onResult = onResult;
    this.#waitingMax = waitingMax;
  }

  hello(): void {
    this.#put(HELLO_SEQ, { rpc: "Attach", arrivedMs: performance.now() });
  }

  begin(requests: BatchFrame["requests"]): void {
    if (this.#onResult === undefined || requests.length === 0) return;
    const arrivedMs = performance.now();
    let pending: Pending | undefined;
    for (const { seq, request } of requests) {
      const rpc = rpcOfRequest(request);
      if (pending?.rpc !== rpc) pending = { rpc, arrivedMs };
      this.#put(seq, pending);
    }
  }

  answered(seq: number, outcome: Outcome): void {
    this.#ended(seq, outcome.kind === "refused" ? outcome.reason : "OK");
  }

  /** The server took none of these. */
  notTaken(requests: BatchFrame["requests"], reason: WireFailure["reason"]): void {
    for (const { seq } of requests) this.#ended(seq, reason);
  }

  /** The results so far are written. */
  flushed(): void {
    this.#nowMs = 0;
  }

  #put(seq: number, pending: Pending): void {
    let place = seq & (this.#seqs.length - 1);
    while (this.#pending[place] !== undefined && this.#seqs.length < RING_MAX) {
      this.#grow();
      place = seq & (this.#seqs.length - 1);
    }
    const before = this.#pending[place];
    if (before !== undefined && this.#waiting.size < this.#waitingMax) this.#waiting.set(this.#seqs[place]!, before);
    this.#seqs[place] = seq;
    this.#pending[place] = pending;
  }

  /** Those that were at different places stay so: the new size is a multiple of the old one. */
  #grow(): void {
    const [seqs, pending] = [this.#seqs, this.#pending];
    this.#seqs = new Float64Array(2 * seqs.length).fill(-1);
    this.#pending = new Array<Pending | undefined>(2 * seqs.length).fill(undefined);
    for (let i = 0; i < seqs.length; i++) {
      const place = seqs[i]! & (this.#seqs.length - 1);
      if (pending[i] === undefined) continue;
      this.#seqs[place] = seqs[i]!;
      this.#pending[place] = pending[i];
    }
  }

  #ended(seq: number, reason: WireFailure["reason"] | "OK"): void {
    const pending = this.#take(seq);
    if (pending === undefined) return; // of a stream before this one
    if (this.#nowMs === 0) this.#nowMs = performance.now();
    this.#onResult?.(pending.rpc, reason, this.#nowMs - pending.arrivedMs);
  }

  #take(seq: number): Pending | undefined {
    const place = seq & (this.#seqs.length - 1);
    if (this.#seqs[place] === seq) {
      const pending = this.#pending[place];
      this.#pending[place] = undefined;
      return pending;
    }
    if (this.#waiting.size === 0) return undefined;
    const pending = this.#waiting.get(seq);
    this.#waiting.delete(seq);
    return pending;
  }
}
