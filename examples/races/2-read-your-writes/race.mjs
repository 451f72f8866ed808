/**
 * Reading what one has just written, from a replica that is behind. A profile is saved by service A, which redirects to
 * service B, which shows it: two processes that speak HTTP. See profiles.mjs for the two ways to do it.
 */
import { startPostgres } from "../../../test/services/postgres.mjs";
import { run } from "../../../test/services/processes.mjs";
import { startRedis } from "../../../test/services/redis.mjs";
import { race } from "../common/stage.mjs";
import { until, Worker } from "../common/worker.mjs";
import { slowLink } from "./slow-link.mjs";

const VISITS = 20;
const WAIT_MS = 800;
/** Longer waits than this are told as such. */
const WAITED_MS = 5;
/** A page that takes longer is a failure. */
const LIMIT_MS = 20_000;
const WORKER = new URL("worker.mjs", import.meta.url);

const SCHEMA = `
  create table profiles (id int primary key, name text not null);
  insert into profiles select id, 'before' from generate_series(1, ${VISITS}) as id`;
const SENT =
  "select application_name, sent_lsn, replay_lsn, sent_lsn - replay_lsn as bytes_behind from pg_stat_replication";
const REPLAYED = "select pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), pg_get_wal_replay_pause_state()";

await race(
  {
    number: 2,
    title: "read your writes",
    systems: "PostgreSQL and Redis, each with a replica",
    wrong: "pages that show the profile as it was before",
  },
  async ({ say, diagnose, outcome }) => {
    const [postgres, redis] = await Promise.all([startPostgres({ replica: true }), startRedis({ replica: true })]);
    const link = await slowLink(redis.port);
    const services = [];
    const start = async (job) => {
      const service = new Worker(WORKER, job);
      services.push(service);
      return { service, ...(await service.next("url")) };
    };
    try {
      const systems = [onPostgres(postgres, diagnose), await onRedis(redis, link, diagnose)];
      await postgres.psql(SCHEMA);
      const job = {
        postgres: { primary: postgres.url, replica: postgres.replica.url },
        redis: { primary: redis.url, replica: redis.replica.url },
        waitMs: WAIT_MS,
      };
      const b = await start(job);
      const a = await start({ ...job, showAt: b.url });

      const without = { how: "any replica", wrong: 0, of: 0 };
      const fixed = [];
      for (const system of systems) {
        const plain = await readAnywhere({ a, b, system, say });
        const { wrong, of } = outcome({ how: `${system.title}, any replica`, ...plain });
        without.wrong += wrong;
        without.of += of;
      }
      for (const system of systems) {
        const causal = await readCausally({ a, b, system, say });
        fixed.push(outcome({ how: `${system.title}, causal session`, ...causal }));
      }
      return { without, fixed };
    } finally {
      await Promise.all(services.map((service) => service.kill()));
      link.close();
      await Promise.all([postgres.stop(), redis.stop()]);
    }
  },
);

/** How its replica falls behind, catches up, and is gone. */
function onPostgres(postgres, diagnose) {
  const { replica } = postgres;
  return {
    title: "PostgreSQL",
    path: "postgres",
    fallBehind: () => replica.pause(),
    catchUp: () => replica.resume(),
    async caughtUp() {
      const at = await postgres.psql("select pg_current_wal_flush_lsn()");
      return (await replica.psql(`select pg_last_wal_replay_lsn() >= '${at}'`)) === "t";
    },
    gone: "is killed",
    goAway: () => replica.kill9(),
    async look() {
      diagnose(`psql ${postgres.url} -Atc '${SENT}'`, await postgres.psql(SENT));
      diagnose(`psql ${replica.url} -Atc '${REPLAYED}'`, await replica.psql(REPLAYED));
    },
  };
}

async function onRedis(redis, link, diagnose) {
  const { replica } = redis;
  const field = async (server, name) =>
    new RegExp(`^${name}:(.*)\r$`, "m").exec(await server.command("info replication"))?.[1];
  await replica.command(`replicaof 127.0.0.1 ${link.port}`);
  await until("the replica is in sync", async () => (await field(replica, "master_link_status")) === "up");
  const look = async ({ port }, fields) => {
    const command = ["redis-cli", "-p", `${port}`, "info", "replication"];
    const lines = (await run(command)).split(/\r?\n/).filter((line) => fields.test(line));
    diagnose(`${command.join(" ")} | grep -E '${fields.source}'`, lines.join("\n"));
  };
  return {
    title: "Redis",
    path: "redis",
    fallBehind: () => link.pause(),
    catchUp: () => link.resume(),
    async caughtUp() {
      const at = Number(await field(redis, "master_repl_offset"));
      return Number(await field(replica, "slave_repl_offset")) >= at;
    },
    gone: "is stopped, with its connections open",
    goAway: () => replica.pause(),
    async look() {
      await look(redis, /^slave0|^master_repl_offset/);
      await look(replica, /^master_link_status|^slave_repl_offset/);
    },
  };
}

/** One user: saves at A, follows the redirect to B, and passes on the position that came with it unless `forgetful`. */
async function visit({ a, system }, { id, way, name, forgetful = false }) {
  const path = `/${system.path}/${way}/${id}`;
  const signal = AbortSignal.timeout(LIMIT_MS);
  const saved = await fetch(a.url + path, { method: "POST", headers: { name }, redirect: "manual", signal });
  if (saved.status !== 303) throw new Error(`not saved: ${await saved.text()}`);
  const position = forgetful ? null : saved.headers.get("causal-position");
  const headers = position ? { "causal-position": position } : {};
  const shown = await fetch(saved.headers.get("location"), { headers, signal });
  if (!shown.ok) throw new Error(`not shown: ${await shown.text()}`);
  const page = await shown.json();
  return { stale: page.name !== name, read: page.read };
}

/** Everybody at once. */
function visits(stage, { way, name, forgetful }) {
  const ids = Array.from({ length: VISITS }, (_, i) => i + 1);
  return Promise.all(ids.map((id) => visit(stage, { id, way, name, forgetful })));
}

function stale(pages) {
  return pages.filter((page) => page.stale).length;
}

async function readAnywhere(stage) {
  const { system } = stage;
  await until("the replica has all", system.caughtUp);
  await system.fallBehind();
  const pages = await visits(stage, { way: "plain", name: "changed" });
  await system.look();
  await system.catchUp();
  await until("the replica has all", system.caughtUp);
  return { wrong: stale(pages), of: pages.length };
}

/** The replica keeps up; is behind and catches up; stays behind; is gone. */
async function readCausally(stage) {
  const { system, say, b } = stage;
  const pages = await visits(stage, { way: "causal", name: "the replica keeps up" });

  await system.fallBehind();
  const asked = () => b.service.reports.filter((report) => "asked" in report).length;
  const before = asked();
  const waiting = visits(stage, { way: "causal", name: "it catches up" });
  await until("all reads are waiting", () => asked() === before + VISITS);
  await new Promise((resolve) => setTimeout(resolve, 4 * WAITED_MS)); // only so that there is a wait to tell of
  await system.catchUp();
  pages.push(...(await waiting));

  await until("the replica has all", system.caughtUp);
  await system.fallBehind();
  pages.push(...(await visits(stage, { way: "causal", name: "it stays behind" })));
  const forgetful = await visits(stage, { way: "causal", name: "nobody passes it on", forgetful: true });
  say(`if the header gets lost on the way: ${stale(forgetful)} of ${forgetful.length} pages show what was before`);

  await system.catchUp();
  await until("the replica has all", system.caughtUp);
  say(`now the replica ${system.gone}`);
  await system.goAway();
  pages.push(...(await visits(stage, { way: "causal", name: "it is gone" })));
  return { wrong: stale(pages), of: pages.length, note: whereRead(pages) };
}

function whereRead(pages) {
  const onReplica = pages.filter(({ read }) => read.on === "replica");
  const waited = onReplica.filter(({ read }) => read.waitedMs > WAITED_MS).length;
  const primary = pages.length - onReplica.length;
  return `${onReplica.length - waited} by the replica at once, ${waited} when it had it, ${primary} by the primary`;
}
