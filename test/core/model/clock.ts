/** The Lamport clock of the model: a number, and what observations may still add to it. */
export class ModelClock {
  #budget: number;
  #budgetMs: number;

  constructor(
    public now: number,
    private readonly perSecond: number,
    nowMs: number,
  ) {
    this.#budget = perSecond;
    this.#budgetMs = nowMs;
  }

  take(): number {
    return ++this.now;
  }

  /** By how much the observation is further ahead than it may be; 0: it was taken in. */
  observe(observed: number, nowMs: number): number {
    const ahead = observed - this.now;
    if (ahead <= 0) return 0;
    this.#budget = Math.min(this.perSecond, this.#budget + ((nowMs - this.#budgetMs) / 1_000) * this.perSecond);
    this.#budgetMs = nowMs;
    if (ahead > this.#budget) return ahead;
    this.#budget -= ahead;
    this.now = observed;
    return 0;
  }
}
