/**
 * Reading your own writes. A user changes an order at one service and looks at it at another, which reads from a replica.
 * The replica is behind: by a little, and for some time altogether. The stores are in stores.mjs.
 */
import { startPostgres } from "../../../test/services/postgres.mjs";
import { run } from "../../../test/services/processes.mjs";
import { startRedis } from "../../../test/services/redis.mjs";
import { race } from "../common/stage.mjs";
import { until, Worker } from "../common/worker.mjs";

const ROUNDS = 12;
/** How far the replica of PostgreSQL is behind. */
const DELAY = "60ms";
const LAG = `select application_name, sent_lsn, replay_lsn, sent_lsn - replay_lsn as bytes_behind from pg_stat_replication`;
/** A port at which no Redis answers. */
const NOWHERE = 1;
const POSITION_HEADER = "causal-position";

await race(
  {
    number: 2,
    title: "read your own writes",
    systems: "PostgreSQL, Redis, each with a replica",
    wrong: "reads without the write before",
  },
  async ({ diagnose, outcome }) => {
    const postgres = await startPostgres({ replica: true, settings: { recovery_min_apply_delay: DELAY } });
    const redis = await startRedis({ replica: true });
    const onPostgres = { primary: postgres.url, replica: postgres.replica.url };
    const onRedis = { primary: redis.url, replica: redis.replica.url };
    try {
      await postgres.psql("create table orders (id int primary key, state text); insert into orders values (1, 'new')");
      await caughtUp(postgres);

      const plain = outcome({ how: "PostgreSQL, plain", ...(await rounds("plainPostgres", onPostgres)) });
      await postgres.replica.pause();
      await postgres.psql("update orders set state = 'seen by nobody yet'");
      diagnose(`psql ${postgres.url} -c '${LAG}'`, await postgres.psql(LAG));
      await postgres.replica.resume();

      await follow(redis, NOWHERE);
      const twin = outcome({ how: "Redis, plain", ...(await rounds("plainRedis", onRedis)) });
      const info = ["redis-cli", "-p", `${redis.replica.port}`, "info", "replication"];
      const lines = (await run(info))
        .split(/\r?\n/)
        .filter((line) => /^(role|master_link_status|slave_repl_offset)/.test(line));
      diagnose(info.join(" "), lines.join("\n"));
      const without = { how: "plain reads from the replica", wrong: plain.wrong + twin.wrong, of: plain.of + twin.of };

      const fixed = [outcome({ how: "PostgreSQL, causal session", ...(await rounds("causalPostgres", onPostgres)) })];
      await postgres.replica.pause();
      const paused = await rounds("causalPostgres", onPostgres, 3);
      fixed.push(outcome({ how: "PostgreSQL, the replica stands still", ...paused }));

      const cut = await rounds("causalRedis", onRedis, 3);
      fixed.push(outcome({ how: "Redis, the replica is cut off", ...cut }));
      await follow(redis, redis.port);
      fixed.push(outcome({ how: "Redis, causal session", ...(await rounds("causalRedis", onRedis)) }));
      return { without, fixed };
    } finally {
      await Promise.all([postgres.stop(), redis.stop()]);
    }
  },
);

async function caughtUp({ psql, replica }) {
  const written = await psql("select pg_current_wal_flush_lsn()");
  while ((await replica.psql(`select pg_last_wal_replay_lsn() >= '${written}'`)) !== "t");
}

/** The replica of Redis follows the server at that port of this machine. Following nobody it answers with what it has. */
async function follow(redis, port) {
  const cli = (...command) => run(["redis-cli", "-p", `${redis.replica.port}`, ...command]);
  await cli("replicaof", "127.0.0.1", `${port}`);
  if (port === NOWHERE) return;
  await until("the replica follows again", async () =>
    (await cli("info", "replication")).includes("master_link_status:up"),
  );
}

/** A user writes to one service and reads at the other, again and again. */
async function rounds(store, at, count = ROUNDS) {
  const services = [0, 1].map(() => new Worker(new URL("service.mjs", import.meta.url), { store, ...at }));
  const [writer, reader] = await Promise.all(services.map(async (service) => (await service.next("url")).url));
  let wrong = 0;
  const from = { replica: 0, primary: 0 };
  for (let i = 0; i < count; i++) {
    const state = `${store} ${i}`;
    const written = await fetch(writer, { method: "PUT", body: state });
    if (!written.ok) throw new Error(await written.text());
    // What a browser does with a cookie, and a service with a header that it passes on.
    const position = written.headers.get(POSITION_HEADER);
    const answer = await fetch(reader, { headers: position ? { [POSITION_HEADER]: position } : {} });
    if (!answer.ok) throw new Error(await answer.text());
    const read = await answer.json();
    if (read.state !== state) wrong++;
    from[read.from]++;
  }
  await Promise.all(services.map((service) => service.kill()));
  return { wrong, of: count, note: `${from.replica} by the replica, ${from.primary} by the primary` };
}
