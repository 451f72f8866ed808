/**
 * Keeps a watch going over as many streams as it takes: the addresses in turn, with a growing, random delay, each stream
 * continuing where the one before had come to. The server answers each at once, if only with the position at which it
 * begins; until then it does not count as open.
 */
import { fromStatus, type LeaseholdError } from "../errors.js";
import type { LamportClock } from "../lamport.js";
import { Link, type LinkOptions, type LinkUser } from "../session/link.js";
import type { Stream, StreamHandlers, Transport, WatchStream } from "../transport.js";
import { decode, encode, type leasehold, type StatusDetails, v1 } from "../wire/index.js";
import { Cursor, type WatchStart } from "./cursor.js";
import type { WatchEvent } from "./events.js";

/** What becomes of the events. */
export interface FeedUser {
  onEvents(events: WatchEvent[]): void;
  /**
   * No stream could be had, or it broke. `begun`: one was open before; `wasOpen`: this one was. Returns whether to try
   * again.
   */
  onDown(failure: LeaseholdError, begun: boolean, wasOpen: boolean): boolean;
}

export interface FeedOptions extends LinkOptions {
  readonly transport: Transport;
}

export class Feed {
  readonly #transport: Transport;
  readonly #clock: LamportClock;
  readonly #user: FeedUser;
  readonly #cursor: Cursor;
  readonly #link: Link;
  #stream: WatchStream | null = null;
  #paused = false;
  #begun = false;

  constructor(options: FeedOptions, clock: LamportClock, start: WatchStart, user: FeedUser) {
    this.#transport = options.transport;
    this.#clock = clock;
    this.#user = user;
    this.#cursor = new Cursor(start);
    const open = (index: number, handlers: StreamHandlers) => this.#open(index, handlers);
    const transport = { addresses: options.transport.addresses, open };
    const linkUser: LinkUser = {
      greet: () => {}, // the request has left with the opening of the stream
      onFrame: (bytes) => this.#onFrame(bytes),
      onDrain: () => {},
      onDown: (status, wasOpen) => this.#onDown(status, wasOpen),
      onState: () => {},
    };
    this.#link = new Link({ ...options, transport }, linkUser);
  }

  /** Where the last stream was opened to. */
  get address(): Transport["addresses"][number] {
    return this.#link.address;
  }

  /** Whether the server has ever answered. */
  get begun(): boolean {
    return this.#begun;
  }

  start(): void {
    this.#link.want();
  }

  #open(index: number, handlers: StreamHandlers): Stream {
    const stream = this.#transport.openWatch(index, encode(v1.WatchRequest, this.#cursor.request()), handlers);
    this.#stream = stream;
    if (this.#paused) stream.pause();
    const destroy = () => stream.destroy();
    return { send: () => true, end: destroy, destroy };
  }

  #onDown(status: StatusDetails, wasOpen: boolean): { reconnect: boolean; notBeforeMs: number } {
    const failure = fromStatus(status);
    return { reconnect: this.#user.onDown(failure, this.#begun, wasOpen), notBeforeMs: failure.retryAfterMs };
  }

  #onFrame(bytes: Uint8Array): void {
    let response: leasehold.v1.WatchResponse.$Properties;
    try {
      response = decode(v1.WatchResponse, bytes);
    } catch (error) {
      this.#link.drop({ code: 13, reason: "", message: `the server's message is malformed: ${String(error)}` });
      return;
    }
    this.#begun = true;
    this.#link.established();
    this.#clock.merge(response.timestamp ?? 0);
    this.#user.onEvents(this.#cursor.take(response));
  }

  /** Reads no more until `resume`. */
  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#stream?.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#stream?.resume();
  }

  close(): void {
    this.#link.close();
  }
}
