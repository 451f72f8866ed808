/**
 * Watchers: who is told what happens to locks.
 *
 * The hub is told every durable event in the order of commits, and behind each batch up to which timestamp everything has
 * been told. It keeps the last events for watchers that come back (`history.ts`) and offers each event to those who watch
 * its lock (`targets.ts`, `subscriber.ts`). Nothing here holds anything up: a watcher that does not read fills a bounded
 * queue of its own and is told so.
 *
 * The history is kept while there are watchers, and for a while after the last one has left. When nobody watches nobody
 * can come back, and objects that live for seconds are what a garbage collector pays for: with a history for nobody each
 * grant cost a server twice the CPU time.
 *
 * In a short time only a few of those that have something write (`write-turns.ts`).
 *
 * Watchers that are catching up take turns, a few small steps in each turn of the event loop, so that after a restart,
 * when all of them come back and want the state, grants go on meanwhile.
 */
import type { CoreEvent, Request } from "../core/types.js";
import type { WatchLimits } from "../rpc/limits.js";
import type { CommandSink, LiveRoute, RouteFailure } from "../sequencer/routes.js";
import type { TurnScheduler } from "../sequencer/served-clock.js";
import { isWatched } from "./entry.js";
import { History } from "./history.js";
import { Subscriber, type WatcherHost, type WatchOutput, type WatchStart } from "./subscriber.js";
import { TargetIndex, type WatchTarget } from "./targets.js";
import { WriteTurns } from "./write-turns.js";

/** Pages and slices in one turn of the event loop. */
const STEPS_PER_TURN = 4;
/** How often a quiet watcher is told its position, in steps over which the watchers are spread. */
const BEAT_STEP_MS = 250;
const BEAT_STEPS = 20;
/** For how long the history is kept for watchers that come back, in the same steps: ten minutes. */
const KEPT_STEPS = (10 * 60_000) / BEAT_STEP_MS;

export interface WatchHubOptions {
  readonly sink: CommandSink;
  readonly limits: WatchLimits;
  readonly turns: Pick<TurnScheduler, "afterTurn" | "every">;
  /** Milliseconds since 1970, for display only. */
  wallMs(): number;
  /** A watcher has fallen behind: for metrics. */
  onLagged?(): void;
}

export class WatchHub implements WatcherHost {
  readonly history: History;
  readonly queueEventsMax: number;
  readonly #options: WatchHubOptions;
  readonly #watchers = new Set<Subscriber>();
  readonly #index = new TargetIndex<Subscriber>();
  #told = 0;
  /** Of those that have something to write. */
  readonly #writes: WriteTurns;
  /** They wait for a turn. */
  readonly #wanting = new Set<Subscriber>();
  #turnScheduled = false;
  #beats = 0;
  /** Since the last watcher has left. */
  #quietBeats = 0;
  /** Not null while there is a history to keep. */
  #endBeats: (() => void) | null = null;

  constructor(options: WatchHubOptions) {
    const { watchHistoryEventsMax, watchHistoryBytesMax, watcherQueueEventsMax } = options.limits;
    this.#options = options;
    this.#writes = new WriteTurns(options.turns);
    this.history = new History(watchHistoryEventsMax, watchHistoryBytesMax);
    this.queueEventsMax = watcherQueueEventsMax;
  }

  /** Open watches. */
  get size(): number {
    return this.#watchers.size;
  }

  get told(): number {
    return this.#told;
  }

  /**
   * Begins a watch of this principal; "": nobody is asked who he is. Returns why not when there are too many; then nothing
   * is written to `output`.
   */
  watch(target: WatchTarget, start: WatchStart, output: WatchOutput, principal = ""): Subscriber | RouteFailure {
    const { watchersMax } = this.#options.limits;
    if (this.#watchers.size >= watchersMax) {
      return { reason: "LIMIT", message: `more than ${watchersMax} watches are open`, retryAfterMs: 1_000 };
    }
    const subscriber = new Subscriber(target, principal, this, output);
    this.#watchers.add(subscriber);
    if (this.#endBeats === null) this.#keepHistory();
    subscriber.start(start);
    return subscriber;
  }

  /** Ends all watches. */
  closeAll(failure: RouteFailure): void {
    for (const subscriber of [...this.#watchers]) subscriber.end(failure);
  }

  // ------------------------------------------------------------------------------------------ from the sequencer

  /** Something has happened and is durable. */
  event(event: CoreEvent): void {
    if (this.#endBeats === null || !isWatched(event)) return;
    this.history.add(event);
    if (this.#watchers.size > 0) this.#index.each(event.name, (subscriber) => subscriber.event(event));
  }

  /** All events up to this timestamp have been told. */
  tellTo(timestamp: number): void {
    this.#told = timestamp;
    this.#writes.take();
    if (this.#wanting.size > 0) this.#scheduleTurn();
  }

  /** The state was recovered; events go on above this timestamp. */
  restart(timestamp: number): void {
    this.#told = timestamp;
    this.history.restart(timestamp);
  }

  // ------------------------------------------------------------------------------------------ for its watchers

  wallMs(): number {
    return this.#options.wallMs();
  }

  submit(request: Request, route: LiveRoute): RouteFailure | null {
    return this.#options.sink.submit({ kind: "call", request, route, observed: 0 });
  }

  wantTurn(subscriber: Subscriber): void {
    this.#wanting.add(subscriber);
    this.#scheduleTurn();
  }

  listen(subscriber: Subscriber): void {
    this.#index.add(subscriber);
  }

  unlisten(subscriber: Subscriber): void {
    this.#index.delete(subscriber);
    this.#writes.delete(subscriber);
    this.#wanting.delete(subscriber);
  }

  touched(subscriber: Subscriber): void {
    this.#writes.add(subscriber);
  }

  lagged(): void {
    this.#options.onLagged?.();
  }

  gone(subscriber: Subscriber): void {
    this.#watchers.delete(subscriber);
    this.#quietBeats = 0;
  }

  #keepHistory(): void {
    this.history.restart(this.#told);
    this.#endBeats = this.#options.turns.every(BEAT_STEP_MS, () => this.#beat());
  }

  /** Drops the history; it begins anew with the next watcher. */
  close(): void {
    this.#writes.stop();
    this.#endBeats?.();
    this.#endBeats = null;
    this.history.restart(this.#told);
  }

  #scheduleTurn(): void {
    if (this.#turnScheduled) return;
    this.#turnScheduled = true;
    this.#options.turns.afterTurn(() => {
      this.#turnScheduled = false;
      this.#turn();
    });
  }

  #turn(): void {
    let steps = 0;
    for (const subscriber of this.#wanting) {
      if (++steps > STEPS_PER_TURN) {
        this.#scheduleTurn();
        return;
      }
      this.#wanting.delete(subscriber);
      if (!subscriber.advance()) {
        this.#wanting.add(subscriber); // the next batch makes room
        return;
      }
    }
  }

  #beat(): void {
    if (this.#watchers.size === 0) {
      if (++this.#quietBeats >= KEPT_STEPS) this.close();
      return;
    }
    let index = this.#beats++;
    for (const subscriber of this.#watchers) {
      if (index++ % BEAT_STEPS === 0) subscriber.beat();
    }
  }
}
