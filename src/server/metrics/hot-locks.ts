/**
 * Which locks are granted most often, of late, in bounded memory: the space-saving sketch of Metwally, Agrawal and El
 * Abbadi ("Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005) with counts that decay.
 *
 * There is a fixed number of counters. A grant of a lock that has one raises it. Otherwise the smallest counter passes to
 * that lock and is raised: it then counts too much, by no more than what it had, and this is remembered as its error.
 * So count - error is what the lock was certainly granted since it has the counter; that is what is told.
 *
 * To decay all counts at every grant would cost too much. Instead later grants weigh more: a grant at t counts
 * e^((t - origin) / DECAY), and what is read is divided by the weight of now. From time to time the origin moves.
 *
 * Counters are kept in a heap, the smallest first. A grant allocates nothing unless a counter changes hands.
 */
import type { HotLock } from "../rpc/encode-views.js";

const COUNTERS = 256;
/** After this time a grant counts for 1/e of what it did. */
const DECAY_MS = 30_000;
/** Weights up to e^EXPONENT_MAX: far from the end of the numbers. */
const EXPONENT_MAX = 64;
/** Fewer grants than this, decayed, are no longer "of late": one that was made more than two minutes ago. */
const WEIGHT_MIN = 0.01;

export class HotLocks {
  /** Each lock that has a counter, and which. */
  readonly #counters = new Map<string, number>();
  readonly #names: string[] = [];
  readonly #counts = new Float64Array(COUNTERS);
  readonly #errors = new Float64Array(COUNTERS);
  /** Counters, the smallest first; and where each of them is. */
  readonly #heap = new Uint16Array(COUNTERS);
  readonly #places = new Uint16Array(COUNTERS);
  #originMs = 0;

  /** A lock was granted. `nowMs` never goes back. */
  granted(name: string, nowMs: number): void {
    const weight = this.#weight(nowMs);
    const counter = this.#counters.get(name) ?? this.#assign(name);
    this.#counts[counter]! += weight;
    this.#sink(this.#places[counter]!);
  }

  /** The hottest, first the one with the highest rate. A rate is never more than the true one. */
  hottest(limit: number, nowMs: number): HotLock[] {
    const weight = this.#weight(nowMs);
    const locks: HotLock[] = [];
    for (const [name, counter] of this.#counters) {
      const grants = (this.#counts[counter]! - this.#errors[counter]!) / weight;
      if (grants >= WEIGHT_MIN) locks.push({ name, grantsPerSecond: grants / (DECAY_MS / 1_000) });
    }
    return locks.sort((a, b) => b.grantsPerSecond - a.grantsPerSecond).slice(0, limit);
  }

  /** What a grant at this moment counts. */
  #weight(nowMs: number): number {
    const exponent = (nowMs - this.#originMs) / DECAY_MS;
    if (exponent <= EXPONENT_MAX) return Math.exp(exponent);
    const factor = Math.exp(-exponent);
    for (let counter = 0; counter < COUNTERS; counter++) {
      this.#counts[counter]! *= factor;
      this.#errors[counter]! *= factor;
    }
    this.#originMs = nowMs;
    return 1;
  }

  /** A counter that is still free, or the smallest. */
  #assign(name: string): number {
    const free = this.#names.length;
    if (free < COUNTERS) {
      this.#names.push(name);
      this.#counters.set(name, free);
      this.#rise(free);
      return free;
    }
    const smallest = this.#heap[0]!;
    this.#counters.delete(this.#names[smallest]!);
    this.#names[smallest] = name;
    this.#counters.set(name, smallest);
    this.#errors[smallest] = this.#counts[smallest]!;
    return smallest;
  }

  /** A new counter is zero, so it goes to the top; those above it make room. */
  #rise(counter: number): void {
    let place = counter;
    for (; place > 0; place = (place - 1) >> 1) this.#put(this.#heap[(place - 1) >> 1]!, place);
    this.#put(counter, 0);
  }

  /** The counter at `from` may have become larger than those below it. */
  #sink(from: number): void {
    const size = this.#names.length;
    const counter = this.#heap[from]!;
    const count = this.#counts[counter]!;
    let place = from;
    for (;;) {
      let child = 2 * place + 1;
      if (child + 1 < size && this.#countAt(child + 1) < this.#countAt(child)) child++;
      if (child >= size || count <= this.#countAt(child)) break;
      this.#put(this.#heap[child]!, place);
      place = child;
    }
    this.#put(counter, place);
  }

  #countAt(place: number): number {
    return this.#counts[this.#heap[place]!]!;
  }

  #put(counter: number, place: number): void {
    this.#heap[place] = counter;
    this.#places[counter] = place;
  }
}
