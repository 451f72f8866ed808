/** MariaDB: an update in a transaction, and an update of one row, on one connection each. */
import { mysqlFence } from "@leasehold/fence/mysql";
import mysql from "mysql2/promise";
import { startMariadb } from "../../test/services/mariadb.mjs";

export async function open() {
  const mariadb = await startMariadb();
  const pool = mysql.createPool({ uri: mariadb.url, connectionLimit: 1 });
  const fence = mysqlFence(pool);
  await fence.migrate();
  await pool.query("create table orders (id int primary key, total int not null, token bigint not null default 0)");
  await pool.query("insert into orders (id, total) select seq, 0 from seq_1_to_1000");
  const lock = { name: "orders/42", token: 34, remainingMs: 3_600_000 };
  await fence.raise(lock);
  const add = "update orders set total = total + 1 where id = ?";
  let total = 0;
  return {
    rows: [
      {
        title: "transaction: begin, update, commit",
        async plain() {
          const client = await pool.getConnection();
          await client.query("begin");
          await client.query(add, [42]);
          await client.query("commit");
          client.release();
        },
        fenced: () => fence.tx(lock, (tx) => tx.query(add, [42])),
      },
      {
        title: "row: one update",
        plain: () => pool.query("update orders set total = ? where id = ?", [++total, 43]),
        fenced: () => fence.updateRow(lock, { table: "orders", set: { total: ++total }, where: { id: 43 } }),
      },
    ],
    async close() {
      await pool.end();
      await mariadb.stop();
    },
  };
}
