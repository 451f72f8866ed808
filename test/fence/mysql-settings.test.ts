/**
 * The time limits that MySQL has, in MariaDB, which has them as well: `wait_timeout` in the place of the limit for idle
 * transactions, and none for statements that write. What only a real MySQL can show is that it understands the text.
 */
import { mysqlFence } from "@leasehold/fence/mysql";
import mysql from "mysql2/promise";
import { afterAll, beforeAll, expect, it } from "vitest";
import { migrationOf } from "../../src/fence/sql/mysql-schema.js";
import { startMariadb } from "../services/mariadb.mjs";
import { describeWithServices } from "../services/vitest.js";
import { fenceConformance } from "./conformance.js";
import { exclusive } from "./locks.js";
import { openTx, rowsIn } from "./mysql-subject.js";

/** A statement as MySQL reads it. `max_execution_time` is left out: it is for `select` only, and MariaDB has none. */
const asMysqlReads = (text: string): string =>
  text
    .replace(/\/\*M!.*?\*\//gs, "")
    .replace(/\/\*!80029 [^*]*max_execution_time[^*]*\*\//g, "")
    .replace(/\/\*!80029 (.*?)\*\//gs, "$1");

/** The procedures for the limits, and for the commit, as MySQL has them. */
const mysqlsOwn = (database: string): string[] =>
  migrationOf({ database, table: "leasehold_fence" })
    .filter((text) => /^(drop|create) procedure (if exists )?\S+_(limits|restore|commit)`/.test(text))
    .map(asMysqlReads);

describeWithServices("MySQL's settings", ["mariadb"], () => {
  let mariadb: Awaited<ReturnType<typeof startMariadb>>;
  let pool: mysql.Pool;
  beforeAll(async () => {
    mariadb = await startMariadb();
    pool = mysql.createPool({ uri: mariadb.url, connectionLimit: 1 });
  });
  afterAll(async () => {
    await pool?.end();
    await mariadb?.stop();
  });

  it("are what the test makes of the procedures", () => {
    const text = mysqlsOwn("test").join("\n");
    expect(text.match(/\bset session \w+/g)).toEqual([
      ...["set session innodb_lock_wait_timeout", "set session lock_wait_timeout", "set session wait_timeout"],
      ...["set session innodb_lock_wait_timeout", "set session lock_wait_timeout", "set session wait_timeout"],
    ]);
    expect(text).not.toMatch(/idle_|in_transaction|\/\*/);
  });

  fenceConformance("MariaDB, transactions with MySQL's limits", () =>
    openTx(mariadb.url, { sabotage: mysqlsOwn("SCHEMA") }),
  );

  it("are given back to the session, however its transaction ends", async () => {
    const fence = mysqlFence(pool);
    await fence.migrate();
    for (const text of mysqlsOwn("test")) await pool.query(text);
    const sql = "select connection_id() as id, @@wait_timeout as pause, @@innodb_lock_wait_timeout as lock_wait";
    const settings = async (db: Pick<mysql.Pool, "query">) => rowsIn<Record<string, number>>(await db.query(sql))[0];
    const before = await settings(pool);
    const lock = exclusive("a", 5); // for a minute
    await fence.tx(lock, async (tx) => {
      const { pause, lock_wait } = (await settings(tx.connection as mysql.PoolConnection)) ?? {};
      expect(pause).toBeGreaterThanOrEqual(10);
      expect(pause).toBeLessThanOrEqual(15);
      expect(lock_wait).toBe(pause);
    });
    expect(await settings(pool)).toEqual(before);
    await expect(fence.tx(lock, (tx) => tx.query("select nothing"))).rejects.toMatchObject({ errno: 1054 });
    expect(await settings(pool)).toEqual(before);
    await fence.raise(exclusive("a", 6));
    await expect(fence.tx(lock, (tx) => tx.query("select 1"))).rejects.toMatchObject({ code: "STALE_TOKEN" });
    expect(await settings(pool)).toEqual(before);
  });
});
