import type { CoreEvent } from "../core/types.js";

/** Is told what happens, for watchers, metrics and logs. Must not throw. */
export interface SequencerObserver {
  /** A batch is durable: how long its append took, how long its first command had waited for it, how many commands. */
  commit(appendSeconds: number, queueSeconds: number, commands: number): void;
  /** What the core did; durable, and told in the order in which it became so. Never while the server does not lead. */
  event(event: CoreEvent): void;
  /** All events up to this timestamp have been told. Comes after the events of each batch. */
  told(timestamp: number): void;
  /** What was durable and not told yet is never told. */
  storeFailed(error: unknown): void;
  /** Events go on above `timestamp`. */
  storeRecovered(replayedRecords: number, timestamp: number): void;
}
