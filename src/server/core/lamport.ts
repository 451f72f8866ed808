/**
 * The Lamport clock.
 *
 * Timestamps may be told to clients without a write of their own: a ceiling far ahead is made durable before the clock
 * passes it, and a restart continues from the ceiling. What clients report to have observed may push the clock forward,
 * but only within a budget per second that all of them share: otherwise one absurd value would use up the number range
 * for everybody, and it can never be taken back.
 */

/** How far ahead of the clock the ceiling is put. */
const WINDOW = 2_000_000;

export class LamportClock {
  #now: number;
  #ceiling: number;
  #jumpBudget: number;
  #budgetAtMs: number;
  readonly #jumpPerSecondMax: number;

  constructor(ceiling: number, jumpPerSecondMax: number, nowMs: number) {
    this.#now = ceiling;
    this.#ceiling = ceiling;
    this.#jumpPerSecondMax = jumpPerSecondMax;
    this.#jumpBudget = jumpPerSecondMax;
    this.#budgetAtMs = nowMs;
  }

  get now(): number {
    return this.#now;
  }

  /** Takes the next `count` timestamps; returns the last of them. */
  take(count: number): number {
    this.#now += count;
    return this.#now;
  }

  /** Takes an observation in. Returns 0, or by how much it is ahead when that is more than the budget allows. */
  observe(observed: number, nowMs: number): number {
    const ahead = observed - this.#now;
    if (ahead <= 0) return 0;
    const earned = ((nowMs - this.#budgetAtMs) / 1000) * this.#jumpPerSecondMax;
    this.#jumpBudget = Math.min(this.#jumpPerSecondMax, this.#jumpBudget + earned);
    this.#budgetAtMs = nowMs;
    if (ahead > this.#jumpBudget) return ahead;
    this.#jumpBudget -= ahead;
    this.#now = observed;
    return 0;
  }

  /** Moves the ceiling when the clock has come close to it; returns whether it moved and so must be made durable. */
  raiseCeiling(): boolean {
    if (this.#now < this.#ceiling - WINDOW / 2) return false;
    this.#ceiling = this.#now + WINDOW;
    return true;
  }

  get ceiling(): number {
    return this.#ceiling;
  }
}
