/**
 * When to renew. One flag in a frame renews all leases of the session, so it is enough to know when frames with that flag
 * were sent and which of them were answered.
 *
 * The server suggests when to renew next, and is followed between a sixth and half of the smallest TTL after the last
 * renewal was sent; if it does not, that is a third. A frame that goes out anyway takes a renewal along from a sixth of
 * that TTL on. One that is not answered is repeated soon. When none was answered for a third of the TTL, or less if the
 * server's suggestion has left less, the stream is taken for dead: another connection may fare better, and there is
 * still time for it.
 */

/** Bounds what is remembered of frames that were never answered. */
const UNANSWERED_MAX = 64;
/** A stream is not taken for dead sooner. */
const PATIENCE_MS_MIN = 500;

export class Renewals {
  #sentAtMs = Number.NEGATIVE_INFINITY;
  #unansweredSinceMs = Number.POSITIVE_INFINITY;
  /** When the last frame was sent that was answered. */
  #answeredSentAtMs = Number.NEGATIVE_INFINITY;
  /** When the server wants the next renewal; undefined: it has not said. */
  #wantedAtMs: number | undefined;
  /** Send times by number of frame, on the present stream. */
  readonly #sends = new Map<number, number>();

  /** A new stream: frames are numbered anew, and a renewal is due. */
  reset(): void {
    this.#sentAtMs = Number.NEGATIVE_INFINITY;
    this.#unansweredSinceMs = Number.POSITIVE_INFINITY;
    this.#answeredSentAtMs = Number.NEGATIVE_INFINITY;
    this.#wantedAtMs = undefined;
    this.#sends.clear();
  }

  /** The first lease is being created, which is as good as a renewal. */
  created(nowMs: number): void {
    this.#sentAtMs = Math.max(this.#sentAtMs, nowMs);
  }

  /** A frame that renews all leases, or reports progress of some, which renews these. */
  sent(frame: number, nowMs: number, renewsAll: boolean): void {
    if (renewsAll) {
      this.#sentAtMs = nowMs;
      this.#wantedAtMs = undefined;
    }
    if (this.#unansweredSinceMs > nowMs) this.#unansweredSinceMs = nowMs;
    this.#sends.set(frame, nowMs);
    if (this.#sends.size > UNANSWERED_MAX) this.#forgetBelow(this.#sends.keys().next().value! + 1);
  }

  /** When the frame was sent that a renewal answers; undefined if that is not known: then it proves nothing. */
  answered(frame: number): number | undefined {
    const sentAtMs = this.#sends.get(frame);
    if (sentAtMs !== undefined) {
      this.#forgetBelow(frame);
      this.#answeredSentAtMs = sentAtMs;
    }
    this.#unansweredSinceMs = Number.POSITIVE_INFINITY;
    for (const [other, atMs] of this.#sends)
      if (other > frame) this.#unansweredSinceMs = Math.min(this.#unansweredSinceMs, atMs);
    return sentAtMs;
  }

  /** The server wants the next renewal at this time; the earliest that it says for any lease counts. */
  wanted(atMs: number): void {
    this.#wantedAtMs = Math.min(atMs, this.#wantedAtMs ?? Number.POSITIVE_INFINITY);
  }

  #forgetBelow(frame: number): void {
    for (const other of this.#sends.keys()) {
      if (other >= frame) return;
      this.#sends.delete(other);
    }
  }

  /** Whether a frame that goes out now should renew. */
  rides(nowMs: number, ttlMs: number): boolean {
    return nowMs - this.#sentAtMs >= ttlMs / 6;
  }

  /** When a frame must go out for it. */
  dueAtMs(ttlMs: number): number {
    const waits = this.#unansweredSinceMs < Number.POSITIVE_INFINITY;
    return this.#sentAtMs + (waits ? Math.max(100, ttlMs / 10) : this.#paceMs(ttlMs));
  }

  /** Between two renewals. With a short TTL there is no room for more than a third. */
  #paceMs(ttlMs: number): number {
    if (this.#wantedAtMs === undefined) return ttlMs / 3;
    const longestMs = Math.max(ttlMs / 3, Math.min(ttlMs / 2, (ttlMs * 5) / 6 - PATIENCE_MS_MIN));
    return Math.min(Math.max(this.#wantedAtMs - this.#sentAtMs, ttlMs / 6), longestMs);
  }

  /** When the stream is to be given up unless an answer comes. */
  deadAtMs(ttlMs: number): number {
    const since = this.#unansweredSinceMs;
    const leftMs = (ttlMs * 2) / 3 - (since - this.#answeredSentAtMs);
    // On a stream on which nothing was answered yet there is no telling what is left.
    const patienceMs = leftMs > 0 ? Math.min(Math.max(leftMs, ttlMs / 6), ttlMs / 3) : ttlMs / 3;
    return since + Math.max(PATIENCE_MS_MIN, patienceMs);
  }
}
