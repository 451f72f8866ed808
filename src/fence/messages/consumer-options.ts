/** What every consumer of stamped messages is told, whatever the broker. */
import { invalid, show } from "../errors.js";
import { checkKeys, checkWhole } from "../token.js";
import type { HighWater } from "./high-water.js";
import type { Gap, OrderOptions } from "./order.js";
import type { Position } from "./stamp.js";

/** What a handler learns of its message beside the message itself. */
export interface MessageContext<Tx> extends Position {
  /** Published under a shared hold: in no order with others, and handled again when it is delivered again. */
  readonly shared: boolean;
  /** The producer's Lamport timestamp, if it sent one. */
  readonly timestamp: number | undefined;
  /** 1, 2…: how often this consumer has tried the message, this time included. */
  readonly attempt: number;
  /** Aborted when the consumer ends. */
  readonly signal: AbortSignal;
  /**
   * Puts on record that the message is handled, in the transaction of the handler's effect: late in it, as it locks the
   * key's mark until the end. (For a shared hold it only checks that nobody with a higher token has come.) Without it
   * the record is written after the handler, and a crash between the two repeats the effect.
   *
   * Rejects STALE_TOKEN or CONFLICT (it is handled already) when another consumer was first: let it pass, so that the
   * transaction is rolled back. The message is then dropped.
   */
  save(tx: Tx): Promise<void>;
}

/** What happened to a message, or to a key. */
export type Report =
  /** Its handler is done, and that is on record. */
  | ({ readonly is: "handled" } & Position)
  /** A marker: lower tokens are refused from now on. (That of a shared hold was only checked.) */
  | ({ readonly is: "raised" } & Position)
  /** Handled before, or there twice. Dropped. */
  | ({ readonly is: "duplicate" } & Position & Dropped)
  /** Its token is below the floor. Dropped. */
  | ({ readonly is: "stale"; readonly floor: number } & Position & Dropped)
  /** Its handler failed in every attempt. */
  | ({ readonly is: "failed"; readonly error: unknown } & Position)
  /** It has no stamp that can be read. Dropped. */
  | { readonly is: "invalid"; readonly error: unknown }
  /** Messages of a key are missing. */
  | ({ readonly is: "gap" } & Gap);

interface Dropped {
  /** The handler had run before that was found out, and did not use `save`: its effect is there. */
  readonly applied: boolean;
}

export interface ConsumerOptions<Tx> {
  /** Where it is on record what was handled. */
  readonly highWater: HighWater<Tx>;
  /**
   * What to do about missing messages that do not come: `skip` reports the gap, and goes on behind it. `stop` reports
   * it, and the key stands still until they come, or until `skip(key)` is called; when no more messages can be held
   * back, the consumer ends with LIMIT.
   */
  readonly onGap: "skip" | "stop";
  /** How long to wait for missing messages. Default: 10,000. */
  readonly gapMs?: number | undefined;
  /** How many messages may be held back behind missing ones, in all keys. Default: 100. */
  readonly heldMax?: number | undefined;
  /** How many in one key. Default: `heldMax`. */
  readonly heldPerKeyMax?: number | undefined;
  /** How many keys are kept in memory; others are read from the record. Default: 10,000. */
  readonly keysMax?: number | undefined;
  /** How many messages, of different keys, are handled at a time. Default: 10. */
  readonly concurrency?: number | undefined;
  /** How often a message is tried before its handler counts as failed. Default: 3. */
  readonly attemptsMax?: number | undefined;
  /** The pause after the first failed attempt; it doubles with each one, up to 30,000. Default: 100. */
  readonly retryMs?: number | undefined;
  /**
   * What to do about a message whose handler failed in every attempt: `stop` ends the consumer and leaves the message
   * with the broker; `skip` goes on without it (RabbitMQ: it is rejected, and goes to the dead-letter exchange if there
   * is one). Default: `stop`.
   */
  readonly onFailure?: "stop" | "skip" | undefined;
  /** Told of everything that happens to messages. Must not throw. */
  readonly report?: ((report: Report) => void) | undefined;
  /** Observes the timestamps of messages before they are handled: `client.clock`. */
  readonly clock?: { observe(timestamp: number): unknown } | undefined;
}

export const CONSUMER_KEYS = [
  "highWater",
  "onGap",
  "gapMs",
  "heldMax",
  "heldPerKeyMax",
  "keysMax",
  "concurrency",
  "attemptsMax",
  "retryMs",
  "onFailure",
  "report",
  "clock",
] as const satisfies readonly (keyof ConsumerOptions<never>)[];

/** The options with their defaults. */
export interface Settings<Tx> extends OrderOptions {
  readonly highWater: HighWater<Tx>;
  readonly concurrency: number;
  readonly attemptsMax: number;
  readonly retryMs: number;
  readonly onFailure: "stop" | "skip";
  readonly report: (report: Report) => void;
  readonly clock: { observe(timestamp: number): unknown } | undefined;
}

const DAY_MS = 86_400_000;
const HELD_MAX = 100;

/** Checks the options, and fills in the defaults. `more`: the options that the broker's consumer has besides. */
export function consumerSettings<Tx>(options: ConsumerOptions<Tx>, more: readonly string[]): Settings<Tx> {
  checkKeys(options, [...CONSUMER_KEYS, ...more], "the options of a consumer");
  const { highWater, onGap, onFailure = "stop", heldMax = HELD_MAX } = options;
  if (typeof highWater?.load !== "function") throw invalid("a consumer needs a highWater: where its marks are kept");
  if (onGap !== "skip" && onGap !== "stop") throw invalid(`onGap must be skip or stop, not ${show(onGap)}`);
  if (onFailure !== "skip" && onFailure !== "stop")
    throw invalid(`onFailure must be skip or stop, not ${show(onFailure)}`);
  checkWhole(heldMax, "heldMax", 1, 1_000_000);
  return {
    highWater,
    onGap,
    onFailure,
    heldMax,
    heldPerKeyMax: checkWhole(options.heldPerKeyMax ?? heldMax, "heldPerKeyMax", 1, heldMax),
    gapMs: checkWhole(options.gapMs ?? 10_000, "gapMs", 0, DAY_MS),
    keysMax: checkWhole(options.keysMax ?? 10_000, "keysMax", 1, 10_000_000),
    concurrency: checkWhole(options.concurrency ?? 10, "concurrency", 1, 10_000),
    attemptsMax: checkWhole(options.attemptsMax ?? 3, "attemptsMax", 1, 1_000),
    retryMs: checkWhole(options.retryMs ?? 100, "retryMs", 0, DAY_MS),
    report: options.report ?? (() => {}),
    clock: options.clock,
  };
}
