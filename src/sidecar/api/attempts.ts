/**
 * Requests that may be repeated. A caller whose answer was lost on its way does not know whether it has the lock. With a
 * request id it asks again: all requests with the same id join the first one, and get its hold.
 *
 * The id of a hold that has ended is remembered for a while and refused, so that a late duplicate does not take a lock that
 * nobody waits for. A request that failed leaves nothing behind: the next one with its id begins anew.
 */
import { LeaseholdError } from "@leasehold/client";
import type { Hold } from "../holds.js";
import { badRequest } from "../http/problem.js";

/** Ids of holds that have ended and are remembered. */
const ENDED_MAX = 1_000;

interface Attempt {
  /** What was asked for. */
  readonly asked: string;
  readonly hold: Promise<Hold>;
  readonly withdraw: AbortController;
  /** Callers that wait for it. */
  waiting: number;
  /** Once it was granted. */
  granted: Hold | null;
}

export class Attempts {
  readonly #max: number;
  readonly #attempts = new Map<string, Attempt>();

  /** `holdsMax`: how many holds there may be. */
  constructor(holdsMax: number) {
    this.#max = holdsMax + ENDED_MAX;
  }

  /**
   * The hold that the id stands for; `start` makes the first attempt. It is withdrawn when nobody waits for it any more.
   * Rejects as `start` does, LOST when that hold has ended, and INVALID when something else was asked for by that id.
   */
  async join(id: string, asked: string, signal: AbortSignal, start: (signal: AbortSignal) => Promise<Hold>) {
    const known = this.#attempts.get(id);
    if (known && known.asked !== asked) throw badRequest("this requestId was used for another request");
    const attempt = known ?? this.#start(id, asked, start);
    const leave = () => {
      attempt.waiting--;
      if (attempt.waiting === 0 && attempt.granted === null) attempt.withdraw.abort(signal.reason);
    };
    attempt.waiting++;
    signal.addEventListener("abort", leave, { once: true });
    try {
      const hold = await attempt.hold;
      if (!hold.held) throw new LeaseholdError("LOST", "the hold of this requestId has ended", { retryable: false });
      return hold;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  #start(id: string, asked: string, start: (signal: AbortSignal) => Promise<Hold>): Attempt {
    const withdraw = new AbortController();
    const hold = start(withdraw.signal);
    const attempt: Attempt = { asked, hold, withdraw, waiting: 0, granted: null };
    this.#attempts.set(id, attempt);
    hold.then(
      (granted) => {
        attempt.granted = granted;
      },
      () => this.#attempts.delete(id),
    );
    this.#forget();
    return attempt;
  }

  /** The oldest that has ended. Those that go on are passed over by being put at the end. */
  #forget(): void {
    while (this.#attempts.size > this.#max) {
      const [oldest] = this.#attempts;
      if (!oldest) return;
      const [id, attempt] = oldest;
      this.#attempts.delete(id);
      if (attempt.granted === null || attempt.granted.held) this.#attempts.set(id, attempt);
    }
  }
}
