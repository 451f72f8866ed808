/** RabbitMQ: producers and consumers, as they are often written, and stamped. This is the file to read. */
import { rabbitmqConsumer, rabbitmqProducer } from "@leasehold/fence/rabbitmq";
import amqp from "amqplib";

export async function plainProducer({ url, queue }) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(queue);
  return {
    async publish(_claim, events) {
      for await (const event of events)
        channel.sendToQueue(queue, Buffer.from(JSON.stringify(event)), { persistent: true });
      await channel.waitForConfirms();
    },
    close: () => connection.close(),
  };
}

/** The same, with the lock's token and a sequence in the headers. */
export async function stampedProducer({ url, queue }) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(queue);
  const producer = rabbitmqProducer(channel, { queue });
  return {
    publish: (claim, events) =>
      producer.under(claim, async (publisher) => {
        for await (const event of events) await publisher.publish({ content: JSON.stringify(event) });
      }),
    close: () => connection.close(),
  };
}

/** Acknowledged when applied; what fails is put back into the queue. */
export async function plainConsumer({ url, queue }, { apply, applied }) {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertQueue(queue);
  await channel.prefetch(10);
  await channel.consume(queue, async (message) => {
    const event = JSON.parse(message.content.toString());
    try {
      await apply(event, message.fields.redelivered ? 2 : 1);
      await applied(event);
      channel.ack(message);
    } catch {
      channel.nack(message, false, true);
    }
  });
}

/** In order for each key; duplicates and stale producers' messages are dropped, across crashes, by a mark in the database. */
export async function orderedConsumer({ url, queue }, { applyAndSave, applied, highWater, report }) {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertQueue(queue);
  const handler = async (message, context) => {
    const event = JSON.parse(message.content.toString());
    await applyAndSave(event, context);
    await applied(event);
  };
  await rabbitmqConsumer(channel, queue, handler, { highWater, onGap: "skip", report });
}
