/**
 * What is RabbitMQ's own in the producer and the consumer: confirms without a queue, prefetch, dead letters,
 * exclusivity.
 */
import { randomUUID } from "node:crypto";
import {
  type Handler,
  MemoryHighWater,
  type RabbitmqConsumerOptions,
  type RunningConsumer,
  rabbitmqConsumer,
  rabbitmqProducer,
} from "@leasehold/fence/rabbitmq";
import type { Channel, ChannelModel, ConsumeMessage, Options } from "amqplib";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { stampHeaders } from "../../src/fence/messages/stamp.js";
import { startRabbitmq } from "../services/rabbitmq.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive } from "./locks.js";
import { Verdicts } from "./messages-support.js";
import { connectTo } from "./rabbitmq-subject.js";

const poll = { timeout: 30_000, interval: 10 };
const KEY = "orders/1";

describeWithServices("RabbitMQ's producer and consumer", ["rabbitmq"], () => {
  let rabbitmq: Awaited<ReturnType<typeof startRabbitmq>>;
  let connection: ChannelModel;
  let admin: Channel;

  beforeAll(async () => {
    rabbitmq = await startRabbitmq();
    connection = await connectTo(rabbitmq.url);
    admin = await connection.createChannel();
  });
  afterAll(async () => {
    await connection?.close();
    await rabbitmq?.stop();
  });

  async function declare(options: Options.AssertQueue = {}): Promise<string> {
    const queue = `queue-${randomUUID()}`;
    await admin.assertQueue(queue, { durable: true, ...options });
    return queue;
  }

  /** Publishes like any program might, with a stamp of its own making. */
  function publishRaw(queue: string, token: number, sequence: number): void {
    const headers = stampHeaders({ key: KEY, token, sequence, shared: false, timestamp: undefined });
    admin.sendToQueue(queue, Buffer.from(`${token}.${sequence}`), { headers });
  }

  async function consume(
    queue: string,
    options: Partial<RabbitmqConsumerOptions<unknown>> = {},
    handler: Handler<ConsumeMessage, unknown> = () => {},
  ) {
    const verdicts = new Verdicts();
    const contents: string[] = [];
    const channel = await connection.createChannel();
    const consumer: RunningConsumer = await rabbitmqConsumer(
      channel,
      queue,
      async (message: ConsumeMessage, context) => {
        await handler(message, context);
        contents.push(message.content.toString());
      },
      { highWater: new MemoryHighWater(), onGap: "stop", report: verdicts.report, ...options },
    );
    consumer.ended.catch(() => {}); // each test says what it expects of it
    onTestFinished(() => consumer.close());
    return { consumer, verdicts, contents, channel };
  }

  /** How many messages are in the queue, ready to be delivered. */
  const ready = async (queue: string) => (await admin.checkQueue(queue)).messageCount;

  test("messages that overtake each other, or come twice, are handled in order and once", async () => {
    const queue = await declare();
    for (const sequence of [2, 3, 1, 2, 3, 5, 4, 1]) publishRaw(queue, 7, sequence);
    const { verdicts, contents } = await consume(queue);
    await verdicts.has("handled", 5);
    await verdicts.has("duplicate", 3);
    expect(contents).toEqual(["7.1", "7.2", "7.3", "7.4", "7.5"]);
    await expect.poll(() => ready(queue), poll).toBe(0);
  });

  test("a message that the broker has put back behind its successors still goes first", async () => {
    const queue = await declare();
    for (const sequence of [1, 2, 3]) publishRaw(queue, 7, sequence);
    // A consumer takes the first one and dies; a naive one would now see 2 and 3 before 1 comes back.
    const doomed = await connection.createChannel();
    await expect.poll(() => ready(queue), poll).toBe(3);
    expect(await doomed.get(queue)).toMatchObject({ properties: { headers: { "leasehold-sequence": "1" } } });
    const { verdicts, contents } = await consume(queue);
    await expect.poll(() => ready(queue), poll).toBe(0);
    expect(contents).toEqual([]);
    await doomed.close();
    await verdicts.has("handled", 3);
    expect(contents).toEqual(["7.1", "7.2", "7.3"]);
  });

  test("a prefetch that does not exceed what may be held back is refused, and one that does is enough", async () => {
    const queue = await declare();
    const refused = expect.objectContaining({ code: "INVALID" });
    await expect(consume(queue, { heldMax: 2, prefetch: 2 })).rejects.toEqual(refused);
    await expect(consume(queue, { prefetch: 70_000 })).rejects.toEqual(refused);
    await expect(consume(queue, { exclusive: "yes" as unknown as boolean })).rejects.toEqual(refused);
    for (const sequence of [2, 3, 1]) publishRaw(queue, 7, sequence);
    const { verdicts, contents } = await consume(queue, { heldMax: 2, prefetch: 3 });
    await verdicts.has("handled", 3);
    expect(contents).toEqual(["7.1", "7.2", "7.3"]);
  });

  test("with too many behind a gap the consumer ends, and all of them are in the queue again", async () => {
    const queue = await declare();
    for (const sequence of [2, 3, 4]) publishRaw(queue, 7, sequence);
    const { consumer } = await consume(queue, { heldMax: 2, prefetch: 3 });
    await expect(consumer.ended).rejects.toMatchObject({ code: "LIMIT", resource: KEY });
    await expect.poll(() => ready(queue), poll).toBe(3);
    publishRaw(queue, 7, 1);
    const { contents, verdicts } = await consume(queue, { heldMax: 3, prefetch: 4 });
    await verdicts.has("handled", 4);
    expect(contents).toEqual(["7.1", "7.2", "7.3", "7.4"]);
  });

  test("a message that no queue takes is confirmed by the broker, and refused by the producer", async () => {
    const exchange = `exchange-${randomUUID()}`;
    await admin.assertExchange(exchange, "direct", { durable: false });
    const channel = await connection.createConfirmChannel();
    const producer = rabbitmqProducer(channel, { exchange, routingKey: (key) => `to.${key}` });
    const lock = exclusive(KEY, 7);
    await expect(producer.open(lock)).rejects.toMatchObject({ code: "NOT_FOUND", resource: KEY, token: 7 });
    const queue = await declare();
    await admin.bindQueue(queue, exchange, `to.${KEY}`);
    const publisher = await producer.open(lock);
    await admin.unbindQueue(queue, exchange, `to.${KEY}`);
    await expect(publisher.publish({ content: "a" })).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(publisher.flush()).rejects.toMatchObject({ code: "NOT_FOUND" });
    await admin.bindQueue(queue, exchange, `to.${KEY}`);
    await publisher.flush();
    expect((await publisher.publish({ content: "b" })).sequence).toBe(2);
    const { contents, verdicts } = await consume(queue);
    await verdicts.has("handled", 2);
    expect(contents).toEqual(["a", "b"]);
  });

  test("messages are persistent, with the options and headers of their own", async () => {
    const queue = await declare();
    const producer = rabbitmqProducer(await connection.createConfirmChannel(), { queue });
    const publisher = await producer.open(exclusive(KEY, 7));
    const options = { contentType: "application/json", messageId: "m1", headers: { trace: "t" } };
    await publisher.publish({ content: Buffer.from("{}"), options });
    let properties: unknown;
    const { verdicts } = await consume(queue, {}, (message) => {
      ({ properties } = message);
    });
    await verdicts.has("handled");
    expect(properties).toMatchObject({
      deliveryMode: 2,
      contentType: "application/json",
      messageId: "m1",
      headers: { trace: "t", "leasehold-key": KEY, "leasehold-token": "7", "leasehold-sequence": "1" },
    });
    for (const bad of [{ content: 7 }, { content: "a", options: { headers: { "leasehold-token": "9" } } }, undefined]) {
      await expect(publisher.publish(bad as { content: string })).rejects.toMatchObject({ code: "INVALID" });
    }
  });

  test.each([
    ["no destination", {}],
    ["two destinations", { queue: "q", exchange: "e" }],
    ["a routing key for a queue", { queue: "q", routingKey: "r" }],
    ["a queue that is no text", { queue: 7 }],
    ["an unknown option", { queue: "q", persistent: true }],
  ])("%s is refused", async (_what, options) => {
    const channel = await connection.createConfirmChannel();
    expect(() => rabbitmqProducer(channel, options as { queue: string })).toThrow(
      expect.objectContaining({ code: "INVALID" }),
    );
  });

  test("on a closed channel nothing is sent: UNREACHABLE", async () => {
    const queue = await declare();
    const channel = await connection.createConfirmChannel();
    const producer = rabbitmqProducer(channel, { queue, attemptsMax: 2, retryMs: 1 });
    const publisher = await producer.open(exclusive(KEY, 7));
    await channel.close();
    await expect(publisher.publish({ content: "a" })).rejects.toMatchObject({ code: "UNREACHABLE", token: 7 });
  });

  test("stop: a message that cannot be handled stays in the queue, and so does what is behind it", async () => {
    const queue = await declare();
    for (const sequence of [1, 2]) publishRaw(queue, 7, sequence);
    const error = new Error("the database is away");
    const fail = vi.fn(() => Promise.reject(error));
    const { consumer } = await consume(queue, { attemptsMax: 2, retryMs: 1 }, fail);
    await expect(consumer.ended).rejects.toBe(error);
    expect(fail).toHaveBeenCalledTimes(2);
    await expect.poll(() => ready(queue), poll).toBe(2);
  });

  test("skip: it goes to the dead-letter exchange, as does what has no stamp; the others go on", async () => {
    const dead = await declare();
    const queue = await declare({ deadLetterExchange: "", deadLetterRoutingKey: dead });
    admin.sendToQueue(queue, Buffer.from("no stamp"));
    for (const sequence of [1, 2]) publishRaw(queue, 7, sequence);
    const { verdicts, contents } = await consume(queue, { attemptsMax: 1, onFailure: "skip" }, (message) => {
      if (message.content.toString() === "7.1") throw new Error("poison");
    });
    await verdicts.has("handled");
    expect(contents).toEqual(["7.2"]);
    expect(verdicts.reports.map(({ is }) => is)).toEqual(["invalid", "failed", "handled"]);
    await expect.poll(() => ready(dead), poll).toBe(2);
    await expect.poll(() => ready(queue), poll).toBe(0);
  });

  test("close gives back what was not handled, and lets a handler finish", async () => {
    const queue = await declare();
    for (const sequence of [1, 2, 4]) publishRaw(queue, 7, sequence);
    let finish: () => void = () => {};
    const begun = new Promise<void>((resolve) => {
      finish = resolve;
    });
    let release: () => void = () => {};
    const { consumer, contents } = await consume(queue, {}, () => {
      finish();
      return new Promise<void>((resolve) => {
        release = resolve;
      });
    });
    await begun;
    await expect.poll(() => ready(queue), poll).toBe(0);
    const closing = consumer.close();
    release();
    await closing;
    await consumer.ended;
    expect(contents).toEqual(["7.1"]);
    await expect.poll(() => ready(queue), poll).toBe(2);
  });

  test("a second consumer of the queue is refused, and with a single active one it stands by", async () => {
    const queue = await declare();
    await consume(queue);
    await expect(consume(queue)).rejects.toMatchObject({ code: 403 });

    const shared = await declare({ arguments: { "x-single-active-consumer": true } });
    const highWater = new MemoryHighWater();
    const active = await consume(shared, { exclusive: false, highWater });
    const standby = await consume(shared, { exclusive: false, highWater });
    publishRaw(shared, 7, 1);
    await active.verdicts.has("handled");
    await active.consumer.close();
    publishRaw(shared, 7, 2);
    await standby.verdicts.has("handled");
    expect([active.contents, standby.contents]).toEqual([["7.1"], ["7.2"]]);
  });

  test("when the queue is deleted, or the channel closed, the consumer ends with UNREACHABLE", async () => {
    const queue = await declare();
    const deleted = await consume(queue);
    await admin.deleteQueue(queue);
    await expect(deleted.consumer.ended).rejects.toMatchObject({ code: "UNREACHABLE" });
    const closed = await consume(await declare());
    await closed.channel.close();
    await expect(closed.consumer.ended).rejects.toMatchObject({ code: "UNREACHABLE" });
  });

  test("a queue that does not exist is the driver's error, and nothing else is thrown", async () => {
    await expect(consume("there-is-no-such-queue")).rejects.toMatchObject({ code: 404 });
  });
});
