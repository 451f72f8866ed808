/** PostgreSQL: an update in a transaction, and an update of one row, on one connection each. */
import { postgresFence } from "@leasehold/fence/postgres";
import pg from "pg";
import { startPostgres } from "../../test/services/postgres.mjs";

export async function open() {
  const postgres = await startPostgres();
  const pool = new pg.Pool({ connectionString: postgres.url, max: 1 });
  const fence = postgresFence(pool);
  await fence.migrate();
  await pool.query("create table orders (id int primary key, total int not null, token bigint not null default 0)");
  await pool.query("insert into orders select i, 0 from generate_series(1, 1000) as i");
  const lock = { name: "orders/42", token: 34, remainingMs: 3_600_000 };
  await fence.raise(lock);
  const add = "update orders set total = total + 1 where id = $1";
  let total = 0;
  return {
    rows: [
      {
        title: "transaction: begin, update, commit",
        async plain() {
          const client = await pool.connect();
          await client.query("begin");
          await client.query(add, [42]);
          await client.query("commit");
          client.release();
        },
        fenced: () => fence.tx(lock, (tx) => tx.query(add, [42])),
      },
      {
        title: "row: one update",
        plain: () => pool.query("update orders set total = $1 where id = $2", [++total, 43]),
        fenced: () => fence.updateRow(lock, { table: "orders", set: { total: ++total }, where: { id: 43 } }),
      },
    ],
    async close() {
      await pool.end();
      await postgres.stop();
    },
  };
}
