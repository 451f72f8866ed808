/**
 * How far a watch has come.
 *
 * Each response says up to which timestamp everything has been sent; from there the next stream continues if this one
 * breaks. In the midst of a response the events themselves say it, but for those that share a timestamp: behind the first
 * of them nothing may be skipped yet. And while the state is being sent, from RESET to SYNCED, what has arrived is of no
 * use without the rest: whoever stops there begins anew.
 */
import type { leasehold } from "../wire/index.js";
import { eventView, type UnplacedEvent, type WatchEvent } from "./events.js";

/** What to watch, and from where on. */
export interface WatchStart {
  readonly target: { readonly name: string } | { readonly prefix: string };
  /** 0: begin with the state. */
  readonly after: number;
  /** Without `after`: begin with what happens from now on. */
  readonly fromNow: boolean;
}

export class Cursor {
  readonly #start: WatchStart;
  #position: number;
  /** Nothing has arrived yet. */
  #fresh = true;
  /** What comes continues what came before. */
  #live = false;

  constructor(start: WatchStart) {
    this.#start = start;
    this.#position = start.after;
  }

  /** The request that a new stream begins with. */
  request(): leasehold.v1.WatchRequest.$Properties {
    const fromNow = this.#fresh && this.#position === 0 && this.#start.fromNow;
    this.#live = fromNow || this.#position > 0;
    return { ...this.#start.target, after: this.#position, fromNow };
  }

  /** The events of a response, each with the position behind it. */
  take(response: leasehold.v1.WatchResponse.$Properties): WatchEvent[] {
    const sentUpTo = response.timestamp ?? 0;
    const events = (response.events ?? []).map(eventView).filter((event) => event !== null);
    this.#fresh = false;
    const placed = events.map((event, i) => this.#place(event, events[i + 1]?.timestamp ?? sentUpTo));
    if (!this.#live || sentUpTo <= this.#position) return placed;
    this.#position = sentUpTo;
    const last = placed.pop();
    return last ? [...placed, { ...last, position: sentUpTo }] : placed;
  }

  #place(event: UnplacedEvent, nextTimestamp: number): WatchEvent {
    if (event.type === "reset") {
      this.#live = false;
      this.#position = 0;
    } else if (event.type === "synced") {
      this.#live = true;
    }
    if (this.#live && nextTimestamp > event.timestamp) this.#position = event.timestamp;
    return { ...event, position: this.#position };
  }
}
