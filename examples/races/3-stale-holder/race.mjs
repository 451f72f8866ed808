/**
 * Holders that die and holders that stall. Processes issue invoices, whose numbers must have no gap and no double. The
 * same schedule under three locks, see invoicing.mjs.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sqliteFence } from "@leasehold/fence/sqlite";
import Database from "better-sqlite3";
import { startLeasehold } from "../../../test/services/leasehold.mjs";
import { run } from "../../../test/services/processes.mjs";
import { startRedis } from "../../../test/services/redis.mjs";
import { leaseholdCommand } from "../common/commands.mjs";
import { race } from "../common/stage.mjs";
import { until, Worker } from "../common/worker.mjs";

const TTL_MS = 1_000;
const WORKER = new URL("worker.mjs", import.meta.url);
const DOUBLE = "select number, count(*) as issued, group_concat(worker) as workers from invoices group by number";

await race(
  { number: 3, title: "stale holder", systems: "SQLite, Redis", wrong: "invoices missing or numbered twice" },
  async ({ say, diagnose, outcome }) => {
    const folder = mkdtempSync(join(tmpdir(), "leasehold-race-"));
    const file = join(folder, "invoices.db");
    const db = new Database(file);
    const redis = await startRedis();
    const leasehold = await startLeasehold();
    const redisCli = async (command) => {
      const args = ["redis-cli", "-p", `${redis.port}`, ...command.split(" ")];
      diagnose(args.join(" "), await run(args));
    };
    const start = (how, worker, options) => {
      const job = {
        how,
        worker,
        file,
        redis: redis.url,
        leasehold: leasehold.address,
        ttl: TTL_MS,
        patienceMs: 30_000,
      };
      return new Worker(WORKER, { ...job, ...options?.job }, { holdAt: options?.hold ? ["rendered"] : [] });
    };
    const stage = { db, say, start };
    try {
      db.pragma("journal_mode = wal");
      db.exec("create table invoices (id integer primary key, number integer, worker text)");
      sqliteFence(db).migrate();

      const orphaned = await killedHolder(stage, "underSetNx", 2_000);
      outcome({ how: "SET NX", ...orphaned });
      await redisCli("ttl lock:invoices");

      await redisCli("del lock:invoices");
      const without = outcome({ how: "SET NX PX", ...(await stalledHolder(stage, "underSetNxPx")) });
      const doubles = db.prepare(DOUBLE).raw().all();
      diagnose(`${DOUBLE};`, doubles.map((row) => row.join("|")).join("\n"), "sqlite>");

      const killed = outcome({ how: "lease, killed holder", ...(await killedHolder(stage, "underLeasehold", 60_000)) });
      const look = () => leaseholdCommand(leasehold, ["locks", "describe", "invoices"], diagnose);
      const stalled = outcome({
        how: "lease and fence, stalled holder",
        ...(await stalledHolder(stage, "underLeasehold", look)),
      });
      return { without, fixed: [killed, stalled] };
    } finally {
      db.close();
      await leasehold.stop();
      await redis.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  },
);

/** What is wrong with the numbers, of so many invoices that were wanted. */
function judge(db, wanted) {
  const [issued, different] = db.prepare("select count(*), count(distinct number) from invoices").raw().get();
  return { wrong: wanted - issued + (issued - different), of: wanted };
}

/** A holder is killed with the lock in its hand; three others want an invoice each. */
async function killedHolder({ db, say, start }, how, patienceMs) {
  db.exec("delete from invoices");
  const holder = start(how, "A", { hold: true });
  await holder.at("rendered");
  await holder.kill();
  const killedAtMs = performance.now();
  const others = ["B", "C", "D"].map((worker) => start(how, worker, { job: { patienceMs } }));
  await Promise.all(others.map((worker) => worker.finished()));
  const { wrong, of } = judge(db, others.length);
  const seconds = ((performance.now() - killedAtMs) / 1_000).toFixed(1);
  if (wrong === 0) say(`the holder was killed, and ${seconds} s later all others had had the lock (TTL ${TTL_MS} ms)`);
  else say(`the holder was killed, and ${seconds} s later nobody has got the lock`);
  return { wrong, of };
}

/**
 *     A takes the lock, reads, stalls                  (its time runs out)
 *     B takes the lock, reads, is not done yet
 *     A goes on: writes, gives "its" lock back
 *     C wants the lock
 *     B writes
 */
async function stalledHolder({ db, say, start }, how, look) {
  db.exec("delete from invoices");
  const a = start(how, "A", { hold: true });
  const { number } = await a.at("rendered");
  a.signal("SIGSTOP");
  a.goOn();
  say(`A holds the lock, has rendered invoice ${number}, and is stopped before its write`);
  const b = start(how, "B", { hold: true });
  const { number: other } = await b.at("rendered");
  say(`A's time is over, B holds the lock and has rendered invoice ${other}: now A's write arrives`);
  a.signal("SIGCONT");
  await a.finished();
  const c = start(how, "C");
  await look?.();
  b.goOn();
  await Promise.all([b.finished(), c.finished()]);
  const refused = a.reports.find((report) => report.refused !== undefined);
  if (refused) {
    // What was refused is done again, as a program would do it.
    await start(how, "A again").finished();
    await until("all are written", () => judge(db, 3).wrong === 0);
  }
  const note = refused ? { note: `token ${refused.refused} refused, the floor was ${refused.floor}` } : {};
  return { ...judge(db, 3), ...note };
}
