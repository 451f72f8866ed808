/** A process that books seats until the show is sold out. Started by race.mjs. */
import { setTimeout as delay } from "node:timers/promises";
import { connect, LeaseholdError } from "@leasehold/client";
import { postgresFence } from "@leasehold/fence/postgres";
import pg from "pg";
import { atWork, done } from "../common/worker.mjs";
import { bookFenced, bookLocked, bookOptimistically, bookUnprotected } from "./booking.mjs";

const { job, report, point } = atWork();
const book = { bookUnprotected, bookLocked, bookFenced, bookOptimistically }[job.how];
const pool = new pg.Pool({ connectionString: job.url, max: 2 });
pool.on("error", () => {}); // an idle connection that broke is replaced
const client = job.leasehold ? await connect(job.leasehold, { ttl: job.ttl }) : undefined;
const fence = postgresFence(pool);

/** What takes time between the read and the write. */
async function pay(seat) {
  await delay(job.payMs);
  await point("paid", { seat });
}

/** @returns whether there may be more to book */
async function bookOne() {
  try {
    return await book({ pool, client, fence, worker: job.worker, pay });
  } catch (error) {
    const refused = LeaseholdError.is(error, "LOST") ? error.cause : error;
    if (LeaseholdError.is(refused, "STALE_TOKEN")) report({ refused: refused.token, floor: refused.floor });
    else if (!LeaseholdError.is(error, "LOST")) throw error;
    return true; // start over, with a new lock and a new read
  }
}

await pool.query("select 1");
await point("ready");
while (await bookOne());
await client?.close();
await pool.end();
done();
