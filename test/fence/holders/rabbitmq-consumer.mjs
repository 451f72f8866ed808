/**
 * A consumer that handles one message, commits its effect, says so, and never comes to acknowledge it. It is there to be
 * killed. With `marks: "memory"` it keeps its marks where they die with it.
 */
import { MemoryHighWater, postgresHighWater, rabbitmqConsumer } from "@leasehold/fence/rabbitmq";
import amqp from "amqplib";
import pg from "pg";

const { url, queue, database, marks } = JSON.parse(process.argv[2]);
process.on("disconnect", () => process.exit(1));
const pool = new pg.Pool({ connectionString: database });
const connection = await amqp.connect(url);

async function handle(message, context) {
  const tx = await pool.connect();
  await tx.query("begin");
  await tx.query(
    `insert into register as r (consumer, name, value) values ($1, $2, $3)
     on conflict (consumer, name) do update set value = excluded.value, writes = r.writes + 1`,
    [queue, context.key, message.content.toString()],
  );
  await context.save(tx);
  await tx.query("commit");
  process.send({ committed: context.sequence });
  await new Promise(() => {}); // the machine is about to lose its power
}

const highWater = marks === "memory" ? new MemoryHighWater() : postgresHighWater(pool, { consumer: queue });
await rabbitmqConsumer(await connection.createChannel(), queue, handle, { highWater, onGap: "skip", gapMs: 50 });
