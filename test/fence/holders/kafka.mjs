/** Publishes under a claim, and stands still with the message in hand: checked, stamped, and not sent. */
import { kafkajsProducer } from "@leasehold/fence/kafka";
import { Kafka, logLevel } from "kafkajs";
import { ask } from "./verdict.mjs";

export async function open({ brokers, topic, verdicts }) {
  const producer = new Kafka({ brokers, logLevel: logLevel.NOTHING }).producer();
  await producer.connect();
  return async (claim, value, inside) => {
    let stopped;
    const slow = {
      async send(record) {
        const marker = record.messages.every((message) => message.value.length === 0);
        if (!marker) {
          stopped ??= inside(); // later attempts do not stop again
          await stopped;
        }
        return producer.send(record);
      },
    };
    const publisher = await kafkajsProducer(slow, { topic, confirmMs: 60_000 }).open(claim);
    const answer = await ask(verdicts, claim);
    await publisher.publish({ value });
    await answer();
  };
}
