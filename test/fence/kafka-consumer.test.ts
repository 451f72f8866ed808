/** Kafka's producer and consumer with kafkajs: offsets, rebalances, restarts, a broker that stands still. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import {
  type ConsumerOptions,
  type Handler,
  type HighWater,
  type KafkajsProducer,
  kafkajsConsumer,
  kafkajsProducer,
  MemoryHighWater,
} from "@leasehold/fence/kafka";
import kafkajs, {
  type Consumer,
  type EachMessagePayload,
  type Kafka,
  type PartitionAssigner,
  type Producer,
} from "kafkajs";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { Offsets } from "../../src/fence/messages/offsets.js";
import { stampHeaders } from "../../src/fence/messages/stamp.js";
import { startKafka } from "../services/kafka.mjs";
import { startPostgres } from "../services/postgres.mjs";
import { until } from "../services/processes.mjs";
import { describeWithServices } from "../services/vitest.js";
import { kafkaOf } from "./kafka-subject.js";
import { exclusive } from "./locks.js";
import { Registers, Verdicts } from "./messages-support.js";
import { settled } from "./messages-timing.js";

const poll = { timeout: 30_000, interval: 10 };
const consumerScript = fileURLToPath(new URL("./holders/kafka-consumer.mjs", import.meta.url));

describe("offsets", () => {
  test("nothing beyond the first message that is not dealt with is committed", () => {
    const offsets = new Offsets(10n);
    expect(offsets.next()).toBeUndefined();
    for (const offset of [10n, 11n, 15n]) offsets.take(offset); // offsets have holes
    offsets.settle(11n);
    expect(offsets.next()).toBeUndefined();
    offsets.settle(10n);
    expect(offsets.next()).toBe(15n);
    offsets.committed(15n);
    expect(offsets.next()).toBeUndefined();
    offsets.settle(15n);
    expect(offsets.next()).toBe(16n);
  });
});

describeWithServices("Kafka's producer and consumer", ["kafka", "postgres"], () => {
  let broker: Awaited<ReturnType<typeof startKafka>>;
  let postgres: Awaited<ReturnType<typeof startPostgres>>;
  let pool: pg.Pool;
  let kafka: Kafka;
  let producer: Producer;

  beforeAll(async () => {
    [broker, postgres] = await Promise.all([startKafka(), startPostgres()]);
    pool = new pg.Pool({ connectionString: postgres.url });
    await new Registers(pool, "any").migrate();
    kafka = kafkaOf(broker.brokers);
    producer = kafka.producer();
    await producer.connect();
  });
  afterAll(async () => {
    await producer?.disconnect();
    await pool?.end();
    await Promise.all([broker?.stop(), postgres?.stop()]);
  });

  const newTopic = () => `topic-${randomUUID()}`;

  /** Writes like any program might, into partition 0, with a stamp of its own making. */
  async function sendRaw(topic: string, ...positions: string[]): Promise<void> {
    const messages = positions.map((position) => {
      const [key = "", token, sequence] = position.split(".");
      const headers = stampHeaders({
        key,
        token: Number(token),
        sequence: Number(sequence),
        shared: false,
        timestamp: undefined,
      });
      return { key, value: position, partition: 0, headers };
    });
    await producer.send({ topic, acks: -1, messages });
  }

  /**
   * Assigns as kafkajs does, once all others of the group wait for it. The mock broker takes a group for complete as soon
   * as it has the assignment, and answers whoever asks after that with INVALID_REQUEST, at which kafkajs gives up.
   */
  const followersFirst =
    (group: string): PartitionAssigner =>
    (config) => {
      const assigner = kafkajs.PartitionAssigners.roundRobin(config);
      const waiting = () => {
        const generation = broker.log.lastIndexOf(`Consumer group ${group} with`);
        return broker.log.slice(generation).match(/Received SyncGroupRequest/g)?.length ?? 0;
      };
      const assign: typeof assigner.assign = async (members) => {
        const followers = members.members.length - 1;
        await until(() => waiting() >= followers, { what: `${followers} others in ${group}` });
        return assigner.assign(members);
      };
      return { ...assigner, assign };
    };

  async function consume(
    topic: string,
    highWater: HighWater<unknown>,
    options: Partial<ConsumerOptions<unknown>> = {},
    handler: Handler<EachMessagePayload, unknown> = () => {},
  ) {
    const verdicts = new Verdicts();
    const contents: string[] = [];
    const consumer: Consumer = kafka.consumer({
      ...{
        groupId: topic,
        maxWaitTimeInMs: 10,
        heartbeatInterval: 100,
        sessionTimeout: 3_000,
        rebalanceTimeout: 3_000,
        partitionAssigners: [followersFirst(topic)],
      },
      retry: { retries: 20, initialRetryTime: 50, maxRetryTime: 500 },
    });
    const joined = new Promise((resolve) => consumer.on(consumer.events.GROUP_JOIN, resolve));
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    const running = await kafkajsConsumer(
      consumer,
      async (payload: EachMessagePayload, context) => {
        await handler(payload, context);
        contents.push(String(payload.message.value));
      },
      { highWater, onGap: "stop", report: verdicts.report, ...options },
    );
    running.ended.catch(() => {}); // each test says what it expects of it
    onTestFinished(async () => {
      await running.close();
      await consumer.disconnect();
    });
    await Promise.race([joined, running.ended]); // which rejects when kafkajs gives up
    return { consumer, running, verdicts, contents };
  }

  /** The offset that the group of a topic has committed for partition 0. */
  async function committed(topic: string): Promise<number> {
    const admin = kafka.admin();
    await admin.connect();
    try {
      const [offsets] = await admin.fetchOffsets({ groupId: topic, topics: [topic] });
      return Number(offsets?.partitions.find(({ partition }) => partition === 0)?.offset ?? -1);
    } finally {
      await admin.disconnect();
    }
  }

  test("what is held back is not committed, nor is what comes behind it; after a restart it is all there", async () => {
    const topic = newTopic();
    const highWater = new MemoryHighWater();
    await sendRaw(topic, "b.5.1", "a.5.2", "b.5.2", "b.5.3"); // a.5.1 has not come
    const first = await consume(topic, highWater);
    await first.verdicts.has("handled", 3);
    await first.running.close();
    expect(await committed(topic)).toBe(1);

    await sendRaw(topic, "a.5.1");
    const second = await consume(topic, highWater);
    await second.verdicts.has("handled", 2);
    await second.verdicts.has("duplicate", 2);
    expect(second.contents).toEqual(["a.5.1", "a.5.2"]);
    await expect.poll(() => committed(topic), poll).toBe(5);
  });

  test("messages written twice, out of order, and by a stale producer are handled once and in order", async () => {
    const topic = newTopic();
    await sendRaw(topic, "k.7.2", "k.7.1", "k.7.1", "k.7.3", "k.6.9", "k.7.2", "k.8.0", "k.7.4", "k.8.1");
    const { verdicts, contents } = await consume(topic, new MemoryHighWater());
    await verdicts.has("handled", 4);
    expect(contents).toEqual(["k.7.1", "k.7.2", "k.7.3", "k.8.1"]);
    expect(verdicts.of("stale").map(({ token, sequence }) => `${token}.${sequence}`)).toEqual(["6.9", "7.4"]);
    expect(verdicts.of("duplicate").length).toBe(2);
    await expect.poll(() => committed(topic), poll).toBe(9);
  });

  test("what has no stamp is passed over and reported", async () => {
    const topic = newTopic();
    await producer.send({ topic, messages: [{ key: "k", value: "no stamp", partition: 0 }] });
    await sendRaw(topic, "k.7.1");
    const { verdicts, contents } = await consume(topic, new MemoryHighWater());
    await verdicts.has("handled");
    expect(contents).toEqual(["k.7.1"]);
    expect(verdicts.of("invalid").length).toBe(1);
  });

  test("when the group is joined anew, what was held back comes again, and everything is handled once", async () => {
    const topic = newTopic();
    const highWater = new MemoryHighWater(); // as a database would be: seen by both
    await sendRaw(topic, "a.5.2", "b.5.1");
    const first = await consume(topic, highWater);
    await first.verdicts.has("handled");
    let joins = 0;
    first.consumer.on(first.consumer.events.GROUP_JOIN, () => ++joins);
    const second = await consume(topic, highWater);
    await expect.poll(() => joins, poll).toBeGreaterThan(0);
    const duplicates = () => [...first.verdicts.of("duplicate"), ...second.verdicts.of("duplicate")];
    await expect.poll(() => duplicates().length, poll).toBeGreaterThan(0);
    // What was held back has come again, and is no duplicate.
    expect(duplicates().map(({ key }) => key)).toEqual(["b"]);
    expect(await committed(topic)).toBe(0);
    await sendRaw(topic, "a.5.1", "b.5.2");
    await expect.poll(() => first.contents.length + second.contents.length, poll).toBe(4);
    expect([...first.contents, ...second.contents].filter((one) => one.startsWith("a"))).toEqual(["a.5.1", "a.5.2"]);
    expect([...first.verdicts.of("gap"), ...second.verdicts.of("gap")]).toEqual([]);
    await expect.poll(() => committed(topic), poll).toBe(4);
  });

  test("when somebody seeks back, everything that was handled is a duplicate", async () => {
    const topic = newTopic();
    await sendRaw(topic, "a.5.1", "a.5.2", "a.5.4");
    const { consumer, verdicts, contents } = await consume(topic, new MemoryHighWater());
    await verdicts.has("handled", 2);
    consumer.seek({ topic, partition: 0, offset: "0" });
    await verdicts.has("duplicate", 2);
    await sendRaw(topic, "a.5.3");
    await verdicts.has("handled", 4);
    expect(contents).toEqual(["a.5.1", "a.5.2", "a.5.3", "a.5.4"]);
    expect(verdicts.of("duplicate").length).toBe(2); // what was held back is none
  });

  test("stop: a message that cannot be handled is not committed, and comes again", async () => {
    const topic = newTopic();
    const highWater = new MemoryHighWater();
    await sendRaw(topic, "a.5.1", "a.5.2");
    const error = new Error("the database is away");
    const options = { attemptsMax: 2, retryMs: 1 };
    const first = await consume(topic, highWater, options, ({ message }) => {
      if (String(message.value) === "a.5.2") throw error;
    });
    await expect(first.running.ended).rejects.toBe(error);
    expect(await committed(topic)).toBe(1);
    const second = await consume(topic, highWater);
    await second.verdicts.has("handled");
    expect(second.contents).toEqual(["a.5.2"]);
  });

  test("close waits until what was handled is committed", async () => {
    const topic = newTopic();
    await sendRaw(topic, "a.5.1");
    const { consumer, running, verdicts } = await consume(topic, new MemoryHighWater());
    await expect.poll(() => committed(topic), poll).toBe(1);
    const commit = consumer.commitOffsets.bind(consumer);
    let open: () => void = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    consumer.commitOffsets = async (offsets) => {
      await gate;
      await commit(offsets);
    };
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
    expect(await committed(topic)).toBe(2);
  });

  test("a consumer that is killed between the commits of its effect and its offset has its effect once", async () => {
    const topic = newTopic();
    const stamped = kafkajsProducer(producer, { topic });
    await stamped.under(exclusive("orders/1", 5), (publisher) => publisher.publish({ value: "paid" }));
    const job = JSON.stringify({ brokers: broker.brokers, database: postgres.url, topic });
    const child: ChildProcess = spawn(process.execPath, [consumerScript, job], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    expect((await once(child, "message", { signal: AbortSignal.timeout(30_000) }))[0]).toEqual({ committed: 1 });
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;

    const registers = new Registers(pool, topic);
    const { verdicts } = await consume(topic, registers.marks as HighWater<unknown>, {}, ({ message }, context) =>
      registers.handle(String(message.value), context),
    );
    await verdicts.has("duplicate");
    expect(verdicts.of("duplicate")).toContainEqual({
      ...{ is: "duplicate", key: "orders/1", token: 5, sequence: 1, applied: false },
    });
    expect((await registers.row("orders/1"))?.writes).toBe(1);
  });

  test("while one request is on its way the others are gathered, in their order, in one partition", async () => {
    const topic = newTopic();
    const sizes: number[] = [];
    const counting: KafkajsProducer = {
      send: (record) => {
        sizes.push(record.messages.length);
        return producer.send(record);
      },
    };
    const stamped = kafkajsProducer(counting, { topic });
    const publisher = await stamped.open(exclusive("k", 5));
    sizes.length = 0;
    await Promise.all(Array.from({ length: 250 }, (_, i) => publisher.publish({ value: `${i + 1}` })));
    expect(sizes).toEqual([1, 100, 100, 49]);
    const { verdicts, contents } = await consume(topic, new MemoryHighWater(), { heldMax: 1 });
    await verdicts.has("handled", 250);
    expect(contents).toEqual(Array.from({ length: 250 }, (_, i) => `${i + 1}`));
  });

  test("a broker that stands still gets the message twice, and its consumer handles it once", async () => {
    const topic = newTopic();
    const stamped = kafkajsProducer(producer, { topic, confirmMs: 200, retryMs: 10, attemptsMax: 100 });
    const publisher = await stamped.open(exclusive("k", 5));
    const { verdicts, contents } = await consume(topic, new MemoryHighWater());
    broker.pause();
    const published = publisher.publish({ value: "a", headers: { trace: Buffer.from("t") } });
    const kept = setTimeout(() => broker.resume(), 1_000); // the confirm is late: longer than confirmMs
    onTestFinished(() => {
      clearTimeout(kept);
      broker.resume();
    });
    await published;
    await verdicts.has("duplicate");
    await publisher.publish({ value: "b" });
    await verdicts.has("handled", 2);
    expect(contents).toEqual(["a", "b"]);
  });

  test("bad messages and options are refused before anything is sent", async () => {
    const refused = expect.objectContaining({ code: "INVALID" });
    for (const options of [{}, { topic: "" }, { topic: 7 }, { topic: "t", acks: 1 }]) {
      expect(() => kafkajsProducer(producer, options as { topic: string })).toThrow(refused);
    }
    const publisher = await kafkajsProducer(producer, { topic: newTopic() }).open(exclusive("k", 5));
    for (const message of [
      undefined,
      {},
      { value: null },
      { value: "a", headers: { n: 7 } },
      { value: "a", headers: 7 },
    ]) {
      await expect(publisher.publish(message as { value: string })).rejects.toEqual(refused);
    }
    await expect(publisher.publish({ value: "a", headers: { "leasehold-key": "k" } })).rejects.toEqual(refused);
    expect((await publisher.publish({ value: "a" })).sequence).toBe(1);
    await expect(consume(newTopic(), undefined as unknown as HighWater)).rejects.toEqual(refused);
  });
});
