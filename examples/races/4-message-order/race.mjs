/**
 * Messages in the wrong order. Twelve orders are created, paid and shipped, and one is cancelled. What goes wrong:
 *
 * - RabbitMQ: a message that failed once comes again behind its successors; a consumer that dies between its commit and its
 *   acknowledgement gets the message again.
 * - Kafka: a request whose answer was lost is sent again, and the broker has the message twice.
 * - Both: a producer that was stopped publishes after its successor.
 *
 * The producers and consumers are in rabbitmq.mjs and kafka.mjs.
 */
import { postgresHighWater } from "@leasehold/fence/rabbitmq";
import pg from "pg";
import { startKafka } from "../../../test/services/kafka.mjs";
import { startLeasehold } from "../../../test/services/leasehold.mjs";
import { startPostgres } from "../../../test/services/postgres.mjs";
import { startRabbitmq } from "../../../test/services/rabbitmq.mjs";
import { race } from "../common/stage.mjs";
import { until, Worker } from "../common/worker.mjs";
import { SCHEMA } from "./orders.mjs";

const TTL_MS = 1_000;
const IDS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
const CANCELLED = 99;
const HISTORY = ["created", "paid", "shipped"];
const WRONG = `select * from orders where (state, payments) is distinct from
  (case id when ${CANCELLED} then 'cancelled' else 'shipped' end, case id when ${CANCELLED} then 0 else 1 end) order by id`;

const producer = (job, more, holdAt = []) =>
  new Worker(new URL("producer.mjs", import.meta.url), { ...job, ...more }, { holdAt });
const consumer = (job, holdAt = []) => new Worker(new URL("consumer.mjs", import.meta.url), job, { holdAt });

await race(
  { number: 4, title: "message order", systems: "RabbitMQ, Kafka (mock broker)", wrong: "orders in a wrong state" },
  async ({ say, diagnose, outcome }) => {
    const [postgres, leasehold, rabbitmq, kafka] = await Promise.all([
      startPostgres(),
      startLeasehold(),
      startRabbitmq(),
      startKafka(),
    ]);
    const pool = new pg.Pool({ connectionString: postgres.url });
    try {
      await postgresHighWater(pool, { consumer: "any" }).migrate();
      const common = { leasehold: leasehold.address, ttl: TTL_MS, database: postgres.url };
      const stage = { pool, say, rabbitmq, kafka };
      const look = async () => {
        const command = "list_queues name messages_ready messages_unacknowledged";
        diagnose(`rabbitmqctl ${command}`, await rabbitmq.ctl(...command.split(" ")));
      };
      const wrong = async () =>
        diagnose(
          `psql ${postgres.url} -c "${WRONG.replace(/\s+/g, " ")} limit 5"`,
          await postgres.psql(`${WRONG} limit 5`),
        );

      const onRabbitmq = { ...common, url: rabbitmq.url };
      const plain = outcome({
        how: "RabbitMQ, plain",
        ...(await runRabbitmq(stage, { ...onRabbitmq, queue: "plain" }, look)),
      });
      await wrong();
      const onKafka = { ...common, brokers: kafka.brokers };
      const twice = outcome({ how: "Kafka, plain", ...(await runKafka(stage, { ...onKafka, queue: "plain" })) });
      await wrong();
      const without = { how: "plain messages", wrong: plain.wrong + twice.wrong, of: plain.of + twice.of };

      const ordered = await runRabbitmq(stage, { ...onRabbitmq, queue: "stamped", stamped: true });
      const fixed = [outcome({ how: "RabbitMQ, stamped and ordered", ...ordered })];
      const orderedKafka = await runKafka(stage, { ...onKafka, queue: "stamped", stamped: true });
      fixed.push(outcome({ how: "Kafka, stamped and ordered", ...orderedKafka }));
      return { without, fixed };
    } finally {
      await pool.end();
      await Promise.all([postgres.stop(), leasehold.stop(), rabbitmq.stop(), kafka.stop()]);
    }
  },
);

async function runRabbitmq({ pool, say }, job, look) {
  await pool.query(SCHEMA);
  await producer(job, { ids: IDS, types: HISTORY }).finished();
  const first = consumer(job, ["3 paid"]);
  await first.at("3 paid");
  await look?.();
  await first.kill();
  say("the consumer was killed between its commit and its acknowledgement");
  const second = consumer(job);
  await second.next("consuming");
  await overtake(job, say);
  return judge(pool, second, job.stamped);
}

async function runKafka({ pool, say, kafka }, job) {
  await pool.query(SCHEMA);
  const first = producer(job, { ids: IDS, types: HISTORY }, ["3 paid"]);
  await first.at("3 paid");
  kafka.pause();
  first.goOn(); // its request waits in the broker's socket until the client's patience is over, and is sent again
  await new Promise((resolve) => setTimeout(resolve, 1_500)); // longer than the producer waits: see kafka.mjs
  kafka.resume();
  say("a request was answered so late that the producer had sent it again");
  await first.finished();
  await overtake(job, say);
  const only = consumer({ ...job, group: `group-${job.queue}` });
  return judge(pool, only, job.stamped);
}

/** A producer is stopped with "shipped" in its hand, until its successor has cancelled the order. */
async function overtake(job, say) {
  const stopped = producer(job, { ids: [CANCELLED], types: ["created", "shipped"] }, [`${CANCELLED} shipped`]);
  await stopped.at(`${CANCELLED} shipped`);
  stopped.signal("SIGSTOP");
  stopped.goOn();
  await producer(job, { ids: [CANCELLED], types: ["cancelled"] }).finished();
  say(`a producer was stopped with "shipped" in its hand; its successor has cancelled the order: now it goes on`);
  stopped.signal("SIGCONT");
  await stopped.finished();
}

/** Waits until everything has been consumed, and compares with what is true. */
async function judge(pool, consuming, stamped) {
  const count = async (type, id) =>
    (await pool.query("select from applied where type = $1 and id = $2", [type, id])).rowCount;
  const lastArrived = stamped
    ? () => consuming.reports.some(({ stale }) => stale === `orders/${CANCELLED}`)
    : async () => (await count("shipped", CANCELLED)) > 0;
  await until("the last message has arrived", lastArrived);
  const all = async () =>
    (await pool.query("select from applied where type = 'shipped' and id <= 12")).rowCount >= IDS.length;
  await until("all messages have arrived", all);
  await consuming.kill();
  const dropped = (what) => consuming.reports.filter((report) => what in report).length;
  const wrong = (await pool.query(WRONG)).rowCount;
  const note = { note: `${dropped("duplicate")} duplicate and ${dropped("stale")} stale message dropped` };
  return { wrong, of: IDS.length + 1, ...(stamped ? note : {}) };
}
