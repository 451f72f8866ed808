/**
 * Which watchers write, and when.
 *
 * To write costs a server far more than to queue an event. So in a short time only a few watchers write, and of one
 * principal fewer still. When there is something for more of them they write one after the other, principal by principal,
 * and each then has what several batches brought: hundreds of watches of everything cost no more than some dozens, and
 * those of one principal no more than a few.
 */
import type { TurnScheduler } from "../sequencer/served-clock.js";

/** Watchers that write in so many ms. */
const WRITES_MAX = 16;
/** Those of one principal. */
const WRITES_OF_ONE_MAX = 4;
const WINDOW_MS = 5;

/** Whoever writes. */
export interface Writer {
  /** "": nobody is asked who he is. */
  readonly principal: string;
  flush(): void;
}

export class WriteTurns {
  readonly #turns: Pick<TurnScheduler, "every">;
  /** They have something to write. Who has written goes to the end. */
  readonly #waiting = new Map<string, Set<Writer>>();
  /** In this window, of each principal. */
  readonly #written = new Map<string, number>();
  #left = WRITES_MAX;
  /** Not null while there is a window to end. */
  #endWindows: (() => void) | null = null;

  constructor(turns: Pick<TurnScheduler, "every">) {
    this.#turns = turns;
  }

  add(writer: Writer): void {
    const waiting = this.#waiting.get(writer.principal);
    if (waiting === undefined) this.#waiting.set(writer.principal, new Set([writer]));
    else waiting.add(writer);
  }

  delete(writer: Writer): void {
    this.#waiting.get(writer.principal)?.delete(writer); // a set that is empty is removed in its turn
  }

  /** Has those that wait write, as far as that may be just now; the others soon. */
  take(): void {
    let principals = this.#waiting.size; // whoever goes to the end is not met again
    for (const [principal, writers] of this.#waiting) {
      if (principals-- === 0 || this.#left === 0) break;
      this.#write(principal, writers);
      this.#waiting.delete(principal);
      if (writers.size > 0) this.#waiting.set(principal, writers);
    }
    if (this.#left < WRITES_MAX) this.#endWindows ??= this.#turns.every(WINDOW_MS, () => this.#nextWindow());
  }

  /** Until `take` is called again. */
  stop(): void {
    this.#endWindows?.();
    this.#endWindows = null;
  }

  #write(principal: string, writers: Set<Writer>): void {
    const max = principal === "" ? WRITES_MAX : WRITES_OF_ONE_MAX;
    let written = this.#written.get(principal) ?? 0;
    for (const writer of writers) {
      if (this.#left === 0 || written >= max) break;
      this.#left--;
      written++;
      writers.delete(writer);
      writer.flush();
    }
    this.#written.set(principal, written);
  }

  #nextWindow(): void {
    const idle = this.#left === WRITES_MAX;
    this.#left = WRITES_MAX;
    this.#written.clear();
    if (idle) this.stop();
    else this.take();
  }
}
