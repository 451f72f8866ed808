/**
 * What a client may believe about a lease, and about the maximum hold of a lock.
 *
 * The server says how much time remains and which frame of the client's it answers. The time counts from the moment that
 * frame was SENT: the server cannot have started to count before. From the end so computed a margin is taken, for clocks
 * that run at different speeds and for the time between a look at the clock and what follows from it.
 *
 * The state is computed when it is asked for. A process that wakes from a stall finds its belief ended, whether or not
 * any timer has run, and a belief that has ended stays so: an answer that arrives too late does not revive it, since
 * somebody may have acted on the loss.
 */

/** Milliseconds by which the client stops believing earlier than the server's word: at least 100, else 1% of the TTL. */
export function marginMs(ttlMs: number): number {
  return Math.max(100, ttlMs / 100);
}

export class Belief {
  /** How long the lease lives after a renewal: its TTL, or how often it wants progress if that is shorter. */
  readonly ttlMs: number;
  #deadlineMs: number;
  #over = false;

  /** A lease of which the server says, in answer to a frame sent at `sentAtMs`, that `remainingMs` remain. */
  constructor(ttlMs: number, sentAtMs: number, remainingMs: number) {
    this.ttlMs = ttlMs;
    this.#deadlineMs = sentAtMs + remainingMs - marginMs(ttlMs);
  }

  /** When the belief ends unless it is confirmed again. */
  get deadlineMs(): number {
    return this.#deadlineMs;
  }

  /** When two thirds of the TTL have passed without a confirmation. */
  get jeopardyAtMs(): number {
    return this.#deadlineMs + marginMs(this.ttlMs) - this.ttlMs / 3;
  }

  /** Takes a confirmation. Returns false if it came too late: then the belief is over. An older one changes nothing. */
  confirm(sentAtMs: number, remainingMs: number, nowMs: number): boolean {
    if (this.at(nowMs) === "lost") return false;
    this.#deadlineMs = Math.max(this.#deadlineMs, sentAtMs + remainingMs - marginMs(this.ttlMs));
    return true;
  }

  at(nowMs: number): "held" | "jeopardy" | "lost" {
    if (this.#over || nowMs >= this.#deadlineMs) {
      this.#over = true;
      return "lost";
    }
    return nowMs >= this.jeopardyAtMs ? "jeopardy" : "held";
  }

  /** Milliseconds for which the client may go on believing; 0 if it is over. */
  remainingMs(nowMs: number): number {
    return this.at(nowMs) === "lost" ? 0 : this.#deadlineMs - nowMs;
  }
}

/** The longest time before the end of a maximum hold at which the holder is told that the end comes. */
const YIELD_MS_MAX = 30_000;

/** The end of a maximum hold, as far as the client may believe. Nothing moves it. */
export class HoldLimit {
  readonly deadlineMs: number;
  /** When a fifth of it is left: time to come to an end. */
  readonly yieldAtMs: number;

  /** A hold of at most `maxHoldMs`, of which `remainingMs` remained when a frame sent at `sentAtMs` was answered. */
  constructor(maxHoldMs: number, sentAtMs: number, remainingMs: number) {
    this.deadlineMs = sentAtMs + remainingMs - marginMs(remainingMs);
    this.yieldAtMs = this.deadlineMs - Math.min(maxHoldMs / 5, YIELD_MS_MAX);
  }

  /** Milliseconds for which the lock may still be held; 0 if it is over. */
  remainingMs(nowMs: number): number {
    return Math.max(0, this.deadlineMs - nowMs);
  }
}
