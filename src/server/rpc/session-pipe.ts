/** Between a session and what carries its stream. */
import type { WireFailure } from "./errors.js";

/** The way back to the client. None of the methods may throw. */
export interface SessionPipe {
  write(bytes: Buffer): void;
  /** What has been written and not yet taken by the client's side. */
  bufferedBytes(): number;
  /** Nothing more is to be received for `ms`. Absent: whoever sends is trusted. */
  rest?(ms: number): void;
  /** Ends the stream after what has been written; with a status when there is a failure. Called at most once. */
  close(failure: WireFailure | null): void;
  /** Ends the stream at once and drops what has been written. Called at most once, and not after `close`. */
  reset(failure: WireFailure): void;
}

/** What the carrier of a stream calls. */
export interface SessionInput {
  /** A frame. The bytes belong to the session afterwards. */
  receive(bytes: Uint8Array): void;
  /** The client ended the stream, or it broke. May be called more than once. */
  ended(): void;
}
