/**
 * Keeps one stream to one of the addresses, and opens the next when it breaks: with a growing, random delay, the
 * addresses in turn. What the frames mean is not its business, except that the first answer must come in time.
 */
import type { Timer, TimeSource } from "../clock/elapsed.js";
import type { Stream, Transport } from "../transport.js";
import type { StatusDetails } from "../wire/index.js";
import { backoffMs } from "./backoff.js";

type State =
  /** No stream, and none is wanted. */
  | { readonly is: "idle" }
  /** A stream was opened; the server has not answered. */
  | { readonly is: "connecting"; readonly stream: Stream; readonly timer: Timer }
  | { readonly is: "connected"; readonly stream: Stream }
  /** Waits before the next try. */
  | { readonly is: "disconnected"; readonly timer: Timer }
  | { readonly is: "closed" };

export type LinkState = State["is"];

/** What the session does with the link. */
export interface LinkUser {
  /** A stream is open: say hello. */
  greet(): void;
  onFrame(bytes: Uint8Array): void;
  onDrain(): void;
  /** The stream is gone, or could not be had. Returns whether another is wanted, and how long not to try. */
  onDown(status: StatusDetails, wasConnected: boolean): { readonly reconnect: boolean; readonly notBeforeMs: number };
  onState(state: LinkState): void;
}

export interface LinkOptions {
  readonly transport: Pick<Transport, "addresses" | "open">;
  readonly time: TimeSource;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly connectTimeoutMs: number;
}

const NO_TIMER: Timer = { cancel() {} };
const NO_ANSWER: StatusDetails = { code: 14, message: "no answer", reason: "" };

export class Link {
  readonly #options: LinkOptions;
  readonly #user: LinkUser;
  #state: State = { is: "idle" };
  /** Tries since the last one that succeeded. */
  #failures = 0;
  #tries = 0;
  /** Where the last stream was opened to. */
  address: Transport["addresses"][number];

  constructor(options: LinkOptions, user: LinkUser) {
    this.#options = options;
    this.#user = user;
    this.address = options.transport.addresses[0]!;
  }

  get state(): LinkState {
    return this.#state.is;
  }

  #setState(state: State): void {
    const changed = state.is !== this.#state.is;
    this.#state = state;
    if (changed) this.#user.onState(state.is);
  }

  /** Somebody needs it. */
  want(): void {
    if (this.#state.is === "idle") this.#open();
  }

  #open(): void {
    const { transport, time, connectTimeoutMs } = this.#options;
    const index = this.#tries++ % transport.addresses.length;
    this.address = transport.addresses[index]!;
    // Each handler knows its own stream, so that what comes late from an older one is not taken for the present one's.
    const isCurrent = () =>
      (this.#state.is === "connecting" || this.#state.is === "connected") && this.#state.stream === stream;
    const stream: Stream = transport.open(index, {
      onFrame: (bytes) => void (isCurrent() && this.#user.onFrame(bytes)),
      onDrain: () => void (isCurrent() && this.#user.onDrain()),
      onEnd: (status) => void (isCurrent() && this.#down(status)),
    });
    const timer = time.setTimer(connectTimeoutMs, () => isCurrent() && this.drop(NO_ANSWER));
    this.#setState({ is: "connecting", stream, timer });
    this.#user.greet();
  }

  /** The server has answered the greeting. */
  established(): void {
    if (this.#state.is !== "connecting") return;
    this.#state.timer.cancel();
    this.#failures = 0;
    this.#setState({ is: "connected", stream: this.#state.stream });
  }

  /** False: wait for `onDrain` before the next. */
  send(bytes: Buffer): boolean {
    if (this.#state.is !== "connecting" && this.#state.is !== "connected") return false;
    return this.#state.stream.send(bytes);
  }

  /** Gives the stream up. */
  drop(status: StatusDetails): void {
    if (this.#state.is !== "connecting" && this.#state.is !== "connected") return;
    this.#state.stream.destroy();
    this.#down(status);
  }

  #down(status: StatusDetails): void {
    const wasConnected = this.#state.is === "connected";
    if (this.#state.is === "connecting") this.#state.timer.cancel();
    // Whatever the user asks for while it is told, it is the delay below that decides when to try again.
    this.#setState({ is: "disconnected", timer: NO_TIMER });
    const { reconnect, notBeforeMs } = this.#user.onDown(status, wasConnected);
    if (this.#state.is !== "disconnected") return;
    if (!reconnect) {
      this.#setState({ is: "idle" });
      return;
    }
    // A round through all addresses counts as one failure.
    const round = Math.floor(this.#failures++ / this.#options.transport.addresses.length);
    const delayMs = Math.max(notBeforeMs, backoffMs(round, this.#options.random()));
    const timer = this.#options.time.setTimer(delayMs, () => this.#retry(), true);
    this.#setState({ is: "disconnected", timer });
  }

  #retry(): void {
    if (this.#state.is === "disconnected") this.#open();
  }

  /** Nobody needs it any more. */
  rest(): void {
    this.#leave({ is: "idle" });
    this.#failures = 0;
  }

  close(): void {
    this.#leave({ is: "closed" });
  }

  #leave(to: State): void {
    const state = this.#state;
    if (state.is === "closed") return;
    this.#setState(to);
    if (state.is === "connecting") {
      state.timer.cancel();
      state.stream.destroy();
    } else if (state.is === "connected") state.stream.end();
    else if (state.is === "disconnected") state.timer.cancel();
  }
}
