/** The watches of a client. */
import { checkInteger, checkKeys, checkName, checkPrefix, checkSignal } from "../arguments.js";
import { invalid } from "../errors.js";
import type { LamportClock } from "../lamport.js";
import { closedError } from "../session/failure.js";
import type { WatchStart } from "./cursor.js";
import type { FeedOptions } from "./feed.js";
import { type Fold, type Registry, type Running, Subscription } from "./subscription.js";

/** Which locks to watch: one, or all whose names begin with a prefix, which may be empty. */
export type WatchTarget = { readonly name: string } | { readonly prefix: string };

/** Options of `client.watch`. */
export interface WatchOptions {
  /** Continue behind this position, which an event of an earlier watch carried. Default: begin with the state. */
  readonly after?: number | undefined;
  /** Without `after`: begin with what happens from now on, without the state. */
  readonly fromNow?: boolean | undefined;
  /** Aborting it ends the iteration, which rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
}

/** Throws INVALID. */
export function watchStart(target: WatchTarget, options: WatchOptions): WatchStart {
  checkKeys(target, ["name", "prefix"], "the targets of watch");
  checkKeys(options, ["after", "fromNow", "signal"], "the options of watch");
  if ("name" in target === "prefix" in target) throw invalid("watch either a name or a prefix");
  const { after = 0, fromNow = false } = options;
  if (typeof fromNow !== "boolean") throw invalid("fromNow must be true or false");
  return {
    target: "name" in target ? { name: checkName(target.name) } : { prefix: checkPrefix(target.prefix) },
    after: checkInteger(after, "the position"),
    fromNow,
  };
}

export class Watches implements Registry {
  readonly #options: FeedOptions;
  readonly #clock: LamportClock;
  /** Those that have begun and not ended: as many as there are loops. */
  readonly #running = new Set<Running>();
  #closed = false;

  constructor(options: FeedOptions, clock: LamportClock) {
    this.#options = options;
    this.#clock = clock;
  }

  subscribe<T>(start: WatchStart, signal: AbortSignal | undefined, fold: Fold<T>): Subscription<T> {
    const checked = signal === undefined ? null : checkSignal(signal);
    return new Subscription(this.#options, this, this.#clock, start, checked, fold);
  }

  begun(running: Running): void {
    if (this.#closed) throw closedError();
    this.#running.add(running);
  }

  ended(running: Running): void {
    this.#running.delete(running);
  }

  /** Ends them all, and those that are yet to begin. */
  close(): void {
    this.#closed = true;
    for (const running of [...this.#running]) running.fail(closedError());
  }
}
