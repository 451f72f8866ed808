/**
 * The seam between the session protocol and the network: opening streams that carry bytes both ways. Tests put an
 * in-memory one in its place.
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

export interface Transport {
  /** Where streams may be opened to; they are tried in turn. At least one. */
  readonly addresses: readonly { readonly text: string; readonly local: boolean }[];
  /** Opens a stream to `addresses[index]`. */
  open(index: number, handlers: StreamHandlers): Stream;
}
