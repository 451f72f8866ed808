/**
 * What both Kafka consumers have in common: an ordered consumer, and the offsets of the partitions that are assigned.
 *
 * When the group is joined anew, the assignment may be another one, and each partition is read from its committed
 * offset again. So everything is forgotten that no handler is at: it will be delivered again, here or elsewhere, and
 * the marks of its keys are read from the record again, as another consumer may have moved them.
 */
import type { Floor } from "../fence.js";
import { OrderedConsumer, type Settled } from "./consumer.js";
import type { Settings } from "./consumer-options.js";
import { Offsets } from "./offsets.js";
import type { ReceivedHeaders } from "./stamp.js";
import type { Handler } from "./work.js";

/** What the driver's side does. */
export interface PartitionsDriver {
  /** Commits the offset of the next message to be delivered. */
  commit(topic: string, partition: number, offset: bigint): Promise<unknown>;
  /** Called once, when the consumer ends: nothing more is to be delivered. */
  stop(): Promise<void>;
}

interface Partition {
  readonly name: string;
  readonly topic: string;
  readonly partition: number;
  readonly offsets: Offsets;
  /** The offset of the last message that came. */
  last: bigint;
  /**
   * The offset at which it begins is committed. Where nothing is, a driver that joins anew goes on where it was, or at
   * the end, and what was held back would be lost.
   */
  readonly begun: Promise<unknown>;
}

export class Partitions<M, Tx> {
  readonly #consumer: OrderedConsumer<M, Tx>;
  readonly #driver: PartitionsDriver;
  #assigned = new Map<string, Partition>();
  #committing: Promise<void> | undefined;

  constructor(handler: Handler<M, Tx>, settings: Settings<Tx>, driver: PartitionsDriver) {
    this.#driver = driver;
    this.#consumer = new OrderedConsumer(handler, settings, () => driver.stop());
  }

  /** See `RunningConsumer`. */
  get ended(): Promise<void> {
    return this.#consumer.ended;
  }

  /**
   * Takes a message. Resolves when the next one of the partition may be taken. Rejects with what the driver throws when
   * it cannot commit the beginning of a partition.
   */
  async accept(
    topic: string,
    partition: number,
    offset: bigint,
    headers: ReceivedHeaders | undefined,
    message: M,
  ): Promise<void> {
    const assigned = this.#partition(topic, partition, offset);
    const { offsets, name } = assigned;
    await assigned.begun;
    if (this.#assigned.get(name) !== assigned) return; // joined anew meanwhile: it comes again
    offsets.take(offset);
    const settle = (settled: Settled) => {
      if (settled === "returned") return;
      offsets.settle(offset);
      this.#commit();
    };
    await this.#consumer.accept(headers, message, settle, assigned);
  }

  #partition(topic: string, partition: number, offset: bigint): Partition {
    const name = `${partition} ${topic}`;
    const known = this.#assigned.get(name);
    if (known && offset > known.last) {
      known.last = offset;
      return known;
    }
    if (known) this.#consumer.forget(known); // somebody has sought back: what is held of it comes again
    const begun = this.#driver.commit(topic, partition, offset).catch((error: unknown) => {
      this.#assigned.delete(name);
      throw error;
    });
    const assigned = { name, topic, partition, offsets: new Offsets(offset), last: offset, begun };
    this.#assigned.set(name, assigned);
    return assigned;
  }

  /** The assignment may have changed. */
  rejoined(): void {
    this.#assigned = new Map();
    this.#consumer.forget();
  }

  /** One request at a time; what is settled meanwhile goes with the next one. */
  #commit(): void {
    this.#committing ??= this.#commitAll().finally(() => {
      this.#committing = undefined;
    });
  }

  async #commitAll(): Promise<void> {
    for (let due = this.#due(); due.length > 0; due = this.#due()) {
      for (const { topic, partition, offsets, next } of due) {
        try {
          await this.#driver.commit(topic, partition, next);
        } catch {
          // The group is being joined anew, or the broker is away. It will be committed with a later message, or the
          // messages will be delivered again, and dropped.
          return;
        }
        offsets.committed(next);
      }
    }
  }

  #due(): (Partition & { readonly next: bigint })[] {
    return [...this.#assigned.values()].flatMap((one) => {
      const next = one.offsets.next();
      return next === undefined ? [] : [{ ...one, next }];
    });
  }

  abandon(error: unknown): void {
    this.#consumer.abandon(error);
  }

  fail(error: unknown): void {
    this.#consumer.fail(error);
  }

  inspect(resource: string): Promise<Floor> {
    return this.#consumer.inspect(resource);
  }

  reset(resource: string): Promise<void> {
    return this.#consumer.reset(resource);
  }

  skip(resource: string): boolean {
    return this.#consumer.skip(resource);
  }

  close(): Promise<void> {
    return this.#consumer.close();
  }

  /** Commits what can be; for the end. */
  async flush(): Promise<void> {
    await this.#committing;
    await this.#commitAll();
  }
}
