/**
 * The last events, for watchers that come back: a ring, bounded in entries and in bytes.
 *
 * It is complete behind `base`: whoever has seen everything up to a timestamp that is not below it can be told the rest
 * from here. It is not stored: a restart makes it begin anew at the timestamp with which the state was recovered.
 */
import type { LockEvent } from "../core/types.js";
import { entryBytes } from "./entry.js";

export class History {
  readonly #eventsMax: number;
  readonly #bytesMax: number;
  /** The entry number n is at n modulo the bound; the entries from `first` to before `end` are there. */
  readonly #ring: (LockEvent | undefined)[] = [];
  #first = 0;
  #end = 0;
  #bytes = 0;
  #base = 0;

  constructor(eventsMax: number, bytesMax: number) {
    this.#eventsMax = eventsMax;
    this.#bytesMax = bytesMax;
  }

  /** Every event with a greater timestamp that has happened is in here. */
  get base(): number {
    return this.#base;
  }

  get size(): number {
    return this.#end - this.#first;
  }

  add(event: LockEvent): void {
    if (this.#eventsMax === 0) {
      this.#base = event.timestamp;
      return;
    }
    if (this.size >= this.#eventsMax) this.#dropFirst();
    this.#ring[this.#end % this.#eventsMax] = event;
    this.#end++;
    this.#bytes += entryBytes(event);
    while (this.#bytes > this.#bytesMax && this.size > 0) this.#dropFirst();
  }

  /** Forgets everything; what comes is greater than `base`. */
  restart(base: number): void {
    this.#ring.length = 0;
    this.#first = 0;
    this.#end = 0;
    this.#bytes = 0;
    this.#base = base;
  }

  /**
   * Shows the events behind `after`, which must not be below `base`: about `count` of them, and always all of one
   * timestamp. Returns the timestamp of the last one, or null when there are no more.
   */
  read(after: number, count: number, see: (event: LockEvent) => void): number | null {
    const start = this.#find(after);
    let last = after;
    for (let n = start; n < this.#end; n++) {
      const event = this.#at(n);
      if (n - start >= count && event.timestamp !== last) return last;
      see(event);
      last = event.timestamp;
    }
    return null;
  }

  /** The number of the first entry with a timestamp greater than `after`. */
  #find(after: number): number {
    let low = this.#first;
    let high = this.#end;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.#at(middle).timestamp <= after) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #at(n: number): LockEvent {
    return this.#ring[n % this.#eventsMax] as LockEvent;
  }

  #dropFirst(): void {
    const event = this.#at(this.#first);
    this.#ring[this.#first % this.#eventsMax] = undefined;
    this.#first++;
    this.#bytes -= entryBytes(event);
    this.#base = event.timestamp;
  }
}
