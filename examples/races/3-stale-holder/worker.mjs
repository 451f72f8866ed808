/** A process that issues one invoice. Started by race.mjs. */
import { connect, LeaseholdError } from "@leasehold/client";
import { sqliteFence } from "@leasehold/fence/sqlite";
import Database from "better-sqlite3";
import { Redis } from "ioredis";
import { atWork, done } from "../common/worker.mjs";
import { underLeasehold, underSetNx, underSetNxPx } from "./invoicing.mjs";

const { job, report, point } = atWork();
const issue = { underSetNx, underSetNxPx, underLeasehold }[job.how];
const db = new Database(job.file, { timeout: 2_000 });
const redis = job.redis ? new Redis(job.redis) : undefined;
const client = job.leasehold ? await connect(job.leasehold, { ttl: job.ttl }) : undefined;

const fence = sqliteFence(db);
const render = (number) => point("rendered", { number });
const { worker, patienceMs } = job;
try {
  const issued = await issue({ db, redis, client, fence, worker, patienceMs, render });
  report({ issued });
} catch (error) {
  const refused = LeaseholdError.is(error, "LOST") ? error.cause : error;
  if (!LeaseholdError.is(refused, "STALE_TOKEN")) throw error;
  report({ refused: refused.token, floor: refused.floor });
}
await client?.close();
redis?.disconnect();
db.close();
done();
