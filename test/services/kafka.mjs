// @ts-check
/**
 * Kafka's protocol without Kafka: the mock broker of librdkafka, which the tool kcat starts. It keeps messages with keys
 * and headers by partition and offset, in memory, and it has consumer groups with rebalancing and committed offsets.
 *
 * What it lacks, found by trying librdkafka 2.0 with kafkajs 2.2:
 * - Admin requests: nothing creates or deletes topics, or describes groups and configurations. A topic is made when a
 *   client first asks for it, always with four partitions. Metadata, listing topics, and reading offsets do work.
 * - Transactions are accepted in part and mean nothing: what was aborted is seen by a consumer of committed messages.
 *   An idempotent producer of kafkajs does not connect (it asks a controller, of which the mock has none).
 * - Its own pace: a group's first assignment takes 3 s, each later one a second less than the session timeout, also after
 *   everybody has left. A consumer that shall leave quickly needs a small `maxWaitTimeInMs`.
 * - Groups of several members whose leader is quick: once it has the assignment, it answers INVALID_REQUEST to members
 *   that ask for theirs later (rd_kafka_mock_cgrp.c). The leader must assign after the others have asked.
 * - Timestamps: a produce request is answered with a made-up one.
 * - Clients that insist on a recent protocol: `@platformatic/kafka` does not connect, since its first request has a
 *   version (ApiVersions 3) that the mock refuses, and it does not try an older one as others do.
 * - kill -9 and a new start: it would come back empty, on another port. So there is none.
 */
import { need } from "./packages.mjs";
import { removeFolder, ServerProcess, temporaryFolder } from "./processes.mjs";

/** What the mock broker gives every topic, made when a client first asks for it; kcat cannot set another number. */
const PARTITIONS = 4;

/**
 * Starts librdkafka's mock broker on a port of 127.0.0.1.
 *
 * @param {{ partitions?: 4 | undefined }} [options] for documentation: there are four in every topic
 * @example
 * const { brokers, stop } = await startKafka();
 * const kafka = new Kafka({ brokers });
 * await stop();
 */
export async function startKafka({ partitions = PARTITIONS } = {}) {
  if (partitions !== PARTITIONS) throw new Error(`the mock broker gives every topic ${PARTITIONS} partitions`);
  const folder = temporaryFolder("kafka");
  const address = /bootstrap\.servers=(127\.0\.0\.1:\d+)/;
  let broker = "";
  const server = await ServerProcess.start({
    name: "kafka",
    folder,
    // As a producer to "x", a name that is never looked up: the mock puts its own address in the place of it.
    command: [await need("kcat"), "-P", "-b", "x", "-t", "t1", "-X", "test.mock.num.brokers=1", "-d", "mock"],
    keepInputOpen: true, // the producer, and its broker with it, ends with its input
    ready: (log) => {
      broker = address.exec(log)?.[1] ?? "";
      return broker !== "" && log.includes('Created topic "t1"');
    },
  });
  const stop = async () => {
    await server.end();
    await removeFolder(folder);
  };
  return {
    brokers: [broker],
    partitions: PARTITIONS,
    get pid() {
      return server.pid;
    },
    /** Every request with its name and version, the last ones. */
    get log() {
      return server.log;
    },
    /** It answers nothing until resume(); its connections stay open. */
    pause: () => server.signal("SIGSTOP"),
    resume: () => server.signal("SIGCONT"),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
