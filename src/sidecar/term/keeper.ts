/**
 * Holds one lock for as long as the sidecar runs: waits for it, holds it, and waits again after a loss. An election is
 * such a lock, and so is the one behind the fencing proxy; if both have the same name they share it.
 *
 * After a loss the next candidacy begins when everything that was done under the lock has ended.
 */
import { type Leadership, LeaseholdError } from "@leasehold/client";
import type { Logger } from "../../server/log.js";
import type { Link } from "../link.js";

/** What is done under the lock: called at the grant, resolves when it has ended. It ends when the signal is aborted. */
export type Duty = (term: Leadership, signal: AbortSignal) => Promise<void>;

export interface KeeperOptions {
  readonly name: string;
  /** What others may see; at most 4 KiB. */
  readonly value: string | undefined;
  readonly link: Link;
  readonly log: Logger;
}

export class Keeper {
  readonly name: string;
  readonly #options: KeeperOptions;
  readonly #duties: Duty[] = [];
  readonly #stop = new AbortController();
  #term: Leadership | null = null;
  #done: Promise<void> = Promise.resolve();

  constructor(options: KeeperOptions) {
    this.name = options.name;
    this.#options = options;
  }

  /** Before `start`. */
  add(duty: Duty): void {
    this.#duties.push(duty);
  }

  /** The term, if the lock is held at this moment. */
  get term(): Leadership | null {
    const is = this.#term?.state.is;
    return is === "held" || is === "jeopardy" ? this.#term : null;
  }

  start(): void {
    this.#done = this.#run().catch((error) => {
      if (!this.#stop.signal.aborted) this.#options.link.fail(LeaseholdError.from(error));
    });
  }

  /** Resolves when everything that was done under the lock has ended and the lock is released. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #run(): Promise<void> {
    const { name, value, link, log } = this.#options;
    const { signal } = this.#stop;
    const client = await link.connected;
    await client.lead(name, { signal, ...(value === undefined ? {} : { value }) }, async (term) => {
      this.#term = term;
      log.info({ lock: name, token: term.grant.token }, "holding");
      await Promise.all([over(term.signal), ...this.#duties.map((duty) => duty(term, term.signal))]);
      const { state } = term;
      const why = state.is === "lost" ? { reason: state.reason } : {};
      log.info({ lock: name, token: term.grant.token, ...why }, state.is === "lost" ? "lost" : "resigning");
    });
  }
}

/** Resolves when the signal is aborted. */
export function over(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
