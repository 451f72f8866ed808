/**
 * A signal that follows several others, and a time limit.
 *
 * `AbortSignal.any` is not used: in Node 20 it keeps a trace of every call at a signal that lives long, such as that of a
 * lock, and it does not keep an `AbortSignal.timeout` alive, which then never fires.
 *
 * A response's body is read after the response has come, nobody knows how long. So the sources are followed until the
 * body is gone, and nothing here holds it.
 */

import { FenceError } from "../errors.js";
import type { Hold } from "../hold.js";

const TIMER_MS_MAX = 2 ** 31 - 1;

const stops = new FinalizationRegistry<() => void>((stop) => stop());

interface Following {
  readonly followers: Set<AbortController>;
  readonly onAbort: () => void;
}

/** Who follows a signal, with one listener for all of them: of more than ten Node warns. */
const sources = new WeakMap<AbortSignal, Following>();

function begin(source: AbortSignal): Following {
  const followers = new Set<AbortController>();
  const onAbort = () => {
    for (const follower of followers) follower.abort(source.reason);
  };
  const following = { followers, onAbort };
  sources.set(source, following);
  source.addEventListener("abort", onAbort, { once: true });
  return following;
}

/** Returns how to stop following. */
function follow(source: AbortSignal, abort: AbortController): () => void {
  const following = sources.get(source) ?? begin(source);
  const { followers, onAbort } = following;
  followers.add(abort);
  return () => {
    followers.delete(abort);
    if (followers.size > 0 || sources.get(source) !== following) return;
    sources.delete(source);
    source.removeEventListener("abort", onAbort);
  };
}

export class Aborting {
  readonly #abort = new AbortController();
  readonly #stops: (() => void)[] = [];

  /** Follows these signals. */
  constructor(...signals: readonly (AbortSignal | null | undefined)[]) {
    for (const signal of signals) {
      if (signal?.aborted) this.#abort.abort(signal.reason);
      else if (signal) this.#stops.push(follow(signal, this.#abort));
    }
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Aborts it after so many milliseconds; Infinity: never. */
  after(limitMs: number, reason: () => unknown): void {
    if (limitMs > TIMER_MS_MAX) return;
    const timer = setTimeout(() => this.#abort.abort(reason()), limitMs);
    timer.unref(); // the request that it limits keeps the process alive, as long as there is one
    this.#stops.push(() => clearTimeout(timer));
  }

  /** Follows nothing any more. */
  end(): void {
    for (const stop of this.#stops.splice(0)) stop();
  }

  /** Follows nothing any more when that object is gone; at once for null. */
  endWith(body: object | null): void {
    const rest = this.#stops.splice(0);
    const stop = () => {
      for (const one of rest) one();
    };
    if (body === null) stop();
    else stops.register(body, stop);
  }
}

/** What limits a request under this hold: its loss, and its time where that is known and nothing signals the loss. */
export function abortingWith(hold: Hold, ...signals: readonly (AbortSignal | null | undefined)[]): Aborting {
  const aborting = new Aborting(hold.signal, ...signals);
  if (hold.signal === undefined) {
    const { resource } = hold;
    const over = () =>
      new FenceError("LOST", `the time of the hold of ${JSON.stringify(resource)} is over`, { resource });
    aborting.after(hold.remainingMs(), over);
  }
  return aborting;
}
