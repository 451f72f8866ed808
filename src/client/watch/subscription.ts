/**
 * The iteration over a watch.
 *
 * It begins with the first `next`, and lasts until the loop is left, the signal is aborted, the client is closed, or the
 * server refuses. What arrives is kept here until it is asked for; when that becomes much, the stream is no longer read,
 * so that it is the server who keeps it, and who tells when it was too much ("lagged").
 */
import type { Timer } from "../clock/elapsed.js";
import { LeaseholdError } from "../errors.js";
import type { LamportClock } from "../lamport.js";
import { isFatal, unreachableError } from "../session/failure.js";
import type { WatchStart } from "./cursor.js";
import type { WatchEvent } from "./events.js";
import { Feed, type FeedOptions } from "./feed.js";

/** What the user gets for an event; undefined: nothing. A throw ends the iteration with that error. */
export type Fold<T> = (event: WatchEvent) => IteratorYieldResult<T> | undefined;

/** What goes on until it ends or is made to. */
export interface Running {
  fail(error: unknown): void;
}

/** Hears of what begins and ends. */
export interface Registry {
  /** Throws when no more may begin. */
  begun(running: Running): void;
  ended(running: Running): void;
}

/** Events that are kept here before the stream is no longer read, and how few it takes until it is read again. */
const KEPT_MAX = 256;
const KEPT_LOW = 64;
/** Calls of `next` that wait at the same time. */
const PULLS_MAX = 1_024;

type Result<T> = IteratorResult<T, undefined>;
interface Pull<T> {
  readonly resolve: (result: Result<T>) => void;
  readonly reject: (error: unknown) => void;
}

export class Subscription<T> implements AsyncIterableIterator<T, undefined>, Running {
  readonly #options: FeedOptions;
  readonly #registry: Registry;
  readonly #signal: AbortSignal | null;
  readonly #fold: Fold<T>;
  readonly #feed: Feed;
  readonly #onAbort = () => this.fail(this.#signal?.reason);
  #state: "new" | "running" | "ended" = "new";
  #kept: WatchEvent[] = [];
  /** How many of those that are kept have been asked for. */
  #taken = 0;
  #pulls: Pull<T>[] = [];
  /** To be told once, after what is kept. */
  #failure: { readonly error: unknown } | null = null;
  /** Runs until the server has answered for the first time. */
  #patience: Timer | null = null;
  #lastFailure: LeaseholdError | null = null;

  constructor(
    options: FeedOptions,
    registry: Registry,
    clock: LamportClock,
    start: WatchStart,
    signal: AbortSignal | null,
    fold: Fold<T>,
  ) {
    this.#options = options;
    this.#registry = registry;
    this.#signal = signal;
    this.#fold = fold;
    this.#feed = new Feed(options, clock, start, {
      onEvents: (events) => this.#onEvents(events),
      onDown: (failure, begun, wasOpen) => this.#onDown(failure, begun, wasOpen),
    });
  }

  // ------------------------------------------------------------------------------------------------ for the loop

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Result<T>> {
    return new Promise((resolve, reject) => {
      if (this.#pulls.length >= PULLS_MAX) {
        reject(new LeaseholdError("LIMIT", "too many calls of next() wait for an event"));
        return;
      }
      this.#pulls.push({ resolve, reject });
      if (this.#state === "new") this.#start();
      this.#serve();
    });
  }

  return(): Promise<Result<T>> {
    this.#end();
    this.#forget();
    this.#serve();
    return Promise.resolve({ done: true, value: undefined });
  }

  #serve(): void {
    for (let pull = this.#pulls[0]; pull; pull = this.#pulls[0]) {
      const taken = this.#take();
      if (taken) pull.resolve(taken);
      else if (this.#failure) pull.reject(this.#failure.error);
      else if (this.#state === "ended") pull.resolve({ done: true, value: undefined });
      else break;
      if (!taken) this.#failure = null;
      this.#pulls.shift();
    }
    const kept = this.#kept.length - this.#taken;
    if (kept > KEPT_MAX) this.#feed.pause();
    else if (kept <= KEPT_LOW) this.#feed.resume();
  }

  /** What the next events amount to, if they amount to something. */
  #take(): IteratorYieldResult<T> | undefined {
    while (this.#taken < this.#kept.length) {
      const event = this.#kept[this.#taken++] as WatchEvent;
      try {
        const result = this.#fold(event);
        if (result) return result;
      } catch (error) {
        this.#end();
        this.#forget();
        this.#failure = { error };
      }
    }
    return undefined;
  }

  // ------------------------------------------------------------------------------------------------ for the feed

  #onEvents(events: readonly WatchEvent[]): void {
    this.#patience?.cancel();
    this.#kept = this.#kept.slice(this.#taken).concat(events);
    this.#taken = 0;
    this.#serve();
  }

  #onDown(failure: LeaseholdError, begun: boolean, wasOpen: boolean): boolean {
    this.#lastFailure = failure;
    // Once the watch has begun, a server that has no place just now is an outage like others; and credentials that have
    // run out while it was open may have been exchanged. Those are tried once.
    const again = wasOpen && failure.reason === "UNAUTHENTICATED";
    if (again || (!isFatal(failure) && (begun || failure.code !== "LIMIT"))) return true;
    this.#end();
    this.#failure = { error: failure };
    this.#serve();
    return false;
  }

  // ------------------------------------------------------------------------------------------------ beginning and end

  #start(): void {
    const { time, connectTimeoutMs } = this.#options;
    this.#state = "running";
    try {
      this.#signal?.throwIfAborted();
      this.#registry.begun(this);
    } catch (error) {
      this.fail(error);
      return;
    }
    this.#signal?.addEventListener("abort", this.#onAbort, { once: true });
    this.#patience = time.setTimer(connectTimeoutMs, () => this.fail(this.#unreachable()), true);
    this.#feed.start();
  }

  #unreachable(): LeaseholdError {
    const { text, local } = this.#feed.address;
    return unreachableError(text, local, this.#lastFailure);
  }

  /** Ends the iteration with this error. What was not asked for yet is forgotten. */
  fail(error: unknown): void {
    if (this.#state === "ended") return;
    this.#end();
    this.#forget();
    this.#failure = { error };
    this.#serve();
  }

  #forget(): void {
    this.#kept = [];
    this.#taken = 0;
    this.#failure = null;
  }

  /** Nothing more arrives. */
  #end(): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#signal?.removeEventListener("abort", this.#onAbort);
    this.#patience?.cancel();
    this.#feed.close();
    this.#registry.ended(this);
  }
}
