/**
 * Stamped producers for Kafka, with kafkajs and with @platformatic/kafka.
 *
 * The key of the lock is the key of the message, so all messages of a key are in one partition, and Kafka keeps them in
 * the order in which they were written. Requests that are in flight side by side may be written in another order when
 * one of them is tried again. So there is one request at a time; what is published meanwhile goes together with the
 * next one.
 *
 * The topic must not be compacted: compaction keeps the last message of a key, which may be a marker, and consumers
 * would wait for those that it has removed.
 */
import { invalid, show } from "../errors.js";
import { type ProducerOptions, StampedProducer, type Transport } from "./publisher.js";
import { checkHeaders, type Stamp, stampHeaders } from "./stamp.js";

/** A message for Kafka. Its key is what is fenced. */
export interface KafkaMessage {
  readonly value: Buffer | string;
  readonly headers?: Readonly<Record<string, Buffer | string>> | undefined;
}

export interface KafkaProducerOptions extends ProducerOptions {
  /** The topic to publish to. Not a compacted one. */
  readonly topic: string;
}

/** What is used of a producer of kafkajs. */
export interface KafkajsProducer {
  send(record: {
    topic: string;
    acks: number;
    messages: { key: string; value: Buffer; headers: Record<string, Buffer | string> }[];
  }): Promise<unknown>;
}

/** What is used of a producer of @platformatic/kafka without serializers: all is bytes. */
export interface PlatformaticProducer {
  send(options: {
    acks: number;
    messages: { topic: string; key: Buffer; value: Buffer; headers: Map<Buffer, Buffer> }[];
  }): Promise<unknown>;
}

/** What a request holds of a message. */
interface Entry {
  readonly key: string;
  readonly value: Buffer;
  readonly headers: Readonly<Record<string, Buffer | string>>;
}

interface Waiting extends Entry {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** -1: the leader answers when all replicas that are in sync have the message. Less could be lost after its confirm. */
const ACKS_ALL = -1;
/** Messages in one request; the broker limits its bytes as well. */
const BATCH_MAX = 100;

class KafkaTransport implements Transport<KafkaMessage> {
  readonly #request: (batch: readonly Entry[]) => Promise<unknown>;
  /** Bounded by what may be unconfirmed. */
  readonly #waiting: Waiting[] = [];
  #sending = false;

  constructor(request: (batch: readonly Entry[]) => Promise<unknown>) {
    this.#request = request;
  }

  check(message: KafkaMessage): void {
    const { value, headers } = message ?? {};
    if (typeof value !== "string" && !Buffer.isBuffer(value)) {
      throw invalid(`the value of a message must be text or a Buffer, not ${show(value)}`);
    }
    checkHeaders(headers);
    for (const [name, header] of Object.entries(headers ?? {})) {
      if (typeof header === "string" || Buffer.isBuffer(header)) continue;
      throw invalid(`the header ${show(name)} must be text or a Buffer, not ${show(header)}`);
    }
  }

  send(stamp: Stamp, message: KafkaMessage | undefined): Promise<void> {
    const value = message?.value ?? "";
    return new Promise((resolve, reject) => {
      this.#waiting.push({
        key: stamp.key,
        value: Buffer.isBuffer(value) ? value : Buffer.from(value),
        headers: { ...message?.headers, ...stampHeaders(stamp) },
        resolve,
        reject,
      });
      if (!this.#sending) void this.#sendAll();
    });
  }

  async #sendAll(): Promise<void> {
    this.#sending = true;
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, BATCH_MAX);
      try {
        await this.#request(batch);
        for (const { resolve } of batch) resolve();
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#sending = false;
  }
}

function checkTopic(options: KafkaProducerOptions): string {
  const { topic } = options ?? {};
  if (typeof topic !== "string" || topic === "") throw invalid(`a topic is needed, not ${show(topic)}`);
  return topic;
}

/**
 * A producer that stamps its messages, for one topic, with a connected producer of kafkajs. Throws INVALID for bad
 * options.
 *
 * @example
 * const producer = kafkajsProducer(kafka.producer(), { topic: "orders" });
 * await client.withLock("orders/42", (lock) =>
 *   producer.under(lock, (publisher) => publisher.publish({ value: JSON.stringify({ id: 42, state: "paid" }) })),
 * );
 */
export function kafkajsProducer(
  producer: KafkajsProducer,
  options: KafkaProducerOptions,
): StampedProducer<KafkaMessage> {
  const topic = checkTopic(options);
  const transport = new KafkaTransport((batch) =>
    producer.send({
      topic,
      acks: ACKS_ALL,
      messages: batch.map(({ key, value, headers }) => ({ key, value, headers })),
    }),
  );
  return new StampedProducer(transport, options, ["topic"]);
}

/**
 * A producer that stamps its messages, for one topic, with a producer of @platformatic/kafka that has no serializers.
 * Throws INVALID for bad options.
 *
 * @example
 * const producer = platformaticProducer(new Producer({ clientId, bootstrapBrokers }), { topic: "orders" });
 */
export function platformaticProducer(
  producer: PlatformaticProducer,
  options: KafkaProducerOptions,
): StampedProducer<KafkaMessage> {
  const topic = checkTopic(options);
  const bytes = (text: Buffer | string) => (typeof text === "string" ? Buffer.from(text) : text);
  const transport = new KafkaTransport((batch) =>
    producer.send({
      acks: ACKS_ALL,
      messages: batch.map(({ key, value, headers }) => ({
        topic,
        key: Buffer.from(key),
        value,
        headers: new Map(Object.entries(headers).map(([name, header]) => [Buffer.from(name), bytes(header)])),
      })),
    }),
  );
  return new StampedProducer(transport, options, ["topic"]);
}
