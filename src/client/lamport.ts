/**
 * Lamport timestamps: numbers that respect cause and effect. Whatever happened before something else, as far as anybody
 * can tell from messages that were exchanged, has the lower number; no wall clock is involved.
 */
import { type HeaderCarrier, type ReceivedHeaders, readHeader, writeHeader } from "./carrier.js";
import { show } from "./duration.js";
import { invalid } from "./errors.js";

/** The header that carries a timestamp from one process to another. */
export const TIMESTAMP_HEADER = "lamport-timestamp";

/** The longest header that is looked at; 2^53 - 1 has 16 digits. */
const HEADER_BYTES_MAX = 64;

/** This process's Lamport clock. It also follows every answer of the server's. */
export interface Clock {
  /** The highest timestamp that this process has seen or made; 0 at first. */
  now(): number;
  /** A timestamp for an event of this process, higher than all before. Not unique among processes: see `range`. */
  tick(): number;
  /** Takes note of a timestamp that came with a message and returns the one of its receipt, which is higher. Throws INVALID. */
  observe(timestamp: number): number;
  /**
   * `count` timestamps of the server's, from 1 to 1,000,000, which nobody else gets: first, first + 1, …, last.
   * Rejects INVALID, CLOCK_JUMP (something observed is further ahead of the server than it follows), UNREACHABLE.
   *
   * @example
   * const { first, last } = await client.clock.range(3);
   */
  range(count: number): Promise<{ first: number; last: number }>;
  /**
   * Ticks, and puts the timestamp into the header `lamport-timestamp` of a message to be sent. Returns the headers.
   *
   * @example
   * channel.publish("orders", "created", body, { headers: client.clock.inject({}) });
   */
  inject<H extends HeaderCarrier>(headers: H): H;
  /**
   * Observes the header of a received message and returns the timestamp of the receipt; undefined if there is none.
   * Throws INVALID for a header that is no timestamp.
   */
  extract(headers: ReceivedHeaders): number | undefined;
}

export class LamportClock implements Clock {
  readonly #range: (count: number) => Promise<{ first: number; last: number }>;
  #last = 0;

  constructor(range: (count: number) => Promise<{ first: number; last: number }>) {
    this.#range = range;
  }

  now(): number {
    return this.#last;
  }

  tick(): number {
    if (this.#last >= Number.MAX_SAFE_INTEGER) throw invalid("the Lamport clock is at its end");
    this.#last += 1;
    return this.#last;
  }

  observe(timestamp: number): number {
    // The last safe integer itself would leave no number for the receipt.
    if (!Number.isSafeInteger(timestamp) || timestamp < 0 || timestamp === Number.MAX_SAFE_INTEGER) {
      throw invalid(`${show(timestamp)} is no Lamport timestamp: a whole number from 0 to 2^53 - 2`);
    }
    if (timestamp > this.#last) this.#last = timestamp;
    return this.tick();
  }

  /** A timestamp of the server's. */
  merge(timestamp: number): void {
    if (timestamp > this.#last) this.#last = timestamp;
  }

  range(count: number): Promise<{ first: number; last: number }> {
    if (!Number.isSafeInteger(count) || count < 1 || count > 1_000_000) {
      return Promise.reject(invalid(`the count must be a whole number from 1 to 1,000,000, not ${show(count)}`));
    }
    return this.#range(count);
  }

  inject<H extends HeaderCarrier>(headers: H): H {
    return writeHeader(headers, TIMESTAMP_HEADER, String(this.tick()));
  }

  extract(headers: ReceivedHeaders): number | undefined {
    const value = readHeader(headers, TIMESTAMP_HEADER, HEADER_BYTES_MAX);
    if (value === undefined) return undefined;
    if (!/^\d{1,16}$/.test(value)) {
      throw invalid(`the header ${TIMESTAMP_HEADER} is ${show(value)}, which is no Lamport timestamp`);
    }
    return this.observe(Number(value));
  }
}
