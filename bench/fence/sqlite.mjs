/** SQLite: an update in a transaction, and an update of one row, on one connection, synced to disk. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sqliteFence } from "@leasehold/fence/sqlite";
import Database from "better-sqlite3";

export async function open() {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-bench-"));
  const db = new Database(join(folder, "bench.db"));
  db.pragma("journal_mode = wal");
  db.pragma("synchronous = full"); // what is committed is on the disk, as in the other databases
  const fence = sqliteFence(db);
  fence.migrate();
  db.exec("create table orders (id integer primary key, total integer not null, token integer not null default 0)");
  db.exec("insert into orders (id, total) values (42, 0), (43, 0)");
  const lock = { name: "orders/42", token: 34, remainingMs: 3_600_000 };
  await fence.raise(lock);
  const add = db.prepare("update orders set total = total + 1 where id = 42");
  const set = db.prepare("update orders set total = ? where id = 43");
  const transaction = db.transaction(() => add.run());
  let total = 0;
  return {
    rows: [
      {
        title: "transaction: begin immediate, update, commit",
        plain: async () => transaction.immediate(),
        fenced: async () => fence.tx(lock, () => add.run()),
      },
      {
        title: "row: one update",
        plain: async () => set.run(++total),
        fenced: async () => fence.updateRow(lock, { table: "orders", set: { total: ++total }, where: { id: 43 } }),
      },
    ],
    async close() {
      db.close();
      rmSync(folder, { recursive: true });
    },
  };
}
