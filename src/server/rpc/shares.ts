/** How much of something that the server has so many of is in the hands of each principal, so that nobody takes all of it. */
import type { RouteFailure } from "../sequencer/routes.js";

export class Shares {
  readonly #taken = new Map<string, number>();

  /** `what`: "watches". `max`: of one principal. */
  constructor(
    private readonly what: string,
    private readonly max: number,
  ) {}

  /**
   * Takes one for the principal of this name; "" is everybody, when nobody is asked who he is, and has no bound here.
   * Returns how to give it back, which may be called more than once; or why there is none.
   */
  take(name: string): (() => void) | RouteFailure {
    if (name === "") return () => undefined;
    const taken = this.#taken.get(name) ?? 0;
    if (taken >= this.max) {
      return { reason: "LIMIT", message: `${name} has ${this.max} ${this.what} open`, retryAfterMs: 1_000 };
    }
    this.#taken.set(name, taken + 1);
    let given = true;
    return () => {
      if (given) this.#giveBack(name);
      given = false;
    };
  }

  #giveBack(name: string): void {
    const left = (this.#taken.get(name) ?? 1) - 1;
    if (left > 0) this.#taken.set(name, left);
    else this.#taken.delete(name);
  }
}
