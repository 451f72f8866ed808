/** A clock that stands still until the test moves it. */
import type { Timing } from "../../src/fence/messages/timing.js";

export class ManualTiming implements Timing {
  #nowMs = 0;
  readonly #timers = new Set<{ atMs: number; call: () => void }>();

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, call: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, call };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** How long until each timer, the next one first. */
  get pending(): number[] {
    return [...this.#timers].map(({ atMs }) => atMs - this.#nowMs).sort((a, b) => a - b);
  }

  /** Moves the clock, calls what is due on the way, and lets promises settle. */
  async advance(ms: number): Promise<void> {
    await settled(); // what was begun may set timers
    const untilMs = this.#nowMs + ms;
    for (;;) {
      const due = [...this.#timers].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (!due) break;
      this.#nowMs = due.atMs;
      this.#timers.delete(due);
      due.call();
      await settled();
    }
    this.#nowMs = untilMs;
    await settled();
  }
}

/** Resolves when all promises that need nothing from outside have had their turn. */
export const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
