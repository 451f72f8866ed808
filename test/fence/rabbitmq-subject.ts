/** RabbitMQ as the conformance suite sees it: published through the producer, written by the consumer. */
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { holdOf } from "@leasehold/fence";
import { type AmqpConfirmChannel, type Report, rabbitmqConsumer, rabbitmqProducer } from "@leasehold/fence/rabbitmq";
import amqp, { type Channel, type ChannelModel } from "amqplib";
import type pg from "pg";
import type { Subject } from "./conformance.js";
import { startHolder } from "./holder.js";
import { fencedBy, Registers, Verdicts, verdictService } from "./messages-support.js";

const holderModule = fileURLToPath(new URL("./holders/rabbitmq.mjs", import.meta.url));

/** Connects, and ends the process's test with the connection's error if it has one that nobody expected. */
export async function connectTo(url: string): Promise<ChannelModel> {
  const connection = await amqp.connect(url);
  connection.on("error", () => {}); // told by the channels, too
  return connection;
}

/** What a broken driver would do to the channel of the consumer, and how that changes what the consumer says. */
type Tamper = (verdicts: Verdicts) => { channel(channel: Channel): Channel; report(report: Report): void };

export async function rabbitmqSubject(
  url: string,
  pool: pg.Pool,
  tamper: Tamper = ({ report }) => ({ report, channel: (channel) => channel }),
): Promise<Subject> {
  const connection = await connectTo(url);
  const queue = `conformance-${randomUUID()}`;
  const registers = new Registers(pool, queue);
  await registers.migrate();
  const verdicts = new Verdicts();
  const service = await verdictService(verdicts);

  const tampered = tamper(verdicts);
  const incoming = await connection.createChannel();
  await incoming.assertQueue(queue, { durable: true });
  const consumer = await rabbitmqConsumer(
    tampered.channel(incoming),
    queue,
    (message, context) => registers.handle(message.content.toString(), context),
    { highWater: registers.marks, onGap: "stop", report: tampered.report },
  );

  let published = 0;
  const outgoing = await connection.createConfirmChannel();
  const counting: AmqpConfirmChannel = {
    on: (event, listener) => outgoing.on(event, listener),
    publish: (exchange, routingKey, content, options, confirmed) => {
      published += 1;
      return outgoing.publish(exchange, routingKey, content, options, confirmed);
    },
  };
  const producer = rabbitmqProducer(counting, { queue });
  const { raise, write } = fencedBy(producer, verdicts, (content) => ({ content }));
  return {
    fence: { raise, inspect: (resource) => consumer.inspect(resource), reset: (resource) => consumer.reset(resource) },
    write,
    read: (resource) => registers.read(resource),
    recreate: (by) => registers.recreate(holdOf(by).resource),
    sent: () => published + registers.queries,
    holder: (name, token, remainingMs, value) =>
      startHolder(holderModule, { url, queue, verdicts: service.url }, name, token, remainingMs, value),
    async close() {
      await consumer.close();
      await consumer.ended;
      await incoming.deleteQueue(queue);
      await connection.close();
      service.server.closeAllConnections();
      service.server.close();
    },
  };
}
