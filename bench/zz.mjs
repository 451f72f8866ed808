import { postgresFence } from "@leasehold/fence/postgres";
import pg from "pg";
import { startPostgres } from "../test/services/postgres.mjs";
const postgres = await startPostgres();
const pool = new pg.Pool({ connectionString: postgres.url, max: 1 });
const fence = postgresFence(pool);
await fence.migrate();
await fence.raise({ name: "orders/42", token: 34 });
await pool.query("create table orders (id int primary key, total int not null, token bigint not null default 0)");
await pool.query("insert into orders select i, 0 from generate_series(1, 1000) as i");
const F = '"public"."leasehold_fence';
const U = "update orders set total=total+1 where id=42";
const CH = `select ${F}_check"(E'orders/42', 34, true); commit`;
const L = `begin; select ${F}_limits"(2500,5000)`;
const S3 = "begin; set local lock_timeout=2500; set local idle_in_transaction_session_timeout=2500; set local statement_timeout=5000";
const S4 = S3 + "; set local tcp_user_timeout=2500";
const v = { plain: ["begin", U, "commit"], L_commit: [L, U, "commit"], S3_commit: [S3, U, "commit"], S4_commit: [S4, U, "commit"], check: ["begin", U, CH], L_check: [L, U, CH], S4_check: [S4, U, CH] };
const lock = { name: "orders/42", token: 34, remainingMs: 3_600_000 };
const run = (texts) => async () => { const c = await pool.connect(); for (const text of texts) await c.query(text); c.release(); };
const runs = { ...Object.fromEntries(Object.entries(v).map(([k, t]) => [k, run(t)])), tx: () => fence.tx(lock, (tx) => tx.query(U)) };
const times = Object.fromEntries(Object.keys(runs).map((k) => [k, []]));
for (let r = 0; r < 150; r++) for (const [k, f] of Object.entries(runs)) {
  const t = performance.now();
  for (let i = 0; i < 10; i++) await f();
  times[k].push((performance.now() - t) / 10);
}
const base = times.plain.slice();
for (const [k, t] of Object.entries(times)) { const r = t.map((x, i) => x / base[i]).sort((a, b) => a - b); t.sort((a, b) => a - b); console.log(k.padEnd(12), t[t.length >> 1].toFixed(3), t[15].toFixed(3), "x", r[r.length >> 1].toFixed(2)); }
await pool.end(); await postgres.stop();
