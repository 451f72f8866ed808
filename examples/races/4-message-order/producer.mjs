/** A process that publishes the events of some orders, each under the order's lock. Started by race.mjs. */
import { connect } from "@leasehold/client";
import { atWork, done } from "../common/worker.mjs";
import * as kafka from "./kafka.mjs";
import * as rabbitmq from "./rabbitmq.mjs";

const { job, point } = atWork();
const { plainProducer, stampedProducer } = job.brokers ? kafka : rabbitmq;
const client = await connect(job.leasehold, { ttl: job.ttl });
const producer = await (job.stamped ? stampedProducer : plainProducer)(job);

async function* events(id) {
  for (const type of job.types) {
    await point(`${id} ${type}`);
    yield { id, type };
  }
}

for (const id of job.ids) {
  const lock = await client.acquire(`orders/${id}`, { wait: "60s" });
  // A publisher under a lock would notice most pauses by itself, since it looks at the lock before it sends anything. Here
  // the token is taken beforehand, so that the pause comes after the last look: the case that only consumers can catch.
  await producer.publish({ name: lock.name, token: lock.token }, events(id));
  await lock.release();
}
await producer.close();
await client.close();
done();
