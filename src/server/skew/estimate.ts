/**
 * By how much one client's wall clock differs from the server's, from what its renewals say of it.
 *
 * The client writes its wall clock into a frame; the server notes when the frame arrives. The difference is the offset of
 * the clocks less the time that the frame was on its way, and nobody can measure one way alone. The naive estimate, the
 * difference as it is, fails like this:
 *
 *     client  12:00:00 writes its clock into a frame
 *     server  stands still for 30 s: a full disk, a stopped process
 *     server  12:00:30 reads the frame: "the client is 30 s behind", although both clocks are right
 *
 * So each reading gives bounds instead of a number. A frame cannot arrive before it was sent: the client's clock is ahead
 * by the difference at least. And it was on its way for no longer than the whole round trip, which the client measures on
 * a clock that does not jump, and tells with a later frame: the client's clock is ahead by the difference plus the round
 * trip at most. A stall, of the network or of either process, is part of the round trip and makes the bounds wide, never
 * wrong.
 *
 * What is known is the intersection of the bounds of all readings, so that the quickest round trip decides. That is the
 * idea of NTP's clock filter (RFC 5905, section 10), which of the last eight readings trusts the one with the shortest
 * delay, and of its selection by intersection (section 11.2.1). Two clocks drift apart, so what is known widens with time,
 * as NTP's dispersion does. When the bounds of a reading exclude what is known, the client's clock has been set: what was
 * known is dropped. A step that is smaller than the bounds are wide is noticed when narrower ones come.
 *
 * A client that tells no round trips is believed to have taken no more than 10 s. The server at least knows its own
 * stalls: what it reads just after one says nothing about how long it took.
 *
 * The server's side of all this is its monotonic clock. Its wall clock is looked at when somebody asks: when that clock is
 * set, all clients are at once seen to be off by the same amount, which is what has happened.
 *
 * Pure: time comes as an argument. One reading costs a few additions, and no memory.
 */

/** Longer round trips are not believed, and unmeasured ones are believed to be no longer. */
export const ROUND_TRIP_MS_MAX = 10_000;
/** How fast two clocks may drift apart: NTP slews a clock by no more. */
const DRIFT = 500e-6;
/** Wall clocks are read in whole milliseconds, rounded down. */
const ROUNDING_MS = 1;

/** The offset of a client's wall clock at some moment; positive: it is ahead of the server's. */
export interface ClockOffset {
  readonly offsetMs: number;
  /** The true offset differs by no more. Infinite: the client does not tell how long its frames take. */
  readonly errorMs: number;
  /** The clock is certainly off by so much, in the one direction or the other. */
  readonly certainMs: number;
  /** Since the last reading. */
  readonly agoMs: number;
}

/** All times are in milliseconds; those of the server on its monotonic clock. */
export class ClockEstimate {
  /** The client's wall clock less the server's monotonic clock is between these two, as of `#atMs`. */
  #lowMs = Number.NEGATIVE_INFINITY;
  #highMs = Number.POSITIVE_INFINITY;
  #atMs = 0;
  /** The upper bound comes from a round trip, and is not assumed. */
  #measured = false;
  /** The client tells its round trips: there is no need to assume any. */
  #tellsRoundTrips = false;
  /** The last reading. */
  #readFrame = 0;
  #readMs = 0;
  #readAtMs = Number.NEGATIVE_INFINITY;

  /** Whether there has been a reading. */
  get known(): boolean {
    return this.#readAtMs > Number.NEGATIVE_INFINITY;
  }

  /**
   * The client's wall clock said `wallClockMs` before its frame `frame` left, which arrived at `arrivedAtMs`. `onTime`:
   * the server has not stalled just before.
   */
  reading(wallClockMs: number, frame: number, arrivedAtMs: number, onTime: boolean): void {
    const lowMs = wallClockMs - arrivedAtMs;
    this.#widenTo(arrivedAtMs);
    this.#readFrame = frame;
    this.#readMs = lowMs;
    this.#readAtMs = arrivedAtMs;
    if (lowMs > this.#highMs) {
      this.#highMs = Number.POSITIVE_INFINITY; // the clock was set forward; how far is known with the round trip
      this.#lowMs = lowMs;
      this.#measured = false;
    } else if (lowMs > this.#lowMs) this.#lowMs = lowMs;
    if (!this.#tellsRoundTrips && onTime) this.#take(lowMs, lowMs + ROUNDING_MS + ROUND_TRIP_MS_MAX);
  }

  /** The client tells at `nowMs` how long its frame `frame` took. To be called before a `reading` of the same moment. */
  roundTrip(frame: number, roundTripMs: number, nowMs: number): void {
    if (!this.#tellsRoundTrips) this.#highMs = Number.POSITIVE_INFINITY; // what was assumed is not needed any more
    this.#tellsRoundTrips = true;
    if (frame !== this.#readFrame || !this.known || roundTripMs > ROUND_TRIP_MS_MAX) return;
    // Since the client looked at its clock: also while the frame was on its way.
    const driftMs = (nowMs - this.#readAtMs + roundTripMs) * DRIFT;
    this.#widenTo(nowMs);
    this.#take(this.#readMs - driftMs, this.#readMs + ROUNDING_MS + roundTripMs + driftMs);
    this.#measured = true;
  }

  /** What is known at `nowMs` on the server's monotonic clock, when its wall clock says `wallMs`. */
  at(nowMs: number, wallMs: number): ClockOffset {
    const driftMs = (nowMs - this.#atMs) * DRIFT;
    const sinceMs = wallMs - nowMs;
    const lowMs = this.#lowMs - driftMs - sinceMs - ROUNDING_MS;
    const highMs = this.#highMs + driftMs - sinceMs;
    const certainMs = Math.max(0, lowMs, -highMs);
    const agoMs = Math.max(0, nowMs - this.#readAtMs);
    if (this.#measured) return { offsetMs: (lowMs + highMs) / 2, errorMs: (highMs - lowMs) / 2, certainMs, agoMs };
    // Most frames are quick, so the lower bound is the better guess.
    return { offsetMs: this.#lowMs - sinceMs, errorMs: Number.POSITIVE_INFINITY, certainMs, agoMs };
  }

  #widenTo(nowMs: number): void {
    const driftMs = Math.max(0, nowMs - this.#atMs) * DRIFT;
    this.#lowMs -= driftMs;
    this.#highMs += driftMs;
    this.#atMs = nowMs;
  }

  /** The truth is between these as well; if that cannot be, the clock was set. */
  #take(lowMs: number, highMs: number): void {
    if (lowMs > this.#highMs || highMs < this.#lowMs) {
      this.#lowMs = lowMs;
      this.#highMs = highMs;
      return;
    }
    if (lowMs > this.#lowMs) this.#lowMs = lowMs;
    if (highMs < this.#highMs) this.#highMs = highMs;
  }
}
