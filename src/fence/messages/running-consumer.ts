import type { Floor } from "../fence.js";

/** A running consumer. Made by `rabbitmqConsumer`, `kafkajsConsumer` and `platformaticConsumer`. */
export interface RunningConsumer {
  /**
   * Resolves when it was closed. Rejects when it has ended for another reason: LIMIT (no more messages can be held
   * back), UNREACHABLE (the broker or the connection has gone), or what the handler threw last. Wait for it, or catch
   * it: what was not dealt with goes back to the broker, and nothing is consumed any more.
   */
  readonly ended: Promise<void>;
  /** The highest token on record of a key. Rejects INVALID. */
  inspect(resource: string): Promise<Floor>;
  /** Forgets what is on record of a key: stale producers are let in again. For administrators. Rejects INVALID. */
  reset(resource: string): Promise<void>;
  /** Goes on behind the gap at which a key stands (`onGap: "stop"`). False: it stands at none. Throws INVALID. */
  skip(resource: string): boolean;
  /** Ends it: what handlers are at is finished, everything else goes back to the broker. */
  close(): Promise<void>;
}
