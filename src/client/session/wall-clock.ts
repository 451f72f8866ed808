/**
 * What the client tells the server of its wall clock, so that people may see whose clock is off. This is the only place of
 * the client that reads a wall clock, and nothing here comes back: no belief, no deadline and no order depends on it.
 *
 * Along with the clock goes how long the last frame that told it took, there and back, by the clock that does not jump:
 * without that the server could not tell a clock that is behind from a frame that was late.
 */
import type { leasehold } from "../wire/index.js";

type Fields = Pick<leasehold.v1.AttachRequest.$Properties, "wallClockMs" | "roundTripMs" | "roundTripFrame">;

const NOTHING: Fields = {};

export class WallClock {
  /** The last frame on this stream that told the clock, until it is answered. */
  #frame = 0;
  #sentAtMs = 0;
  /** How long the one before took, until it has been told. */
  #answered: Fields = NOTHING;

  /** A new stream: frames are numbered anew. */
  reset(): void {
    this.#frame = 0;
    this.#answered = NOTHING;
  }

  /**
   * The fields of a frame that is about to leave. `sentAtMs`: the elapsed time, read before. `tell`: the clock as well;
   * what is known of a round trip goes along in any case.
   */
  fields(frame: number, sentAtMs: number, tell: boolean): Fields {
    const answered = this.#answered;
    this.#answered = NOTHING;
    if (!tell) return answered;
    this.#frame = frame;
    this.#sentAtMs = sentAtMs;
    // Before 1970 it is not told: the field holds no negative numbers.
    return { ...answered, wallClockMs: Math.max(0, Date.now()) };
  }

  /** The server has answered the frame `echo`, and with it those before. */
  heard(echo: number, nowMs: number): void {
    if (this.#frame === 0 || echo < this.#frame) return;
    const roundTripMs = Math.max(1, Math.ceil(nowMs - this.#sentAtMs));
    this.#answered = { roundTripMs, roundTripFrame: this.#frame };
    this.#frame = 0;
  }
}
