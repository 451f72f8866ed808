// @ts-check
/** Starts the service that it is told, prints what it is, and waits to be killed: see services.test.ts. */
import { startEtcd } from "./etcd.mjs";
import { startKafka } from "./kafka.mjs";
import { startLeasehold } from "./leasehold.mjs";
import { startMariadb } from "./mariadb.mjs";
import { startPostgres } from "./postgres.mjs";
import { ServerProcess, temporaryFolder } from "./processes.mjs";
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
  /** One that does not want to end. */
  stubborn: () =>
    ServerProcess.start({
      name: "stubborn",
      folder: temporaryFolder("stubborn"),
      command: ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"],
      ready: (log) => log.includes("ready"),
      endSignal: "SIGTERM",
    }),
};

const name = /** @type {keyof typeof starts} */ (process.argv[2]);
const service = await starts[name]();
process.stdout.write(`${JSON.stringify({ pid: service.pid, folder: process.env.TMPDIR })}\n`);
if (process.argv[3] === "stay") setInterval(() => undefined, 60_000);
