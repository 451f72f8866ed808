/** Kafka as the conformance suite sees it, with kafkajs: published through the producer, written by the consumer. */
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { holdOf } from "@leasehold/fence";
import { type KafkajsProducer, kafkajsConsumer, kafkajsProducer, type Report } from "@leasehold/fence/kafka";
import { type Consumer, type EachMessagePayload, Kafka, logLevel } from "kafkajs";
import type pg from "pg";
import type { Subject } from "./conformance.js";
import { startHolder } from "./holder.js";
import { fencedBy, Registers, Verdicts, verdictService } from "./messages-support.js";

const holderModule = fileURLToPath(new URL("./holders/kafka.mjs", import.meta.url));

/** A client of kafkajs whose log is not the test's. */
export const kafkaOf = (brokers: string[]): Kafka => new Kafka({ brokers, logLevel: logLevel.NOTHING });

/** What a broken driver would do to the consumer, and how that changes what the consumer says. */
type Tamper = (verdicts: Verdicts) => { consumer(consumer: Consumer): Consumer; report(report: Report): void };

export async function kafkaSubject(
  brokers: string[],
  pool: pg.Pool,
  tamper: Tamper = ({ report }) => ({ report, consumer: (consumer) => consumer }),
): Promise<Subject> {
  const kafka = kafkaOf(brokers);
  const topic = `conformance-${randomUUID()}`;
  const registers = new Registers(pool, topic);
  await registers.migrate();
  const verdicts = new Verdicts();
  const service = await verdictService(verdicts);

  let published = 0;
  const outgoing = kafka.producer();
  await outgoing.connect();
  const counting: KafkajsProducer = {
    send: (record) => {
      published += record.messages.length;
      return outgoing.send(record);
    },
  };
  const producer = kafkajsProducer(counting, { topic });
  await producer.raise({ name: "the topic is made by its first message", token: 1 });
  published = 0;

  const tampered = tamper(verdicts);
  const incoming = kafka.consumer({ groupId: topic, maxWaitTimeInMs: 10 });
  await incoming.connect();
  await incoming.subscribe({ topics: [topic], fromBeginning: true });
  const consumer = await kafkajsConsumer(
    tampered.consumer(incoming),
    ({ message }: EachMessagePayload, context) => registers.handle(String(message.value), context),
    { highWater: registers.marks, onGap: "stop", report: tampered.report },
  );
  await verdicts.has("raised"); // it takes part in its group now

  const { raise, write } = fencedBy(producer, verdicts, (value) => ({ value }));
  return {
    fence: { raise, inspect: (resource) => consumer.inspect(resource), reset: (resource) => consumer.reset(resource) },
    write,
    read: (resource) => registers.read(resource),
    recreate: (by) => registers.recreate(holdOf(by).resource),
    sent: () => published + registers.queries,
    holder: (name, token, remainingMs, value) =>
      startHolder(holderModule, { brokers, topic, verdicts: service.url }, name, token, remainingMs, value),
    async close() {
      await consumer.close();
      await consumer.ended;
      await incoming.disconnect();
      await outgoing.disconnect();
      service.server.closeAllConnections();
      service.server.close();
    },
  };
}
