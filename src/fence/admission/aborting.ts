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

type Listener = (reason: unknown) => void;

interface Following {
  readonly listeners: Set<Listener>;
  readonly onAbort: () => void;
}

/** Who follows a signal, with one listener for all of them: of more than ten Node warns. */
const sources = new WeakMap<AbortSignal, Following>();

function begin(source: AbortSignal): Following {
  const listeners = new Set<Listener>();
  const onAbort = () => {
    sources.delete(source);
    for (const listener of listeners) listener(source.reason);
  };
  const following = { listeners, onAbort };
  sources.set(source, following);
  source.addEventListener("abort", onAbort, { once: true });
  return following;
}

/** Returns how to stop following. */
function follow(source: AbortSignal, listener: Listener): () => void {
  const following = sources.get(source) ?? begin(source);
  const { listeners, onAbort } = following;
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
    if (listeners.size > 0 || sources.get(source) !== following) return;
    sources.delete(source);
    source.removeEventListener("abort", onAbort);
  };
}

/** Calls the listener after so many milliseconds; Infinity: never. Returns how to call that off. */
function after(limitMs: number, listener: () => void): () => void {
  if (limitMs > TIMER_MS_MAX) return () => {};
  const timer = setTimeout(listener, limitMs);
  timer.unref(); // the request that it limits keeps the process alive, as long as there is one
  return () => clearTimeout(timer);
}

/**
 * Calls the listener when the hold ends: when its loss is signalled, or when its time is over where that is known and nothing
 * signals the loss. Returns how to call that off.
 */
export function whenLost(hold: Hold, listener: Listener): () => void {
  const { signal, resource } = hold;
  if (signal?.aborted) listener(signal.reason);
  if (signal) return signal.aborted ? () => {} : follow(signal, listener);
  const message = `the time of the hold of ${JSON.stringify(resource)} is over`;
  return after(hold.remainingMs(), () => listener(new FenceError("LOST", message, { resource })));
}

/** A signal of one's own that follows others. */
export class Aborting {
  readonly #abort = new AbortController();
  readonly #stops: (() => void)[] = [];

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Follows a signal. */
  with(source: AbortSignal | null | undefined): this {
    if (source?.aborted) this.#abort.abort(source.reason);
    else if (source) this.#stops.push(follow(source, (reason) => this.#abort.abort(reason)));
    return this;
  }

  /** Follows a hold. */
  withHold(hold: Hold): this {
    this.#stops.push(whenLost(hold, (reason) => this.#abort.abort(reason)));
    return this;
  }

  /** Aborts after so many milliseconds. */
  after(limitMs: number, reason: () => unknown): void {
    this.#stops.push(after(limitMs, () => this.#abort.abort(reason())));
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
