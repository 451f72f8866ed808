/**
 * The cache that keeps what was invalidated. A reader misses, reads the database, and is slow; a writer changes the price,
 * and deletes it from the cache; the reader fills. See prices.mjs.
 */
import { Redis } from "ioredis";
import pg from "pg";
import { startPostgres } from "../../../test/services/postgres.mjs";
import { run } from "../../../test/services/processes.mjs";
import { startRedis } from "../../../test/services/redis.mjs";
import { race } from "../common/stage.mjs";
import { Worker } from "../common/worker.mjs";
import { cacheAside, fenced } from "./prices.mjs";

const SLOW_READERS = 6;
const HERD = 4;
const WORKER = new URL("worker.mjs", import.meta.url);

await race(
  { number: 5, title: "cache invalidation", systems: "Redis, PostgreSQL", wrong: "prices that the cache has wrong" },
  async ({ say, diagnose, outcome }) => {
    const postgres = await startPostgres();
    const redis = await startRedis();
    const db = new pg.Pool({ connectionString: postgres.url });
    const connection = new Redis(redis.url);
    const stage = { db, redis: connection, job: { database: postgres.url, redis: redis.url } };
    try {
      await db.query("create table prices (id int primary key, price int not null)");
      const without = outcome({ how: "cache-aside", ...(await slowReaders(stage, "cacheAside", cacheAside)) });
      diagnose(
        `psql ${postgres.url} -c 'select * from prices where id = 1'`,
        await postgres.psql("select * from prices where id = 1"),
      );
      for (const command of ["get price:1", "pttl price:1"]) {
        const words = ["redis-cli", "-p", `${redis.port}`, ...command.split(" ")];
        diagnose(words.join(" "), await run(words));
      }
      const fixed = outcome({ how: "fenced cache", ...(await slowReaders(stage, "fenced", fenced)) });

      for (const how of ["cacheAside", "fenced"]) {
        const { loads, readers } = await herd(stage, how);
        say(`${how}: ${readers} processes miss the same price at the same time: ${loads} loads`);
      }
      return { without, fixed: [fixed] };
    } finally {
      connection.disconnect();
      await db.end();
      await Promise.all([postgres.stop(), redis.stop()]);
    }
  },
);

/**
 *     a reader misses, and reads 101          (and stands still)
 *                                             the price becomes 201; the cache is told
 *     the reader fills
 */
async function slowReaders({ db, redis, job }, how, pricesOf) {
  const ids = Array.from({ length: SLOW_READERS }, (_, i) => i + 1);
  await reset({ db, redis }, ids);
  const prices = pricesOf({ redis, db });
  const readers = ids.map((id) => new Worker(WORKER, { ...job, how, ids: [id] }, { holdAt: ["loaded"] }));
  for (const reader of readers) await reader.at("loaded");
  for (const id of ids) await prices.write(id, 200 + id);
  for (const reader of readers) {
    reader.goOn();
    await reader.finished();
  }
  let wrong = 0;
  for (const id of ids) if ((await prices.read(id, () => {})) < 200) wrong++;
  return { wrong, of: ids.length };
}

async function reset({ db, redis }, ids) {
  await redis.flushall();
  await db.query("truncate prices");
  for (const id of ids) await db.query("insert into prices values ($1, $2)", [id, 100 + id]);
}

/** Several processes begin together to read what nobody has cached. */
async function herd({ db, redis, job }, how) {
  await reset({ db, redis }, [1]);
  const readers = Array.from(
    { length: HERD },
    () => new Worker(WORKER, { ...job, how, ids: [1] }, { holdAt: ["ready", "loaded"] }),
  );
  for (const reader of readers) await reader.at("ready");
  for (const reader of readers) reader.goOn();
  // Whoever has loaded stands still for a moment, so that the others come meanwhile.
  await Promise.race(readers.map((reader) => reader.at("loaded")));
  await new Promise((resolve) => setTimeout(resolve, 300));
  const goOn = (reader) => reader.at("loaded").then(() => reader.goOn(), ignore); // most of them never load
  for (const reader of readers) void goOn(reader);
  await Promise.all(readers.map((reader) => reader.finished()));
  const loads = readers.reduce((sum, { reports }) => sum + reports.find((report) => "loads" in report).loads, 0);
  return { loads, readers: readers.length };
}

function ignore() {}
