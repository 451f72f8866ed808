/**
 * An ordered consumer of stamped messages for Kafka, with @platformatic/kafka. See kafkajs-consumer.ts for what Kafka
 * leaves to do.
 *
 * After a rebalance a stream of @platformatic/kafka goes on from the committed offsets, but delivers first what it had
 * fetched before:
 *
 *     message 10 is held back; 11 to 20 are in the stream's buffer; the group is joined anew
 *     all is forgotten, as 10 comes again           <- but first come 11 to 20, from the buffer
 *     11 is handled and committed, the consumer restarts: 10 is lost
 *
 * So each time the group is joined the stream is given up, and another one begins at the committed offsets.
 */
import { FenceError, invalid, show } from "../errors.js";
import { type ConsumerOptions, consumerSettings } from "./consumer-options.js";
import { Partitions } from "./partitions.js";
import type { RunningConsumer } from "./running-consumer.js";
import type { Handler } from "./work.js";

/** What is used of a message of @platformatic/kafka. The handler gets it as it is. */
export interface PlatformaticMessage {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  readonly headers: ReadonlyMap<unknown, unknown>;
}

/** What is used of a stream of @platformatic/kafka. */
export interface PlatformaticStream<M extends PlatformaticMessage> extends AsyncIterable<M> {
  close(): Promise<void>;
}

/** What is used of a consumer of @platformatic/kafka, with any deserializers. */
export interface PlatformaticConsumer<M extends PlatformaticMessage> {
  consume(options: {
    topics: string[];
    autocommit: boolean;
    mode: "committed";
    fallbackMode: "earliest" | "latest";
  }): Promise<PlatformaticStream<M>>;
  commit(options: {
    offsets: { topic: string; partition: number; offset: bigint; leaderEpoch: number }[];
  }): Promise<void>;
  on(event: "consumer:group:join", listener: () => void): unknown;
}

export interface PlatformaticConsumerOptions<Tx> extends ConsumerOptions<Tx> {
  readonly topics: readonly string[];
  /** Where to begin in a partition of which nothing is committed yet. Default: `earliest`. */
  readonly fallbackMode?: "earliest" | "latest" | undefined;
}

/** The commit is not for a certain epoch of the partition's leader. */
const ANY_EPOCH = -1;

/** The streams of a consumer, one after the other. */
class Streams<M extends PlatformaticMessage, Tx> {
  readonly #open: () => Promise<PlatformaticStream<M>>;
  readonly #concurrency: number;
  /** The one that is read; undefined: another one is being opened, or none is wanted any more. */
  #stream: PlatformaticStream<M> | undefined;
  /** The newest one. */
  #opening: Promise<PlatformaticStream<M>>;
  #reading: Promise<void> = Promise.resolve();
  #stopped = false;

  /** Opens the first one. The group is joined by that: the stream begins at this very assignment. */
  constructor(open: () => Promise<PlatformaticStream<M>>, concurrency: number) {
    this.#open = open;
    this.#concurrency = concurrency;
    this.#opening = this.#openNext();
  }

  async #openNext(): Promise<PlatformaticStream<M>> {
    const stream = await this.#open();
    if (!this.#stopped) this.#stream = stream;
    return stream;
  }

  /** The group was joined anew: the stream that is read is out of date. */
  giveUp(): void {
    const old = this.#stream;
    if (!old) return;
    this.#stream = undefined;
    // The next one first. Without any stream the consumer gives up its topics, and would join anew for the next one:
    // then all others join anew, give up their streams, and so on without an end.
    this.#opening = this.#openNext();
    const close = () => old.close();
    this.#opening.then(close, close).catch(() => {}); // one that cannot be closed is not read any more either
  }

  /** Resolves when there is a stream. It is read until `stop` is called. */
  async start(partitions: Partitions<M, Tx>): Promise<void> {
    await this.#opening;
    this.#reading = this.#readAll(partitions);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#stream = undefined;
    this.#opening.then((stream) => stream.close()).catch(() => {}); // as above; what could not be opened was told
    await this.#reading;
  }

  async #readAll(partitions: Partitions<M, Tx>): Promise<void> {
    try {
      while (!this.#stopped) await this.#read(await this.#opening, partitions);
      await partitions.flush();
    } catch (error) {
      partitions.fail(error);
    }
  }

  async #read(stream: PlatformaticStream<M>, partitions: Partitions<M, Tx>): Promise<void> {
    const inWork = new Set<Promise<void>>();
    const current = () => this.#stream === stream;
    try {
      for await (const message of stream) {
        while (current() && inWork.size >= this.#concurrency) await Promise.race(inWork);
        if (!current()) break;
        const { topic, partition, offset, headers } = message;
        const work = partitions
          .accept(topic, partition, offset, headers, message)
          .catch((error: unknown) => partitions.fail(error))
          .finally(() => inWork.delete(work));
        inWork.add(work);
      }
    } catch (error) {
      if (current()) throw error;
    }
    await Promise.all(inWork);
    if (current()) throw new FenceError("UNREACHABLE", "the stream of messages has ended");
  }
}

/**
 * Consumes topics with a consumer of @platformatic/kafka: messages of one key in order, each once, none of a stale
 * producer. Opens the streams itself, and commits only up to what is dealt with. `close()` ends that, and does not
 * close the consumer.
 *
 * Rejects INVALID for bad options, and what the driver throws.
 *
 * @example
 * const running = await platformaticConsumer(
 *   new Consumer({ groupId: "billing", clientId, bootstrapBrokers }),
 *   (message, context) =>
 *     inTransaction(pool, async (tx) => {
 *       await apply(tx, JSON.parse(message.value.toString()));
 *       await context.save(tx);
 *     }),
 *   { topics: ["orders"], highWater: postgresHighWater(pool, { consumer: "billing" }), onGap: "skip" },
 * );
 * await running.ended;
 */
export async function platformaticConsumer<M extends PlatformaticMessage, Tx>(
  consumer: PlatformaticConsumer<M>,
  handler: Handler<M, Tx>,
  options: PlatformaticConsumerOptions<Tx>,
): Promise<RunningConsumer> {
  const settings = consumerSettings(options, ["topics", "fallbackMode"]);
  const { topics, fallbackMode = "earliest" } = options;
  if (!Array.isArray(topics) || topics.length === 0) throw invalid(`topics are needed, not ${show(topics)}`);
  if (fallbackMode !== "earliest" && fallbackMode !== "latest") {
    throw invalid(`fallbackMode must be earliest or latest, not ${show(fallbackMode)}`);
  }
  const open = () => consumer.consume({ topics: [...topics], autocommit: false, mode: "committed", fallbackMode });
  const partitions = new Partitions<M, Tx>(handler, settings, {
    commit: (topic, partition, offset) =>
      consumer.commit({ offsets: [{ topic, partition, offset, leaderEpoch: ANY_EPOCH }] }),
    stop: () => streams.stop(),
  });
  consumer.on("consumer:group:join", () => {
    partitions.rejoined();
    streams.giveUp();
  });
  const streams = new Streams<M, Tx>(open, settings.concurrency);
  try {
    await streams.start(partitions);
  } catch (error) {
    partitions.abandon(error);
    throw error;
  }
  return partitions;
}
