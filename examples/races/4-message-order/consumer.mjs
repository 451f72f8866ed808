/** A process that consumes. Its database is busy at the first "created" of each order. Started by race.mjs. */
import pg from "pg";
import { atWork } from "../common/worker.mjs";
import * as kafka from "./kafka.mjs";
import { apply, inTransaction } from "./orders.mjs";
import * as rabbitmq from "./rabbitmq.mjs";

const { job, report, point } = atWork();
const { plainConsumer, orderedConsumer } = job.brokers ? kafka : rabbitmq;
const { postgresHighWater } = await import("@leasehold/fence/rabbitmq");
const pool = new pg.Pool({ connectionString: job.database });

function busy({ type }, attempt) {
  if (type === "created" && attempt === 1) throw new Error("the database is busy");
}

const plain = {
  async apply(event, attempt) {
    busy(event, attempt);
    await inTransaction(pool, (tx) => apply(tx, event));
  },
};
const ordered = {
  highWater: postgresHighWater(pool, { consumer: job.queue }),
  report: (what) => what.is !== "handled" && what.is !== "raised" && report({ [what.is]: what.key ?? "" }),
  applyAndSave: (event, context) =>
    inTransaction(pool, async (tx) => {
      busy(event, context.attempt);
      await apply(tx, event);
      await context.save(tx); // in the same transaction: applied, and on record as applied
    }),
};
const applied = ({ id, type }) => point(`${id} ${type}`);
if (job.stamped) await orderedConsumer(job, { ...ordered, applied });
else await plainConsumer(job, { ...plain, applied });
report({ consuming: true });
