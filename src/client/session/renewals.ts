/**
 * When to renew. One flag in a frame renews all leases of the session, so it is enough to know when frames with that flag
 * were sent and which of them were answered.
 *
 * A renewal is due when a third of the smallest TTL has passed since the last one was sent; a frame that goes out anyway
 * takes it along from half of that time on. One that is not answered is repeated soon. When for a third of the TTL none
 * was answered, the stream is taken for dead: another connection may fare better, and there is still time for it.
 */

/** Bounds what is remembered of frames that were never answered. */
const UNANSWERED_MAX = 64;

export class Renewals {
  #sentAtMs = Number.NEGATIVE_INFINITY;
  #unansweredSinceMs = Number.POSITIVE_INFINITY;
  /** Send times by number of frame, on the present stream. */
  readonly #sends = new Map<number, number>();

  /** A new stream: frames are numbered anew, and a renewal is due. */
  reset(): void {
    this.#sentAtMs = Number.NEGATIVE_INFINITY;
    this.#unansweredSinceMs = Number.POSITIVE_INFINITY;
    this.#sends.clear();
  }

  /** The first lease is being created, which is as good as a renewal. */
  created(nowMs: number): void {
    this.#sentAtMs = Math.max(this.#sentAtMs, nowMs);
  }

  sent(frame: number, nowMs: number): void {
    this.#sentAtMs = nowMs;
    if (this.#unansweredSinceMs > nowMs) this.#unansweredSinceMs = nowMs;
    this.#sends.set(frame, nowMs);
    if (this.#sends.size > UNANSWERED_MAX) this.#forgetBelow(this.#sends.keys().next().value! + 1);
  }

  /** When the frame was sent that a renewal answers; undefined if that is not known: then it proves nothing. */
  answered(frame: number): number | undefined {
    const sentAtMs = this.#sends.get(frame);
    if (sentAtMs !== undefined) this.#forgetBelow(frame);
    this.#unansweredSinceMs = Number.POSITIVE_INFINITY;
    for (const [other, atMs] of this.#sends)
      if (other > frame) this.#unansweredSinceMs = Math.min(this.#unansweredSinceMs, atMs);
    return sentAtMs;
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
    return this.#sentAtMs + (waits ? Math.max(100, ttlMs / 10) : ttlMs / 3);
  }

  /** When the stream is to be given up unless an answer comes. */
  deadAtMs(ttlMs: number): number {
    return this.#unansweredSinceMs + Math.max(500, ttlMs / 3);
  }
}
