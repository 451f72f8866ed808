/**
 * The lost update: eight processes sell the seats of a show. Each reads how many are left, takes a payment, and writes one
 * less. See booking.mjs for the ways to do it.
 */
import { postgresFence } from "@leasehold/fence/postgres";
import pg from "pg";
import { startLeasehold } from "../../../test/services/leasehold.mjs";
import { startPostgres } from "../../../test/services/postgres.mjs";
import { race } from "../common/stage.mjs";
import { until, Worker } from "../common/worker.mjs";

const SEATS = 40;
const PROCESSES = 8;
const TTL_MS = 1_500;
const WORKER = new URL("worker.mjs", import.meta.url);

const SCHEMA = `
  drop table if exists shows, bookings;
  create table shows (id int primary key, seats_left int not null, version bigint not null default 0);
  insert into shows values (7, ${SEATS});
  create table bookings (id serial primary key, seat int not null, worker int not null, at timestamptz default now())`;

const DOUBLE = "select seat, count(*), array_agg(worker) as workers from bookings group by seat having count(*) > 1";

await race(
  { number: 1, title: "lost update", systems: "PostgreSQL", wrong: "bookings of a seat that was sold already" },
  async ({ say, diagnose, outcome }) => {
    const postgres = await startPostgres();
    const leasehold = await startLeasehold();
    const pool = new pg.Pool({ connectionString: postgres.url });
    try {
      await postgresFence(pool).migrate();
      const stage = { pool, say, job: { url: postgres.url, leasehold: leasehold.address, ttl: TTL_MS, payMs: 5 } };

      const without = outcome({ how: "nothing", ...(await sell(stage, "bookUnprotected")) });
      diagnose(`psql ${postgres.url} -c '${DOUBLE} limit 3'`, await postgres.psql(`${DOUBLE} limit 3`));

      const alone = await sell(stage, "bookLocked", { trouble: true });
      say(`the lock alone, one holder stopped past its lease: ${alone.wrong} of ${alone.of} bookings sold twice`);

      const fenced = outcome({ how: "lock and fence", ...(await sell(stage, "bookFenced", { trouble: true })) });
      const optimistic = outcome({ how: "version column", ...(await sell(stage, "bookOptimistically")) });
      return { without, fixed: [fenced, optimistic] };
    } finally {
      await pool.end();
      await leasehold.stop();
      await postgres.stop();
    }
  },
);

/** Sells the whole show in one of the ways. With `trouble` one holder is stopped past its lease, and another is killed. */
async function sell({ pool, say, job }, how, { trouble = false } = {}) {
  await pool.query(SCHEMA);
  const work = (worker, holdAt) => new Worker(WORKER, { ...job, how, worker }, { holdAt });
  const stopped = trouble ? await stopBeforeItsWrite(work(100, ["paid"]), say) : undefined;

  const killed = trouble ? work(200, ["ready", "paid"]) : undefined;
  const crew = Array.from({ length: PROCESSES }, (_, i) => work(i, ["ready"]));
  const all = killed ? [killed, ...crew] : crew;
  for (const worker of all) await worker.at("ready"); // all begin together
  for (const worker of all) worker.goOn();
  if (killed) {
    const { seat } = await killed.at("paid");
    await killed.kill();
    say(`a holder has read "seat ${seat}" and is killed before its write`);
  }
  if (stopped) {
    await until("the next holder has sold a seat", async () => (await pool.query("select from bookings")).rowCount > 0);
    say("the lease of the stopped one is over, and others have sold seats: now its write arrives");
    stopped.signal("SIGCONT");
  }
  await Promise.all([...crew, ...(stopped ? [stopped] : [])].map((worker) => worker.finished()));

  const { rows } = await pool.query("select count(*)::int as of, count(distinct seat)::int as seats from bookings");
  const refused = stopped?.reports.filter((report) => report.refused !== undefined).length;
  const note = trouble ? { note: `${refused} stale write refused, 1 holder killed` } : {};
  return { wrong: rows[0].of - rows[0].seats, of: rows[0].of, ...note };
}

/** It goes on with its write the moment it runs again. */
async function stopBeforeItsWrite(worker, say) {
  const { seat } = await worker.at("paid");
  worker.signal("SIGSTOP");
  worker.goOn();
  say(`a holder has read "seat ${seat}" and is stopped before its write`);
  return worker;
}
