/**
 * A cache that keeps what has been changed. Prices are in PostgreSQL, with a replica, and are cached in Redis. See
 * products.mjs for the two ways to do it. What goes wrong, each under both:
 *
 * - A reader is so slow that it fills the cache with what it read before a change.
 * - A writer is killed between its commit and its deletion from the cache.
 * - What was deleted is filled again from a replica that is behind.
 */
import pg from "pg";
import { startPostgres } from "../../../test/services/postgres.mjs";
import { run } from "../../../test/services/processes.mjs";
import { startRedis } from "../../../test/services/redis.mjs";
import { race } from "../common/stage.mjs";
import { until, Worker } from "../common/worker.mjs";
import { openShop } from "./shop.mjs";

const PRODUCTS = 10;
const IDS = Array.from({ length: PRODUCTS }, (_, i) => i + 1);
const OLD = 100;
const NEW = 120;
/** A reader that is stopped holds up others for so long at most. */
const FILL_MS = 500;
const WAIT_MS = 800;
const READERS = 100;
const PROCESSES = 2;
const WORKER = new URL("worker.mjs", import.meta.url);

const SCHEMA = `
  drop table if exists products;
  create table products (id int primary key, price int not null);
  insert into products select id, ${OLD} from generate_series(1, ${PRODUCTS}) as id`;

await race(
  {
    number: 5,
    title: "cache invalidation",
    systems: "Redis, PostgreSQL with a replica",
    wrong: "prices served from the cache that are not true any more",
  },
  async ({ say, diagnose, outcome }) => {
    const [postgres, redis] = await Promise.all([startPostgres({ replica: true }), startRedis()]);
    const pool = new pg.Pool({ connectionString: postgres.url });
    const redisCli = async (...command) => {
      const args = ["redis-cli", "-p", `${redis.port}`, ...command];
      diagnose(args.join(" "), await run(args));
    };
    const addresses = { primary: postgres.url, replica: postgres.replica.url, redis: redis.url };
    const job = { ...addresses, fillMs: FILL_MS, waitMs: WAIT_MS, ids: IDS };
    const start = (how, more, holdAt) => new Worker(WORKER, { ...job, how, ...more }, { holdAt });
    const stage = { postgres, redis, pool, say, job, start };
    const schedules = { "slow reader": slowReader, "killed writer": killedWriter, "replica behind": replicaBehind };
    try {
      const without = { how: "cache-aside", wrong: 0, of: 0 };
      for (const [title, schedule] of Object.entries(schedules)) {
        const { wrong, of } = outcome({ how: `cache-aside, ${title}`, ...(await schedule(stage, "aside")) });
        without.wrong += wrong;
        without.of += of;
        if (schedule !== slowReader) continue;
        const truth = "select price from products where id = 3";
        diagnose(`psql ${postgres.url} -Atc '${truth}'`, await postgres.psql(truth));
        await redisCli("get", "product/3");
        await redisCli("ttl", "product/3");
      }
      const fixed = [];
      for (const [title, schedule] of Object.entries(schedules)) {
        fixed.push(outcome({ how: `fenced cache, ${title}`, ...(await schedule(stage, "fenced")) }));
      }
      await redisCli("get", "leasehold:cache:{product/3}:value");
      for (const how of ["aside", "fenced"]) {
        const loads = await herd(stage, how);
        say(`${READERS} readers miss the same price at once, ${how}: ${loads} of them read the database`);
      }
      return { without, fixed };
    } finally {
      await pool.end();
      await Promise.all([postgres.stop(), redis.stop()]);
    }
  },
);

/** All prices are old, in both databases, and the cache is empty. */
async function reset({ postgres, redis, pool }) {
  await pool.query(SCHEMA);
  await redis.command("flushall");
  const { rows } = await pool.query("select pg_current_wal_flush_lsn() as at");
  const caughtUp = `select pg_last_wal_replay_lsn() >= '${rows[0].at}'`;
  await until("the replica has all", async () => (await postgres.replica.psql(caughtUp)) === "t");
}

/** What is served to a reader that comes afterwards, compared with what is true. */
async function judge({ pool, job }, how) {
  const nothing = () => Promise.resolve();
  const shop = await openShop({ ...job, how }, { loaded: nothing, committed: nothing });
  try {
    const prices = await shop.prices(IDS);
    const { rows } = await pool.query("select price from products order by id");
    return { wrong: prices.filter((price, i) => price !== rows[i].price).length, of: prices.length };
  } finally {
    await shop.close();
  }
}

/** Lets one that is ready do its work, to the end. */
async function finish(worker) {
  await worker.at("ready");
  worker.goOn();
  await worker.finished();
}

/**
 *     A misses, reads the old prices, stalls
 *     B reads half of them                     (and fills, when A has no right to any more)
 *     the writer changes all, and invalidates
 *     A goes on: fills
 */
async function slowReader(stage, how) {
  await reset(stage);
  const { say, start } = stage;
  const a = start(how, { together: true }, ["loaded"]);
  const b = start(how, { ids: IDS.slice(0, PRODUCTS / 2) }, ["ready"]);
  const writer = start(how, { price: NEW }, ["ready"]);
  await a.at("loaded");
  a.signal("SIGSTOP");
  a.goOn();
  await finish(b);
  await finish(writer);
  say("a reader has read the old prices and was stopped, and all have changed since: now it fills the cache");
  a.signal("SIGCONT");
  await a.finished();
  return judge(stage, how);
}

async function killedWriter(stage, how) {
  await reset(stage);
  const { say, start } = stage;
  const reader = start(how, {}, ["ready"]);
  const writer = start(how, { price: NEW, together: true }, ["ready", "committed"]);
  await finish(reader); // all are in the cache
  await writer.at("ready");
  writer.goOn();
  await writer.at("committed");
  await writer.kill();
  say("a writer was killed behind its commit");
  return judge(stage, how);
}

async function replicaBehind(stage, how) {
  await reset(stage);
  const { say, start, postgres } = stage;
  const writer = start(how, { price: NEW }, ["ready"]);
  const reader = start(how, { from: "replica" }, ["ready"]);
  await postgres.replica.pause();
  await finish(writer);
  await finish(reader);
  await postgres.replica.resume();
  say("the prices were changed and read again, while the replica was behind");
  return judge(stage, how);
}

/** How many of those who read the same at the same time have asked the database. */
async function herd(stage, how) {
  await reset(stage);
  const ids = Array.from({ length: READERS / PROCESSES }, () => 1);
  const readers = Array.from({ length: PROCESSES }, () => stage.start(how, { ids }, ["ready"]));
  for (const reader of readers) await reader.at("ready"); // all begin together
  for (const reader of readers) reader.goOn();
  await Promise.all(readers.map((reader) => reader.finished()));
  return readers.flatMap(({ reports }) => reports.filter((report) => "loaded" in report)).length;
}
