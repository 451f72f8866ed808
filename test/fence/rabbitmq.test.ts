/** The fence of RabbitMQ's messages, on a real broker and a real database. */
import type { Channel } from "amqplib";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startPostgres } from "../services/postgres.mjs";
import { startRabbitmq } from "../services/rabbitmq.mjs";
import { describeWithServices } from "../services/vitest.js";
import { CHECK_CASES, failedCases, fenceConformance } from "./conformance.js";
import { StaleOnesLetThrough, type Verdicts } from "./messages-support.js";
import { rabbitmqSubject } from "./rabbitmq-subject.js";

/** A driver that makes the consumer believe of every stale message that it is a current one's. */
const letStaleOnesThrough = (verdicts: Verdicts) => {
  const tampered = new StaleOnesLetThrough(verdicts);
  return {
    report: tampered.report,
    channel: (channel: Channel): Channel => {
      const consume = channel.consume.bind(channel);
      channel.consume = (queue, onMessage, options) =>
        consume(
          queue,
          (message) => {
            if (message?.properties.headers) message.properties.headers = tampered.headers(message.properties.headers);
            onMessage(message);
          },
          options,
        );
      return channel;
    },
  };
};

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

  test("a consumer without the check fails the suite, and nothing but what needs the check", async () => {
    const failed = await failedCases(() => rabbitmqSubject(rabbitmq.url, pool, letStaleOnesThrough));
    expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES]));
    for (const title of [
      "a resource that was never",
      "the same token may",
      "resources are",
      "an administrator",
      "a crash",
    ]) {
      expect(failed.filter((one) => one.startsWith(title))).toEqual([]);
    }
  });
});
