/** Watches as a scripted server sees them. */
import type { WatchHandlers, WatchStream } from "../../src/client/transport.js";
import { decode, encode, type leasehold, v1 } from "../../src/client/wire/index.js";

type WireEvent = leasehold.v1.WatchEvent.$Properties;
const Kind = v1.WatchEventKind;

/** One stream of a watch. */
export class ScriptedWatch implements WatchStream {
  readonly index: number;
  readonly request: leasehold.v1.WatchRequest.$Properties;
  readonly #handlers: WatchHandlers;
  open = true;
  paused = false;

  constructor(index: number, request: Uint8Array, handlers: WatchHandlers) {
    this.index = index;
    this.request = decode(v1.WatchRequest, request);
    this.#handlers = handlers;
  }

  // -------------------------------------------------------------------------------- the client's side

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  destroy(): void {
    this.open = false;
  }

  // -------------------------------------------------------------------------------- the server's side

  /** A response with these events; complete up to the last of them unless told otherwise. */
  push(events: readonly WireEvent[], timestamp = events.at(-1)?.timestamp ?? 0): void {
    if (this.open) this.#handlers.onFrame(encode(v1.WatchResponse, { events: [...events], timestamp }));
  }

  pushRaw(bytes: Uint8Array): void {
    if (this.open) this.#handlers.onFrame(bytes);
  }

  /** The stream ends, by default as when the connection breaks. */
  break(reason = "", code = 14, message = "the connection broke", retryAfterMs = 0): void {
    if (!this.open) return;
    this.open = false;
    this.#handlers.onEnd({ code, message, reason, retryAfterMs });
  }
}

/** What servers say, in the shortest form. */
export const say = {
  reset: (timestamp: number, resetReason: number = v1.ResetReason.RESET_REASON_START): WireEvent => ({
    kind: Kind.WATCH_EVENT_KIND_RESET,
    timestamp,
    resetReason,
  }),
  state: (timestamp: number, name: string, holders: leasehold.v1.Holder.$Properties[]): WireEvent => ({
    kind: Kind.WATCH_EVENT_KIND_STATE,
    timestamp,
    name,
    holders,
    holdersTotal: holders.length,
  }),
  synced: (timestamp: number): WireEvent => ({ kind: Kind.WATCH_EVENT_KIND_SYNCED, timestamp }),
  granted: (timestamp: number, name: string, token: number, value = ""): WireEvent => ({
    kind: Kind.WATCH_EVENT_KIND_GRANTED,
    timestamp,
    name,
    holders: [holder(token, value, timestamp)],
  }),
  updated: (timestamp: number, name: string, token: number, value: string): WireEvent => ({
    kind: Kind.WATCH_EVENT_KIND_UPDATED,
    timestamp,
    name,
    holders: [holder(token, value)],
  }),
  transferred: (timestamp: number, name: string, token: number, to: number, value = ""): WireEvent => ({
    kind: Kind.WATCH_EVENT_KIND_TRANSFERRED,
    timestamp,
    name,
    token,
    holders: [holder(to, value, timestamp)],
    ticketId: "t",
  }),
  ended: (
    timestamp: number,
    name: string,
    token: number,
    kind: number = Kind.WATCH_EVENT_KIND_RELEASED,
  ): WireEvent => ({
    kind,
    timestamp,
    name,
    token,
  }),
};

export const holder = (token: number, value = "", timestamp = token): leasehold.v1.Holder.$Properties => ({
  token,
  timestamp,
  owner: `owner-${token}`,
  metadata: Buffer.from(value),
  mode: v1.LockMode.LOCK_MODE_EXCLUSIVE,
});
