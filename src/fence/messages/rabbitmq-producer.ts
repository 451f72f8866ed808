/**
 * A stamped producer for RabbitMQ, on a confirm channel of amqplib.
 *
 * A confirm does not mean that a queue has the message. RabbitMQ confirms a message that no queue is bound for as well,
 * after it has dropped it. So messages are published as mandatory: those are returned, before they are confirmed, and
 * count as failed with NOT_FOUND.
 */
import { FenceError, invalid, show } from "../errors.js";
import { type ProducerOptions, StampedProducer, type Transport } from "./publisher.js";
import { checkHeaders, readStamp, type Stamp, stampHeaders } from "./stamp.js";

/** Options of amqplib's `publish`. The producer sets `mandatory` and its headers. */
export interface AmqpPublishOptions {
  readonly headers?: Readonly<Record<string, unknown>> | undefined;
  /** Default: true. */
  readonly persistent?: boolean | undefined;
  readonly contentType?: string | undefined;
  readonly contentEncoding?: string | undefined;
  readonly type?: string | undefined;
  readonly messageId?: string | undefined;
  readonly correlationId?: string | undefined;
  readonly replyTo?: string | undefined;
  readonly appId?: string | undefined;
  readonly timestamp?: number | undefined;
  readonly priority?: number | undefined;
  /** An expired message is missing, and its consumer waits for it. Better none. */
  readonly expiration?: string | number | undefined;
}

/** What is used of a message that RabbitMQ returned. */
export interface AmqpReturned {
  readonly properties: { readonly headers?: Readonly<Record<string, unknown>> | undefined };
}

/** What is used of a `ConfirmChannel` of amqplib. */
export interface AmqpConfirmChannel {
  publish(
    exchange: string,
    routingKey: string,
    content: Buffer,
    options: { headers: Record<string, unknown>; mandatory: boolean; persistent: boolean },
    confirmed: (error: unknown) => void,
  ): unknown;
  on(event: "return", listener: (message: AmqpReturned) => void): unknown;
}

/** A message for RabbitMQ. */
export interface RabbitmqMessage {
  readonly content: Buffer | string;
  readonly options?: AmqpPublishOptions | undefined;
}

export interface RabbitmqProducerOptions extends ProducerOptions {
  /** The queue to send to, by way of the default exchange. Either this or `exchange`. */
  readonly queue?: string | undefined;
  readonly exchange?: string | undefined;
  /**
   * The routing key, or what makes it out of the key (the name of the lock). All messages of a key must take the same
   * way: a consumer that gets only some of them waits for the others. Default: empty.
   */
  readonly routingKey?: string | ((key: string) => string) | undefined;
}

const PRODUCER_KEYS = ["queue", "exchange", "routingKey"];

/** Messages that were returned, of those that are not confirmed yet. */
type Returned = Set<string>;

const nameOf = ({ key, token, sequence }: Stamp): string => `${token} ${sequence} ${key}`;

class RabbitmqTransport implements Transport<RabbitmqMessage> {
  readonly #channel: AmqpConfirmChannel | (() => AmqpConfirmChannel);
  readonly #exchange: string;
  readonly #routingKey: (key: string) => string;
  readonly #returned = new WeakMap<AmqpConfirmChannel, Returned>();

  constructor(channel: AmqpConfirmChannel | (() => AmqpConfirmChannel), options: RabbitmqProducerOptions) {
    const { queue, exchange, routingKey = "" } = options;
    if ((queue === undefined) === (exchange === undefined)) throw invalid("give either a queue or an exchange");
    if (queue !== undefined && options.routingKey !== undefined) throw invalid("a queue needs no routing key");
    const given = queue ?? routingKey;
    if (typeof (exchange ?? "") !== "string" || !["string", "function"].includes(typeof given)) {
      throw invalid(`queue, exchange and routing key must be text, not ${show(exchange ?? given)}`);
    }
    this.#channel = channel;
    this.#exchange = exchange ?? "";
    this.#routingKey = typeof given === "function" ? given : () => given;
  }

  check(message: RabbitmqMessage): void {
    const { content, options } = message ?? {};
    if (typeof content !== "string" && !Buffer.isBuffer(content)) {
      throw invalid(`the content of a message must be text or a Buffer, not ${show(content)}`);
    }
    checkHeaders(options?.headers);
  }

  send(stamp: Stamp, message: RabbitmqMessage | undefined): Promise<void> {
    const content = Buffer.isBuffer(message?.content) ? message.content : Buffer.from(message?.content ?? "");
    const { persistent = true, headers, ...others } = message?.options ?? {};
    const options = { ...others, persistent, mandatory: true, headers: { ...headers, ...stampHeaders(stamp) } };
    return new Promise((resolve, reject) => {
      const returned = { set: undefined as Returned | undefined };
      const name = nameOf(stamp);
      const confirmed = (error: unknown) => {
        if (returned.set?.delete(name)) reject(this.#nobody(stamp));
        else if (error) reject(error);
        else resolve();
      };
      try {
        const channel = typeof this.#channel === "function" ? this.#channel() : this.#channel;
        returned.set = this.#watch(channel);
        channel.publish(this.#exchange, this.#routingKey(stamp.key), content, options, confirmed);
      } catch (cause) {
        // amqplib throws when the channel is closed, before it has sent anything.
        reject(
          new FenceError("UNREACHABLE", "the channel is closed", { resource: stamp.key, token: stamp.token, cause }),
        );
      }
    });
  }

  #nobody({ key, token }: Stamp): FenceError {
    const where = `exchange ${JSON.stringify(this.#exchange)}, routing key ${JSON.stringify(this.#routingKey(key))}`;
    return new FenceError("NOT_FOUND", `no queue takes the message (${where})`, { resource: key, token });
  }

  #watch(channel: AmqpConfirmChannel): Returned {
    const known = this.#returned.get(channel);
    if (known) return known;
    const returned: Returned = new Set();
    this.#returned.set(channel, returned);
    channel.on("return", ({ properties }) => {
      try {
        returned.add(nameOf(readStamp(properties.headers)));
      } catch {
        // somebody else's message on the same channel
      }
    });
    return returned;
  }
}

/**
 * A producer that stamps its messages, for one destination.
 *
 * `channel`: a confirm channel of amqplib. Or a function that gives the one of the moment, for connections that are
 * opened anew after a loss: it is called for each message, and may throw while there is none. Throws INVALID for bad
 * options.
 *
 * @example
 * const channel = await connection.createConfirmChannel();
 * const producer = rabbitmqProducer(channel, { queue: "orders" });
 * await client.withLock("orders/42", (lock) =>
 *   producer.under(lock, (publisher) => publisher.publish({ content: JSON.stringify({ id: 42, state: "paid" }) })),
 * );
 */
export function rabbitmqProducer(
  channel: AmqpConfirmChannel | (() => AmqpConfirmChannel),
  options: RabbitmqProducerOptions,
): StampedProducer<RabbitmqMessage> {
  return new StampedProducer(new RabbitmqTransport(channel, options), options, PRODUCER_KEYS);
}
