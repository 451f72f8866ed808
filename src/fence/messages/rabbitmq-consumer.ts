/**
 * An ordered consumer of stamped messages for RabbitMQ, on a channel of amqplib.
 *
 * A message is acknowledged when it is handled, and not before, so messages that are held back behind a missing one are
 * unacknowledged. RabbitMQ delivers no more than `prefetch` unacknowledged messages:
 *
 *     prefetch 2; messages 2 and 3 are delivered and held back, since 1 is missing
 *     1 is in the queue again                       <- and is never delivered: two are unacknowledged already
 *
 * So the prefetch must exceed the number of messages that may be held back, and is refused if it does not.
 *
 * One consumer at a time: if two share a queue, each gets a part of the messages of a key, and waits for the others'
 * part. So it consumes exclusively. To have a second one that stands by, declare the queue with the argument
 * `x-single-active-consumer`, and say `exclusive: false`.
 */
import { randomUUID } from "node:crypto";
import { FenceError, invalid, show } from "../errors.js";
import { checkWhole } from "../token.js";
import { OrderedConsumer, type Settled } from "./consumer.js";
import { type ConsumerOptions, consumerSettings } from "./consumer-options.js";
import type { RunningConsumer } from "./running-consumer.js";
import type { ReceivedHeaders } from "./stamp.js";
import type { Handler } from "./work.js";

/** What is used of a message of amqplib. The handler gets it as the driver delivered it. */
export interface AmqpMessage {
  readonly content: Buffer;
  readonly fields: { readonly deliveryTag: number; readonly redelivered: boolean };
  readonly properties: { readonly headers?: Readonly<Record<string, unknown>> | undefined };
}

/** What is used of a `Channel` of amqplib. */
export interface AmqpChannel<M extends AmqpMessage> {
  prefetch(count: number): Promise<unknown>;
  consume(
    queue: string,
    onMessage: (message: M | null) => void,
    options: { readonly consumerTag: string; readonly exclusive: boolean; readonly noAck: boolean },
  ): Promise<unknown>;
  cancel(consumerTag: string): Promise<unknown>;
  ack(message: M): void;
  nack(message: M, allUpTo: boolean, requeue: boolean): void;
  on(event: "close" | "error", listener: (error?: unknown) => void): unknown;
}

export interface RabbitmqConsumerOptions<Tx> extends ConsumerOptions<Tx> {
  /** How many messages may be unacknowledged; at least `heldMax` + 1. Default: `heldMax` + 100. */
  readonly prefetch?: number | undefined;
  /** Default: true. False only for a queue that has `x-single-active-consumer`. */
  readonly exclusive?: boolean | undefined;
}

const PREFETCH_MAX = 65_535;

/** The part of amqplib's channel that knows when it is closed: acknowledging on a closed one throws. */
class Acknowledger<M extends AmqpMessage> {
  open = true;

  constructor(readonly channel: AmqpChannel<M>) {}

  settle(message: M, settled: Settled): void {
    if (!this.open) return; // the broker has taken back everything that was not acknowledged
    try {
      if (settled === "done") this.channel.ack(message);
      else this.channel.nack(message, false, settled === "returned");
    } catch {
      this.open = false; // closed a moment ago, and its event is on the way
    }
  }
}

/**
 * Consumes a queue: messages of one key in order, each once, none of a stale producer. Resolves when it consumes. Sets
 * the channel's prefetch; give it a channel of its own.
 *
 * Rejects INVALID for bad options, and what the driver throws, for example when there is no such queue, or somebody
 * else consumes it.
 *
 * @example
 * const marks = postgresHighWater(pool, { consumer: "billing" });
 * const consumer = await rabbitmqConsumer(
 *   await connection.createChannel(),
 *   "orders",
 *   (message, context) =>
 *     inTransaction(pool, async (tx) => {
 *       await apply(tx, JSON.parse(message.content.toString()));
 *       await context.save(tx);
 *     }),
 *   { highWater: marks, onGap: "skip", report: (report) => log.info(report) },
 * );
 * await consumer.ended;
 */
export async function rabbitmqConsumer<M extends AmqpMessage, Tx>(
  channel: AmqpChannel<M>,
  queue: string,
  handler: Handler<M, Tx>,
  options: RabbitmqConsumerOptions<Tx>,
): Promise<RunningConsumer> {
  const settings = consumerSettings(options, ["prefetch", "exclusive"]);
  const { exclusive = true } = options;
  if (typeof exclusive !== "boolean") throw invalid(`exclusive must be true or false, not ${show(exclusive)}`);
  const wanted = options.prefetch ?? Math.min(settings.heldMax + 100, PREFETCH_MAX);
  const prefetch = checkWhole(wanted, "prefetch", 1, PREFETCH_MAX);
  if (prefetch <= settings.heldMax) {
    const why = "otherwise a missing message is not delivered while all those behind it are unacknowledged";
    throw invalid(`prefetch (${prefetch}) must be greater than heldMax (${settings.heldMax}): ${why}`);
  }

  const acknowledger = new Acknowledger(channel);
  const consumerTag = randomUUID(); // chosen here: it may have to be cancelled before `consume` has resolved
  const stopDelivery = async () => {
    if (acknowledger.open) await channel.cancel(consumerTag);
  };
  const consumer = new OrderedConsumer<M, Tx>(handler, settings, stopDelivery);
  const gone = (cause?: unknown) => {
    acknowledger.open = false;
    consumer.fail(new FenceError("UNREACHABLE", "the channel is closed", cause === undefined ? {} : { cause }));
  };
  channel.on("error", gone);
  channel.on("close", () => gone());

  const onMessage = (message: M | null) => {
    if (message === null) {
      consumer.fail(new FenceError("UNREACHABLE", `the broker has cancelled the consumer of ${show(queue)}`));
      return;
    }
    const headers: ReceivedHeaders = message.properties.headers ?? {};
    void consumer.accept(headers, message, (settled) => acknowledger.settle(message, settled));
  };
  try {
    await channel.prefetch(prefetch);
    await channel.consume(queue, onMessage, { consumerTag, exclusive, noAck: false });
  } catch (error) {
    consumer.abandon(error);
    throw error;
  }
  return consumer;
}
