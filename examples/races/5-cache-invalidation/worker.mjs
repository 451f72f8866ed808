/** A process that reads one price. Started by race.mjs, which may hold it between its load and its fill. */
import { Redis } from "ioredis";
import pg from "pg";
import { atWork, done } from "../common/worker.mjs";
import { cacheAside, fenced } from "./prices.mjs";

const { job, report, point } = atWork();
const redis = new Redis(job.redis);
const db = new pg.Pool({ connectionString: job.database, max: 1 });
const prices = { cacheAside, fenced }[job.how]({ redis, db });
await point("ready");
let loads = 0;
for (const id of job.ids) {
  await prices.read(id, (price) => {
    loads++;
    return point("loaded", { id, price });
  });
}
report({ loads });
redis.disconnect();
await db.end();
done();
