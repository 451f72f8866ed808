import type { Command, Reply, Route } from "../core/types.js";

/**
 * A route as the sequencer sees it: where durable replies go. Implemented by unary calls and by session streams.
 *
 * Calls come in this order: any number of `deliver`, then one `flush`, again and again; `fail` at most once, as the last.
 * None of them may throw.
 */
export interface LiveRoute extends Route {
  /** A reply whose batch is durable. `timestamp` is the server's Lamport timestamp to send along. */
  deliver(reply: Reply, timestamp: number): void;
  /** All replies of a batch have been delivered: write them. */
  flush(): void;
  /** There will be no more replies: a call answers with this status, a stream ends with it. */
  fail(failure: RouteFailure): void;
}

export interface RouteFailure {
  /** OUTCOME_UNKNOWN: the command may or may not have taken effect. STORE_DOWN, CLOSED: it has not. */
  readonly reason: "OUTCOME_UNKNOWN" | "STORE_DOWN" | "CLOSED" | "LIMIT";
  readonly message: string;
  /** When to try again; 0: unknown. */
  readonly retryAfterMs: number;
}

/** What the transport layer needs of the sequencer. */
export interface CommandSink {
  /**
   * Hands a command over; it is stepped in order of arrival. Returns null when it was taken, else why not: then
   * nothing has happened and nothing will.
   */
  submit(command: Command): RouteFailure | null;
}
