/** Kafka: the same four with kafkajs. */
import { kafkajsConsumer, kafkajsProducer } from "@leasehold/fence/kafka";
import { Kafka, logLevel } from "kafkajs";

// A request that is not answered is sent again, as with every client; a second here, lest this example take long.
const client = ({ brokers }) =>
  new Kafka({
    brokers,
    requestTimeout: 1_000,
    retry: { initialRetryTime: 50, retries: 10 },
    logLevel: logLevel.NOTHING,
  });

export async function plainProducer({ brokers, queue: topic }) {
  const producer = client({ brokers }).producer({ idempotent: false });
  await producer.connect();
  return {
    async publish({ name: key }, events) {
      for await (const event of events)
        await producer.send({ topic, acks: -1, messages: [{ key, value: JSON.stringify(event) }] });
    },
    close: () => producer.disconnect(),
  };
}

export async function stampedProducer({ brokers, queue: topic }) {
  const producer = client({ brokers }).producer({ idempotent: false });
  await producer.connect();
  const stamped = kafkajsProducer(producer, { topic });
  return {
    publish: (claim, events) =>
      stamped.under(claim, async (publisher) => {
        for await (const event of events) await publisher.publish({ value: JSON.stringify(event) });
      }),
    close: () => producer.disconnect(),
  };
}

async function subscribed({ brokers, queue: topic, group }) {
  const consumer = client({ brokers }).consumer({ groupId: group, maxWaitTimeInMs: 100 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  return consumer;
}

export async function plainConsumer(job, { apply, applied }) {
  const consumer = await subscribed(job);
  await consumer.run({
    async eachMessage({ message }) {
      const event = JSON.parse(message.value.toString());
      await apply(event, 2);
      await applied(event);
    },
  });
}

export async function orderedConsumer(job, { applyAndSave, applied, highWater, report }) {
  const consumer = await subscribed(job);
  const handler = async ({ message }, context) => {
    const event = JSON.parse(message.value.toString());
    await applyAndSave(event, context);
    await applied(event);
  };
  await kafkajsConsumer(consumer, handler, { highWater, onGap: "skip", report });
}
