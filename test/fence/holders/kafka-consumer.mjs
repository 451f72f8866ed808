/** A consumer that handles one message, commits its effect, says so, and never comes to commit its offset. */
import { kafkajsConsumer, postgresHighWater } from "@leasehold/fence/kafka";
import { Kafka, logLevel } from "kafkajs";
import pg from "pg";

const { brokers, topic, database } = JSON.parse(process.argv[2]);
process.on("disconnect", () => process.exit(1));
const pool = new pg.Pool({ connectionString: database });

async function handle({ message }, context) {
  const tx = await pool.connect();
  await tx.query("begin");
  await tx.query(
    `insert into register as r (consumer, name, value) values ($1, $2, $3)
     on conflict (consumer, name) do update set value = excluded.value, writes = r.writes + 1`,
    [topic, context.key, message.value.toString()],
  );
  await context.save(tx);
  await tx.query("commit");
  process.send({ committed: context.sequence });
  await new Promise(() => {}); // the machine is about to lose its power
}

const kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING });
const consumer = kafka.consumer({ groupId: topic, maxWaitTimeInMs: 10, heartbeatInterval: 100, sessionTimeout: 3_000 });
await consumer.connect();
await consumer.subscribe({ topics: [topic], fromBeginning: true });
await kafkajsConsumer(consumer, handle, { highWater: postgresHighWater(pool, { consumer: topic }), onGap: "skip" });
