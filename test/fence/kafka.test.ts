/** The fence of Kafka's messages, on librdkafka's broker for tests and a real database. */
import type { Consumer, EachMessagePayload } from "kafkajs";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startKafka } from "../services/kafka.mjs";
import { startPostgres } from "../services/postgres.mjs";
import { describeWithServices } from "../services/vitest.js";
import { CHECK_CASES, failedCases, fenceConformance } from "./conformance.js";
import { kafkaSubject } from "./kafka-subject.js";
import { StaleOnesLetThrough, type Verdicts } from "./messages-support.js";

/** A driver that makes the consumer believe of every stale message that it is a current one's. */
const letStaleOnesThrough = (verdicts: Verdicts) => {
  const tampered = new StaleOnesLetThrough(verdicts);
  return {
    report: tampered.report,
    consumer: (consumer: Consumer): Consumer => {
      const run = consumer.run.bind(consumer);
      consumer.run = (config) =>
        run({
          ...config,
          eachMessage: async (payload: EachMessagePayload) => {
            const headers = tampered.headers(payload.message.headers ?? {});
            Object.assign(payload.message, { headers });
            await config?.eachMessage?.(payload);
          },
        });
      return consumer;
    },
  };
};

describeWithServices("Kafka", ["kafka", "postgres"], () => {
  let kafka: Awaited<ReturnType<typeof startKafka>>;
  let postgres: Awaited<ReturnType<typeof startPostgres>>;
  let pool: pg.Pool;

  beforeAll(async () => {
    [kafka, postgres] = await Promise.all([startKafka(), startPostgres()]);
    pool = new pg.Pool({ connectionString: postgres.url });
  });
  afterAll(async () => {
    await pool?.end();
    await Promise.all([kafka?.stop(), postgres?.stop()]);
  });

  fenceConformance("Kafka", () => kafkaSubject(kafka.brokers, pool));

  test("a consumer without the check fails the suite, and nothing but what needs the check", async () => {
    const failed = await failedCases(() => kafkaSubject(kafka.brokers, pool, letStaleOnesThrough));
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
