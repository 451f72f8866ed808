/**
 * How late the event loop is: a timer that should fire every 50 ms tells by how much it was missed. One sample costs
 * about a microsecond, and a loop that was stopped for a second shows up as one sample of a second.
 */
import { performance } from "node:perf_hooks";

const PERIOD_MS = 50;
/** How much of the smoothed lag is the latest sample: what lasts for half a second counts. */
const SMOOTHING = 0.1;

export class LoopLag {
  readonly #report: (lagSeconds: number) => void;
  #timer: NodeJS.Timeout | undefined;
  #dueMs = 0;
  #smoothedSeconds = 0;

  constructor(report: (lagSeconds: number) => void) {
    this.#report = report;
  }

  /** The lag of late, without its single spikes. */
  get smoothedSeconds(): number {
    return this.#smoothedSeconds;
  }

  /** Does not keep the process alive. */
  start(): void {
    if (this.#timer) return;
    this.#dueMs = performance.now() + PERIOD_MS;
    this.#timer = setInterval(() => this.sample(performance.now()), PERIOD_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** The timer fired at `nowMs`. */
  sample(nowMs: number): void {
    const lateMs = nowMs - this.#dueMs;
    // Node's timers may be a millisecond early.
    const lagSeconds = lateMs > 0 ? lateMs / 1_000 : 0;
    this.#smoothedSeconds += (lagSeconds - this.#smoothedSeconds) * SMOOTHING;
    this.#report(lagSeconds);
    this.#dueMs = nowMs + PERIOD_MS;
  }
}
