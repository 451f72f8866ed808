/**
 * What stamps and the consumer's check add to messages in RabbitMQ: to a confirmed publish, and to the way to the
 * handler.
 */
import { MemoryHighWater, rabbitmqConsumer, rabbitmqProducer } from "@leasehold/fence/rabbitmq";
import amqp from "amqplib";
import { startRabbitmq } from "../../test/services/rabbitmq.mjs";

const LOCK = { name: "bench", token: 1_000_000 };
const CONTENT = Buffer.alloc(200, "x");

/** Resolves the oldest of those who wait. */
function waiters() {
  const waiting = [];
  return { next: () => new Promise((resolve) => waiting.push(resolve)), resolve: () => waiting.shift()?.() };
}

export async function open() {
  const server = await startRabbitmq();
  const connection = await amqp.connect(server.url);
  const channel = await connection.createConfirmChannel();
  // Nobody consumes them: without a limit the broker would slow down in the course of the measurement.
  const limited = { durable: true, arguments: { "x-max-length": 1_000 } };
  for (const queue of ["plain", "fenced"]) await channel.assertQueue(queue, limited);
  for (const queue of ["plain-consumed", "fenced-consumed"]) await channel.assertQueue(queue, { durable: true });

  const plain = (queue) =>
    new Promise((resolve, reject) => {
      const confirmed = (error) => (error ? reject(error) : resolve());
      channel.publish("", queue, CONTENT, { persistent: true }, confirmed);
    });
  const publisher = await rabbitmqProducer(channel, { queue: "fenced" }).open(LOCK);
  const consumed = await rabbitmqProducer(channel, { queue: "fenced-consumed" }).open(LOCK);

  const plainHandled = waiters();
  const incoming = await connection.createChannel();
  await incoming.prefetch(200);
  await incoming.consume("plain-consumed", (message) => {
    plainHandled.resolve();
    incoming.ack(message);
  });
  const fencedHandled = waiters();
  const consumer = await rabbitmqConsumer(
    await connection.createChannel(),
    "fenced-consumed",
    () => fencedHandled.resolve(),
    { highWater: new MemoryHighWater(), onGap: "stop" },
  );

  return {
    rows: [
      {
        title: "RabbitMQ, publish (amqplib)",
        plain: () => plain("plain"),
        fenced: () => publisher.publish({ content: CONTENT }).then(() => {}),
      },
      {
        title: "RabbitMQ, publish and consume (amqplib)",
        plain: () => Promise.all([plainHandled.next(), plain("plain-consumed")]).then(() => {}),
        fenced: () => Promise.all([fencedHandled.next(), consumed.publish({ content: CONTENT })]).then(() => {}),
      },
    ],
    async close() {
      await consumer.close();
      await connection.close();
      await server.stop();
    },
  };
}
