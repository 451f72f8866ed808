/**
 * A replica: asking it whether it has a position, waiting until it has, and leaving it alone while it does not answer.
 *
 * - The question and the read go over one connection. Behind one address there may be several replicas, and what one of
 *   them has says nothing about the next.
 * - While reads wait, they hold no connection, and one question at a time is asked for all of them.
 * - A question that was given up may be without an answer for as long as the replica is frozen. Each further one would
 *   wait behind it, in a pool or in the driver's queue, without a bound. So the replica counts as away until all of them
 *   are settled; nothing is sent to it, and no read waits for it.
 */
import type { Cover, Lent, Server, System } from "./system.js";

/** Reads that wait for one replica; further ones go to the primary. */
const WAITERS_MAX = 10_000;
const POLL_MIN_MS = 1;
/** For an answer to the question that is asked for all who wait. It takes a millisecond; a second means that it is gone. */
const LOOK_MS = 1_000;

export interface Limit {
  readonly ms: number;
  readonly signal: AbortSignal | undefined;
}

interface Waiter<P> {
  readonly position: P;
  /** False: it is no use to wait any longer. */
  tell(reached: boolean): void;
}

export type Refusal = Exclude<Cover, "applied"> | "away";

export class Replica<D, S, P> {
  readonly index: number;
  readonly #server: Server<D, S>;
  readonly #covers: System<D, S, P>["covers"];
  readonly #pollMs: number;
  readonly #waiters = new Set<Waiter<P>>();
  #delayMs = POLL_MIN_MS;
  #watching = false;
  #givenUp = 0;

  constructor(index: number, server: Server<D, S>, covers: System<D, S, P>["covers"], pollMs: number) {
    this.index = index;
    this.#server = server;
    this.#covers = covers;
    this.#pollMs = pollMs;
  }

  /** Whether questions to it are unanswered that nobody waits for any more. */
  get away(): boolean {
    return this.#givenUp > 0;
  }

  /**
   * A connection to it that has the position, or why there is none. Errors count as away. Rejects only with the reason of
   * the signal.
   */
  lend(position: P | undefined, limit: Limit): Promise<Lent<D> | Refusal> {
    return this.#ask(async (lent): Promise<Lent<D> | Refusal> => {
      if (position === undefined) return lent;
      const cover = this.#covers(await this.#server.look(lent.db), position);
      if (cover === "applied") return lent;
      lent.release();
      return cover;
    }, limit);
  }

  /** Uses a connection of its for a question, within the limit. */
  async #ask<T>(use: (lent: Lent<D>) => Promise<T>, limit: Limit): Promise<T | "away"> {
    if (this.away) return "away";
    let lent: Lent<D> | undefined;
    let givenUp = false;
    const ask = async (): Promise<T | "away"> => {
      lent = await this.#server.lend();
      return givenUp ? "away" : use(lent);
    };
    const asked = ask().catch((): "away" => {
      lent?.release(true);
      return "away";
    });
    const giveUp = () => {
      givenUp = true;
      this.#givenUp++;
      lent?.release(true); // else a frozen replica would keep it
      void asked.then(() => {
        this.#givenUp--;
        lent?.release();
      });
    };
    return (await within(asked, limit, giveUp)) ?? "away";
  }

  /** Tells once when it has the position, as far as one of its servers says so. Returns what ends the waiting. */
  wait(position: P, tell: (reached: boolean) => void): () => void {
    const waiter: Waiter<P> = { position, tell };
    if (this.#waiters.size >= WAITERS_MAX) {
      tell(false);
      return () => {};
    }
    this.#waiters.add(waiter);
    this.#delayMs = POLL_MIN_MS;
    if (!this.#watching) void this.#watch();
    return () => this.#waiters.delete(waiter);
  }

  async #watch(): Promise<void> {
    this.#watching = true;
    while (this.#waiters.size > 0) {
      const delayMs = this.#delayMs; // it has just been asked: first a pause
      this.#delayMs = Math.min(2 * delayMs, this.#pollMs);
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      if (this.#waiters.size === 0) break;
      const answer = await this.#ask(
        async (lent) => {
          const state = await this.#server.look(lent.db);
          lent.release();
          return { state };
        },
        { ms: LOOK_MS, signal: undefined },
      );
      for (const waiter of [...this.#waiters]) {
        const cover = answer === "away" ? "other" : this.#covers(answer.state, waiter.position);
        if (cover === "behind") continue;
        this.#waiters.delete(waiter);
        waiter.tell(cover === "applied");
      }
    }
    this.#watching = false;
  }
}

/**
 * What the promise resolves with, or undefined when the time is over. Rejects with the reason of the signal. In these two
 * cases `giveUp` is called first.
 */
export function within<T>(promise: Promise<T>, { ms, signal }: Limit, giveUp: () => void): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const end = (settle: () => void) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      settle();
    };
    const onAbort = () => {
      giveUp();
      end(() => reject(signal?.reason));
    };
    const onTime = () => {
      giveUp();
      end(() => resolve(undefined));
    };
    const timer = Number.isFinite(ms) ? setTimeout(onTime, ms) : undefined;
    signal?.addEventListener("abort", onAbort);
    if (signal?.aborted) onAbort();
    else
      promise.then(
        (value) => end(() => resolve(value)),
        (error) => end(() => reject(error)),
      );
  });
}
