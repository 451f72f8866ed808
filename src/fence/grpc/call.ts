/**
 * A call at a server between the network and its handler, held back until it is admitted.
 *
 *     network -> metadata                       -> (read ahead: one message) -> admitted?
 *        no   -> status to the network; the handler never hears of the call
 *        yes  -> metadata to the handler; its first demand for a message gets the one that was read ahead
 */
import type { MessageClock } from "../admission/clock.js";
import type { Presence } from "../admission/turns.js";
import { FenceError } from "../errors.js";
import { carrierOf } from "./client.js";
import type { GrpcMetadata, GrpcStatus, ServerCall, ServerListener } from "./types.js";

/** What decides about a call. */
export interface Gate<Metadata> {
  /** Whether one message is read before the call is decided about. */
  readonly readsAhead: boolean;
  newMetadata(): Metadata;
  /** Resolves when the call may go on; undefined: without a fence. */
  open(metadata: Metadata, message: unknown, presence: Presence): Promise<Opened | undefined>;
  /** The status for what `open` rejected with. */
  refuse(error: unknown): GrpcStatus<Metadata>;
}

export interface Opened {
  /** The handler has ended. */
  end(): void;
  readonly clock: MessageClock | undefined;
}

/** What was read ahead. */
type Ahead = { readonly message: unknown } | "half-close";

export class FencedCall<Metadata extends GrpcMetadata, Inner extends ServerCall<Metadata>> implements Presence {
  readonly #call: Inner;
  readonly #gate: Gate<Metadata>;
  #onGone: (() => void) | undefined;
  #listener: ServerListener<Metadata> | undefined;
  #metadata: Metadata | undefined;
  #ahead: Ahead | undefined;
  #state: "waiting" | "open" | "closed" = "waiting";
  #opened: Opened | undefined;

  constructor(call: Inner, gate: Gate<Metadata>) {
    this.#call = call;
    this.#gate = gate;
  }

  /** Whether the caller has gone, for somebody who waits before the call is decided about. */
  get gone(): boolean {
    return this.#state === "closed";
  }

  onGone(listener: () => void): () => void {
    this.#onGone = listener;
    return () => {
      this.#onGone = undefined;
    };
  }

  /** The call as the handler's side is to see it. All that is not overridden goes to the network's side. */
  inner(): Inner {
    const overridden: ServerCall<Metadata> = {
      start: (listener) => this.#start(listener),
      startRead: () => this.#startRead(),
      sendMetadata: (metadata) => this.#call.sendMetadata(this.#stamped(metadata)),
      sendMessage: (message, callback) => {
        this.#opened?.end(); // of response streams this is the first message; those take no turns
        this.#call.sendMessage(message, callback);
      },
      sendStatus: (status) => {
        this.#opened?.end();
        this.#call.sendStatus(this.#opened?.clock ? { ...status, metadata: this.#stamped(status.metadata) } : status);
      },
    };
    return new Proxy(this.#call, {
      get(call, name) {
        if (Object.hasOwn(overridden, name)) return overridden[name as keyof typeof overridden];
        const value: unknown = Reflect.get(call, name);
        return typeof value === "function" ? value.bind(call) : value;
      },
    });
  }

  #start(listener: ServerListener<Metadata>): void {
    this.#listener = listener;
    this.#call.start({
      onReceiveMetadata: (metadata) => {
        this.#metadata = metadata;
        if (this.#gate.readsAhead) this.#call.startRead();
        else this.#decide(metadata, undefined);
      },
      onReceiveMessage: (message) => this.#receive({ message }),
      onReceiveHalfClose: () => this.#receive("half-close"),
      onCancel: () => this.#cancelled(),
    });
  }

  #receive(received: Ahead): void {
    if (this.#state === "open") this.#deliver(received);
    else if (this.#state === "waiting" && this.#metadata !== undefined) {
      this.#ahead = received;
      this.#decide(this.#metadata, received === "half-close" ? undefined : received.message);
    }
  }

  #deliver(received: Ahead): void {
    if (received === "half-close") this.#listener?.onReceiveHalfClose();
    else this.#listener?.onReceiveMessage(received.message);
  }

  #startRead(): void {
    const ahead = this.#ahead;
    this.#ahead = undefined;
    if (ahead === undefined) this.#call.startRead();
    else this.#deliver(ahead);
  }

  #decide(metadata: Metadata, message: unknown): void {
    this.#gate.open(metadata, message, this).then(
      (opened) => this.#letIn(metadata, opened),
      (error: unknown) => this.#refuse(error),
    );
  }

  #letIn(metadata: Metadata, opened: Opened | undefined): void {
    const refusal = this.#state === "closed" ? undefined : clockRefusal(opened?.clock, metadata);
    if (this.#state === "closed" || refusal) {
      opened?.end();
      if (refusal) this.#refuse(refusal);
      return;
    }
    this.#opened = opened;
    this.#state = "open";
    this.#listener?.onReceiveMetadata(metadata);
  }

  #refuse(error: unknown): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#call.sendStatus(this.#gate.refuse(error));
  }

  /** A caller that has gone. The handler is told if it was started, and has not ended by that: it may go on writing. */
  #cancelled(): void {
    if (this.#state === "open") this.#listener?.onCancel();
    else {
      this.#state = "closed";
      this.#onGone?.();
    }
  }

  #stamped(metadata: Metadata | null | undefined): Metadata {
    const stamped = metadata?.clone() ?? this.#gate.newMetadata();
    this.#opened?.clock?.inject(carrierOf(stamped));
    return stamped;
  }
}

/** Follows the timestamp of a call. Returns INVALID for one that is none. */
function clockRefusal(clock: MessageClock | undefined, metadata: GrpcMetadata): FenceError | undefined {
  try {
    clock?.extract(carrierOf(metadata));
    return undefined;
  } catch (cause) {
    return new FenceError("INVALID", "the metadata of the clock is no timestamp", { cause });
  }
}
