/**
 * An ordered consumer of stamped messages for Kafka, with kafkajs.
 *
 * Kafka keeps the order within a partition, and so within a key. What it does not do: it knows nothing of locks, so a
 * producer that has lost its lock writes on; a producer that tries again without idempotence writes twice; and after a
 * crash or a rebalance, everything since the last committed offset is delivered again.
 */
import { FenceError } from "../errors.js";
import { type ConsumerOptions, consumerSettings } from "./consumer-options.js";
import { Partitions } from "./partitions.js";
import type { RunningConsumer } from "./running-consumer.js";
import type { Handler } from "./work.js";

/** What is used of what kafkajs gives to `eachMessage`. The handler gets it as it is. */
export interface KafkajsPayload {
  readonly topic: string;
  readonly partition: number;
  readonly message: {
    readonly offset: string;
    readonly value: Buffer | null;
    readonly headers?: Readonly<Record<string, unknown>> | undefined;
  };
}

/** What is used of a consumer of kafkajs. */
export interface KafkajsConsumer<P extends KafkajsPayload> {
  run(config: {
    autoCommit: boolean;
    partitionsConsumedConcurrently: number;
    eachMessage: (payload: P) => Promise<void>;
  }): Promise<void>;
  stop(): Promise<void>;
  commitOffsets(offsets: { topic: string; partition: number; offset: string }[]): Promise<void>;
  on(event: "consumer.group_join", listener: () => void): unknown;
  on(event: "consumer.crash", listener: (event: { payload: { error: Error; restart: boolean } }) => void): unknown;
}

/**
 * Consumes with a consumer of kafkajs that is connected and subscribed: messages of one key in order, each once, none
 * of a stale producer. Calls its `run`; commits offsets itself, and only up to what is dealt with. `concurrency` is the
 * number of partitions that are consumed side by side. `close()` stops it and does not disconnect it.
 *
 * Rejects INVALID for bad options, and what the driver throws.
 *
 * @example
 * const consumer = kafka.consumer({ groupId: "billing" });
 * await consumer.connect();
 * await consumer.subscribe({ topics: ["orders"], fromBeginning: true });
 * const running = await kafkajsConsumer(
 *   consumer,
 *   ({ message }, context) =>
 *     inTransaction(pool, async (tx) => {
 *       await apply(tx, JSON.parse(message.value.toString()));
 *       await context.save(tx);
 *     }),
 *   { highWater: postgresHighWater(pool, { consumer: "billing" }), onGap: "skip" },
 * );
 * await running.ended;
 */
export async function kafkajsConsumer<P extends KafkajsPayload, Tx>(
  consumer: KafkajsConsumer<P>,
  handler: Handler<P, Tx>,
  options: ConsumerOptions<Tx>,
): Promise<RunningConsumer> {
  const settings = consumerSettings(options, []);
  let stopping = false;
  const partitions = new Partitions<P, Tx>(handler, settings, {
    commit: (topic, partition, offset) => consumer.commitOffsets([{ topic, partition, offset: String(offset) }]),
    async stop() {
      stopping = true;
      await partitions.flush(); // before kafkajs leaves the group
      await consumer.stop();
    },
  });
  consumer.on("consumer.group_join", () => partitions.rejoined());
  consumer.on("consumer.crash", ({ payload: { error: cause, restart } }) => {
    if (!restart) partitions.fail(new FenceError("UNREACHABLE", "the consumer of kafkajs has crashed", { cause }));
  });
  const eachMessage = async (payload: P) => {
    const { topic, partition, message } = payload;
    await partitions.accept(topic, partition, BigInt(message.offset), message.headers, payload);
    if (stopping) await partitions.flush(); // it was handled while the consumer was about to stop
  };
  try {
    await consumer.run({ autoCommit: false, partitionsConsumedConcurrently: settings.concurrency, eachMessage });
  } catch (error) {
    partitions.abandon(error);
    throw error;
  }
  return partitions;
}
