/**
 * How many requests a principal may make: a bucket that fills at a steady rate up to its size, and from which every request
 * takes one.
 *
 * Of a frame with more requests than there are in the bucket, the first ones pass. What cannot be divided passes when the
 * bucket is full, and leaves a debt; otherwise it would never pass. Over time nobody gets more than the rate.
 */

/** Sums of fractions are a little off. */
const ROUNDING = 1e-6;

/** A new connection costs a server as much as so many calls or more; measured with `npm run bench:fairness`. */
const CONNECTION_REQUESTS_MAX = 8;
/** So many in a second harm nobody. */
const CONNECTIONS_PER_SECOND_FREE = 25;

/** Frames without requests that one principal may send in a second at least, so many at once. */
const FREE_FRAMES_PER_SECOND = 1_000;
const FREE_FRAMES_AT_ONCE = 100;
/** So many renewals cost as much as a frame. */
const RENEWALS_PER_FRAME = 50;

/** The pace of what is free of charge. */
export class FreeRate {
  readonly #rate: RequestRate;

  constructor(nowMs: number) {
    this.#rate = new RequestRate(FREE_FRAMES_AT_ONCE, nowMs);
  }

  /** Until when to wait, in ms, after a frame that has brought so many renewals. `perSecond`: requests. */
  take(renewals: number, perSecond: number, nowMs: number): number {
    const most = Math.max(FREE_FRAMES_PER_SECOND, perSecond);
    return this.#rate.take(1 + renewals / RENEWALS_PER_FRAME, most, FREE_FRAMES_AT_ONCE, nowMs);
  }
}

/** As how many requests a new connection counts: where the rate is low, as no more than its first call does. */
export function connectionRequests(perSecond: number): number {
  return Math.max(1, Math.min(CONNECTION_REQUESTS_MAX, Math.floor(perSecond / CONNECTIONS_PER_SECOND_FREE)));
}

export class RequestRate {
  /** Below zero: a debt. */
  #left: number;
  #atMs: number;

  /** A full bucket. `nowMs` is of a clock that does not go back. */
  constructor(burst: number, nowMs: number) {
    this.#left = burst;
    this.#atMs = nowMs;
  }

  /** Takes `requests` and returns 0; or takes nothing and returns after how many ms to ask again. */
  take(requests: number, perSecond: number, burst: number, nowMs: number): number {
    const size = this.#fill(perSecond, burst, nowMs);
    const needed = Math.min(requests, size);
    if (this.#left >= needed - ROUNDING) {
      this.#left -= requests;
      return 0;
    }
    return this.#waitMs(needed, perSecond);
  }

  /** Takes as many of `requests` as there are. `waitMs`: when to ask again for the others; 0: there are no others. */
  takeSome(requests: number, perSecond: number, burst: number, nowMs: number): { taken: number; waitMs: number } {
    const size = this.#fill(perSecond, burst, nowMs);
    const taken = Math.max(0, Math.min(requests, Math.floor(this.#left + ROUNDING)));
    this.#left -= taken;
    const others = requests - taken;
    return { taken, waitMs: others === 0 ? 0 : this.#waitMs(Math.min(others, size), perSecond) };
  }

  /** Takes `requests`, whether they are there or not; what is owed is never more than the burst. */
  owe(requests: number, perSecond: number, burst: number, nowMs: number): void {
    const size = this.#fill(perSecond, burst, nowMs);
    this.#left = Math.max(this.#left - requests, Math.min(this.#left, -size));
  }

  /** Returns its size. */
  #fill(perSecond: number, burst: number, nowMs: number): number {
    const size = Math.max(1, burst);
    this.#left = Math.min(size, this.#left + ((nowMs - this.#atMs) * perSecond) / 1_000);
    this.#atMs = nowMs;
    return size;
  }

  #waitMs(needed: number, perSecond: number): number {
    return Math.max(1, Math.ceil(((needed - this.#left) * 1_000) / perSecond));
  }

  /** Whether a new one would be no different. */
  isFull(perSecond: number, burst: number, nowMs: number): boolean {
    return this.#left + ((nowMs - this.#atMs) * perSecond) / 1_000 >= Math.max(1, burst);
  }
}
