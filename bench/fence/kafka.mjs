/**
 * What stamps and the consumer's check add to messages in Kafka: to a send that all replicas confirm, and to the way to
 * the handler.
 */
import { kafkajsConsumer, kafkajsProducer, MemoryHighWater } from "@leasehold/fence/kafka";
import { Kafka, logLevel } from "kafkajs";
import { startKafka } from "../../test/services/kafka.mjs";

const LOCK = { name: "bench", token: 1_000_000 };
const VALUE = Buffer.alloc(200, "x");

/** Resolves the oldest of those who wait. */
function waiters() {
  const waiting = [];
  return { next: () => new Promise((resolve) => waiting.push(resolve)), resolve: () => waiting.shift()?.() };
}

export async function open() {
  const server = await startKafka();
  const kafka = new Kafka({ brokers: server.brokers, logLevel: logLevel.NOTHING });
  const producer = kafka.producer();
  await producer.connect();
  const plain = (topic) => producer.send({ topic, acks: -1, messages: [{ key: LOCK.name, value: VALUE }] });
  const publisher = await kafkajsProducer(producer, { topic: "fenced" }).open(LOCK);
  const consumed = await kafkajsProducer(producer, { topic: "fenced-consumed" }).open(LOCK);
  await plain("plain-consumed");

  const plainHandled = waiters();
  const naive = kafka.consumer({ groupId: "plain", maxWaitTimeInMs: 1 });
  const fencedHandled = waiters();
  const checked = kafka.consumer({ groupId: "fenced", maxWaitTimeInMs: 1 });
  const joined = [naive, checked].map((one) => new Promise((resolve) => one.on("consumer.group_join", resolve)));
  for (const [one, topic] of [
    [naive, "plain-consumed"],
    [checked, "fenced-consumed"],
  ]) {
    await one.connect();
    await one.subscribe({ topics: [topic], fromBeginning: true });
  }
  await naive.run({ eachMessage: async () => plainHandled.resolve() });
  const consumer = await kafkajsConsumer(checked, () => fencedHandled.resolve(), {
    highWater: new MemoryHighWater(),
    onGap: "stop",
  });
  await Promise.all(joined);

  return {
    rows: [
      {
        title: "Kafka, send (kafkajs)",
        plain: () => plain("plain").then(() => {}),
        fenced: () => publisher.publish({ value: VALUE }).then(() => {}),
      },
      {
        title: "Kafka, send and consume (kafkajs)",
        plain: () => Promise.all([plainHandled.next(), plain("plain-consumed")]).then(() => {}),
        fenced: () => Promise.all([fencedHandled.next(), consumed.publish({ value: VALUE })]).then(() => {}),
      },
    ],
    async close() {
      await consumer.close();
      await naive.disconnect();
      await checked.disconnect();
      await producer.disconnect();
      await server.stop();
    },
  };
}
