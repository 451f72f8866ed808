/**
 * The seam between the client's protocols and the network: opening streams that carry bytes, both ways for a session, from
 * the server for a watch. Tests put an in-memory one in its place.
 */
import type { StatusDetails } from "./wire/index.js";

/** What a stream reports. Nothing is called before `open` has returned, nor after `destroy`. */
export interface StreamHandlers {
  /** A whole frame. */
  onFrame(bytes: Uint8Array): void;
  /** After `send` returned false: it may be called again. */
  onDrain(): void;
  /** The last call: the stream could not be opened, broke, or was ended by the server. */
  onEnd(status: StatusDetails): void;
}

export interface Stream {
  /** Sends a frame. False: the frame was taken, but wait for `onDrain` before the next. */
  send(bytes: Buffer): boolean;
  /** No more frames from here; takes the connection down when the server has answered, or soon. */
  end(): void;
  /** Takes the stream and its connection down at once. */
  destroy(): void;
}

/** What a watch's stream reports. Nothing is called before `openWatch` has returned, nor after `destroy`. */
export interface WatchHandlers {
  /** A whole message. */
  onFrame(bytes: Uint8Array): void;
  /** The last call: the stream could not be opened, broke, or was ended by the server. */
  onEnd(status: StatusDetails): void;
}

export interface WatchStream {
  /** No more frames until `resume`, but for a few that are on their way; the network holds up the server. */
  pause(): void;
  resume(): void;
  /** Takes the stream and its connection down at once. */
  destroy(): void;
}

export interface Transport {
  /** Where streams may be opened to; they are tried in turn. At least one. */
  readonly addresses: readonly { readonly text: string; readonly local: boolean }[];
  /** Opens a stream to `addresses[index]`. */
  open(index: number, handlers: StreamHandlers): Stream;
  /** Opens a watch of `addresses[index]`, on a connection of its own. */
  openWatch(index: number, request: Uint8Array, handlers: WatchHandlers): WatchStream;
}
