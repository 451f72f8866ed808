/**
 * Kafka's messages with the real @platformatic/kafka, and a broker in memory that speaks its protocol: see
 * kafka-broker.ts.
 */
import { randomUUID } from "node:crypto";
import {
  type Handler,
  MemoryHighWater,
  type PlatformaticConsumerOptions,
  platformaticConsumer,
  platformaticProducer,
} from "@leasehold/fence/kafka";
import { Consumer, type Message, Producer } from "@platformatic/kafka";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { stampHeaders } from "../../src/fence/messages/stamp.js";
import { startBroker } from "./kafka-broker.js";
import { exclusive } from "./locks.js";
import { Verdicts } from "./messages-support.js";
import { settled } from "./messages-timing.js";

const poll = { timeout: 30_000, interval: 10 };

describe("@platformatic/kafka", () => {
  let broker: Awaited<ReturnType<typeof startBroker>>;
  let producer: Producer;

  beforeAll(async () => {
    broker = await startBroker();
    producer = new Producer({ clientId: "test", bootstrapBrokers: broker.brokers });
  });
  afterAll(async () => {
    await producer?.close();
    await broker?.stop();
  });

  const newTopic = () => `topic-${randomUUID()}`;

  /** Writes like any program might, into partition 0, with a stamp of its own making. */
  async function sendRaw(topic: string, ...positions: string[]): Promise<void> {
    const messages = positions.map((position) => {
      const [key = "", token, sequence] = position.split(".");
      const stamp = { key, token: Number(token), sequence: Number(sequence), shared: false, timestamp: undefined };
      const headers = Object.entries(stampHeaders(stamp)).map(
        ([name, value]) => [Buffer.from(name), Buffer.from(value)] as const,
      );
      return { topic, partition: 0, key: Buffer.from(key), value: Buffer.from(position), headers: new Map(headers) };
    });
    await producer.send({ messages, acks: -1 });
  }

  async function consume(
    topic: string,
    highWater: MemoryHighWater,
    options: Partial<PlatformaticConsumerOptions<unknown>> = {},
    handler: Handler<Message, unknown> = () => {},
  ) {
    const verdicts = new Verdicts();
    const contents: string[] = [];
    const consumer = new Consumer({
      ...{ groupId: topic, clientId: randomUUID(), bootstrapBrokers: broker.brokers, maxWaitTime: 20, minBytes: 1 },
      ...{ sessionTimeout: 6_000, rebalanceTimeout: 6_000, heartbeatInterval: 50 },
    });
    let joins = 0;
    consumer.on("consumer:group:join", () => {
      joins += 1;
    });
    const running = await platformaticConsumer(
      consumer,
      async (message: Message, context) => {
        await handler(message, context);
        contents.push(String(message.value));
      },
      { topics: [topic], highWater, onGap: "stop", report: verdicts.report, ...options },
    );
    running.ended.catch(() => {}); // each test says what it expects of it
    onTestFinished(async () => {
      await running.close();
      await consumer.close(true);
    });
    return { consumer, running, verdicts, contents, joins: () => joins };
  }

  test("what a stamped producer publishes is handled once and in order, across keys and partitions", async () => {
    const topic = newTopic();
    const stamped = platformaticProducer(producer, { topic });
    const keys = ["a", "b", "c", "d/ä"];
    await Promise.all(
      keys.map((key, i) =>
        stamped.under(exclusive(key, 5 + i), async (publisher) => {
          for (let n = 1; n <= 50; n++) void publisher.publish({ value: `${key}.${n}`, headers: { trace: "t" } });
        }),
      ),
    );
    let headers: ReadonlyMap<unknown, unknown> = new Map();
    const { verdicts, contents } = await consume(topic, new MemoryHighWater(), {}, (message) => {
      headers = message.headers;
    });
    await verdicts.has("handled", keys.length * 50);
    expect(verdicts.of("raised").length).toBe(keys.length);
    for (const key of keys) {
      const own = contents.filter((one) => one.startsWith(`${key}.`));
      expect(own).toEqual(Array.from({ length: 50 }, (_, i) => `${key}.${i + 1}`));
    }
    expect([...headers.keys()].map(String)).toContain("trace");
  });

  test("duplicates and a stale producer are dropped, and everything is committed", async () => {
    const topic = newTopic();
    await sendRaw(topic, "k.7.2", "k.7.1", "k.7.1", "k.6.9", "k.8.0", "k.7.3", "k.8.1");
    const { verdicts, contents } = await consume(topic, new MemoryHighWater());
    await verdicts.has("handled", 3);
    expect(contents).toEqual(["k.7.1", "k.7.2", "k.8.1"]);
    expect(verdicts.of("stale").map(({ token, sequence }) => `${token}.${sequence}`)).toEqual(["6.9", "7.3"]);
    await expect.poll(() => broker.committed(topic, topic, 0), poll).toBe(7n);
  });

  test("what is held back is not committed, nor is what comes behind it; after a restart it is all there", async () => {
    const topic = newTopic();
    const highWater = new MemoryHighWater();
    await sendRaw(topic, "b.5.1", "a.5.2", "b.5.2", "b.5.3"); // a.5.1 has not come
    const first = await consume(topic, highWater);
    await first.verdicts.has("handled", 3);
    await first.running.close();
    await first.running.ended;
    expect(broker.committed(topic, topic, 0)).toBe(1n);
    await first.consumer.close(true);

    await sendRaw(topic, "a.5.1");
    const second = await consume(topic, highWater);
    await second.verdicts.has("handled", 2);
    expect(second.contents).toEqual(["a.5.1", "a.5.2"]);
    await expect.poll(() => broker.committed(topic, topic, 0), poll).toBe(5n);
  });

  test("when the group is joined anew, what was held back comes again, and everything is handled once", async () => {
    const topic = newTopic();
    const highWater = new MemoryHighWater(); // as a database would be: seen by both
    await sendRaw(topic, "a.5.2", "b.5.1");
    const first = await consume(topic, highWater);
    await first.verdicts.has("handled");
    const joined = first.joins();
    const second = await consume(topic, highWater);
    await expect.poll(() => first.joins(), poll).toBeGreaterThan(joined);
    const duplicates = () => [...first.verdicts.of("duplicate"), ...second.verdicts.of("duplicate")];
    await expect.poll(() => duplicates().length, poll).toBeGreaterThan(0);
    expect(duplicates().map(({ key }) => key)).toEqual(["b"]); // what was held back has come again, and is no duplicate
    expect(broker.committed(topic, topic, 0)).toBe(0n);
    await sendRaw(topic, "a.5.1", "b.5.2");
    await expect.poll(() => first.contents.length + second.contents.length, poll).toBe(4);
    const handled = [...first.contents, ...second.contents];
    expect(handled.filter((one) => one.startsWith("a"))).toEqual(["a.5.1", "a.5.2"]);
    expect([...first.verdicts.of("gap"), ...second.verdicts.of("gap")]).toEqual([]);
    await expect.poll(() => broker.committed(topic, topic, 0), poll).toBe(4n);
    // A new stream makes nobody join: that would make the others join, and they would begin new streams.
    expect(first.joins()).toBe(joined + 1);
    expect(second.joins()).toBe(1);
  });

  test("…also where nothing was committed, and a new stream would begin at the end", async () => {
    const topic = newTopic();
    const highWater = new MemoryHighWater();
    const first = await consume(topic, highWater, { fallbackMode: "latest" });
    // It is not told when the driver has found the end. What it handles it has not missed.
    for (let token = 1; first.contents.length === 0; token++) {
      await sendRaw(topic, `first.${token}.1`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const handled = first.contents.length;
    await sendRaw(topic, "a.5.2", "b.5.1");
    await expect.poll(() => first.contents, poll).toContain("b.5.1");
    const second = await consume(topic, highWater, { fallbackMode: "latest" });
    await second.running.close();
    await second.consumer.close(true);
    await sendRaw(topic, "a.5.1");
    const all = () => [...first.contents.slice(handled), ...second.contents].filter((one) => one.startsWith("a"));
    await expect.poll(all, poll).toEqual(["a.5.1", "a.5.2"]);
  });

  test("a rebalance in the midst of many messages, some of them held back, loses and repeats none", async () => {
    const topic = newTopic();
    const highWater = new MemoryHighWater();
    const EACH = 150;
    const numbers = Array.from({ length: EACH }, (_, i) => i + 1);
    // Each pair is written the wrong way round, and "late" lacks its first message until the end.
    const pairs = numbers.map((n) => `k.5.${n % 2 === 1 ? n + 1 : n - 1}`);
    await sendRaw(topic, ...pairs, ...numbers.slice(1, 40).map((n) => `late.5.${n}`));
    let slow = true;
    const handler = () => (slow ? new Promise((resolve) => setImmediate(resolve)) : undefined);
    const first = await consume(topic, highWater, {}, handler);
    await first.verdicts.has("handled", 20);
    const second = await consume(topic, highWater, {}, handler);
    await second.running.close();
    await second.consumer.close(true);
    slow = false;
    await sendRaw(topic, "late.5.1");
    await expect.poll(() => first.contents.length + second.contents.length, poll).toBe(EACH + 40);
    const handled = [...first.contents, ...second.contents];
    expect(new Set(handled).size).toBe(EACH + 40);
    for (const { contents } of [first, second]) {
      for (const key of ["k", "late"]) {
        const own = contents.filter((one) => one.startsWith(`${key}.`)).map((one) => Number(one.split(".")[2]));
        expect(own).toEqual([...own].sort((a, b) => a - b));
      }
    }
    await expect.poll(() => broker.committed(topic, topic, 0), poll).toBe(BigInt(EACH + 40));
  });

  test("close waits until what was handled is committed", async () => {
    const topic = newTopic();
    const { consumer, running, verdicts } = await consume(topic, new MemoryHighWater());
    await sendRaw(topic, "a.5.1");
    await expect.poll(() => broker.committed(topic, topic, 0), poll).toBe(1n);
    const commit = consumer.commit.bind(consumer);
    let open: () => void = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    const slow = async (options: Parameters<typeof commit>[0]) => {
      await gate;
      await commit(options);
    };
    Object.assign(consumer, { commit: slow });
    await sendRaw(topic, "a.5.2");
    await verdicts.has("handled", 2);
    let closed = false;
    const closing = running.close().then(() => {
      closed = true;
    });
    await settled();
    expect(closed).toBe(false);
    open();
    await closing;
    expect(broker.committed(topic, topic, 0)).toBe(2n);
  });

  test("stop: a message that cannot be handled is not committed, and comes again", async () => {
    const topic = newTopic();
    const highWater = new MemoryHighWater();
    await sendRaw(topic, "a.5.1", "a.5.2");
    const error = new Error("the database is away");
    const first = await consume(topic, highWater, { attemptsMax: 2, retryMs: 1 }, (message) => {
      if (String(message.value) === "a.5.2") throw error;
    });
    await expect(first.running.ended).rejects.toBe(error);
    expect(broker.committed(topic, topic, 0)).toBe(1n);
    await first.consumer.close(true);
    const second = await consume(topic, highWater);
    await second.verdicts.has("handled");
    expect(second.contents).toEqual(["a.5.2"]);
  });

  test("when the consumer is closed by somebody else, it ends", async () => {
    const topic = newTopic();
    await sendRaw(topic, "a.5.1");
    const { consumer, running, verdicts } = await consume(topic, new MemoryHighWater());
    await verdicts.has("handled");
    await consumer.close(true);
    await expect(running.ended).rejects.toBeInstanceOf(Error);
  });

  test("bad options are refused", async () => {
    const refused = expect.objectContaining({ code: "INVALID" });
    for (const options of [{ topics: [] }, { topics: "t" as unknown as string[] }, { fallbackMode: "x" as "latest" }]) {
      await expect(consume("t", new MemoryHighWater(), options)).rejects.toEqual(refused);
    }
    expect(() => platformaticProducer(producer, {} as { topic: string })).toThrow(refused);
  });
});
