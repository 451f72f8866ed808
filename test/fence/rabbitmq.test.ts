/** The fence of RabbitMQ's messages, on a real broker and a real database. */
import pg from "pg";
import { afterAll, beforeAll } from "vitest";
import { startPostgres } from "../services/postgres.mjs";
import { startRabbitmq } from "../services/rabbitmq.mjs";
import { describeWithServices } from "../services/vitest.js";
import { fenceConformance } from "./conformance.js";
import { rabbitmqSubject } from "./rabbitmq-subject.js";

describeWithServices("RabbitMQ", ["rabbitmq", "postgres"], () => {
  let rabbitmq: Awaited<ReturnType<typeof startRabbitmq>>;
  let postgres: Awaited<ReturnType<typeof startPostgres>>;
  let pool: pg.Pool;

  beforeAll(async () => {
    [rabbitmq, postgres] = await Promise.all([startRabbitmq(), startPostgres()]);
    pool = new pg.Pool({ connectionString: postgres.url });
  });
  afterAll(async () => {
    await pool?.end();
    await Promise.all([rabbitmq?.stop(), postgres?.stop()]);
  });

  fenceConformance("RabbitMQ", () => rabbitmqSubject(rabbitmq.url, pool));
});
