import type { Timer, TimeSource } from "./elapsed.js";

/**
 * One timer for many deadlines: whoever has one says so, and `onAlarm` looks through all of them when the earliest is
 * due. Deadlines that went away in the meantime cost one needless look, not a timer each.
 */
export class Alarm {
  readonly #time: TimeSource;
  readonly #onAlarm: () => void;
  #atMs = Number.POSITIVE_INFINITY;
  #timer: Timer | null = null;

  constructor(time: TimeSource, onAlarm: () => void) {
    this.#time = time;
    this.#onAlarm = onAlarm;
  }

  /** Makes sure that it rings at `atMs` or before. */
  by(atMs: number): void {
    if (atMs >= this.#atMs) return;
    this.#timer?.cancel();
    this.#atMs = atMs;
    this.#timer = this.#time.setTimer(atMs - this.#time.nowMs(), () => {
      this.#timer = null;
      this.#atMs = Number.POSITIVE_INFINITY;
      this.#onAlarm();
    });
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
    this.#atMs = Number.POSITIVE_INFINITY;
  }
}
