// @ts-check
/** Starts the service that it is told, prints what it is, and waits to be killed: see services.test.ts. */
import { startEtcd } from "./etcd.mjs";
import { startKafka } from "./kafka.mjs";
import { startLeasehold } from "./leasehold.mjs";
import { startMariadb } from "./mariadb.mjs";
import { startPostgres } from "./postgres.mjs";
import { startRabbitmq } from "./rabbitmq.mjs";
import { startRedis } from "./redis.mjs";

const starts = {
  etcd: startEtcd,
  kafka: startKafka,
  leasehold: startLeasehold,
  mariadb: startMariadb,
  postgres: startPostgres,
  rabbitmq: startRabbitmq,
  redis: startRedis,
};

const name = /** @type {keyof typeof starts} */ (process.argv[2]);
const service = await starts[name]();
process.stdout.write(`${JSON.stringify({ pid: service.pid, folder: process.env.TMPDIR })}\n`);
if (process.argv[3] === "stay") setInterval(() => undefined, 60_000);
