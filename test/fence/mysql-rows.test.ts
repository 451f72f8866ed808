/** Rows that carry their token, and optimistic updates, in MariaDB. */
import { TOKEN_MAX } from "@leasehold/fence";
import { assertWritten, type MysqlFence, mysqlFence, retryOnConflict, updateVersioned } from "@leasehold/fence/mysql";
import mysql from "mysql2/promise";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startMariadb } from "../services/mariadb.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive, shared } from "./locks.js";
import { CountingPool, rowsIn } from "./mysql-subject.js";

const refused = (code: string) => expect.objectContaining({ code });

describeWithServices("rows in MariaDB", ["mariadb"], () => {
  let mariadb: Awaited<ReturnType<typeof startMariadb>>;
  let pool: mysql.Pool;
  let counting: CountingPool;
  let fence: MysqlFence;
  let id = 0;
  beforeAll(async () => {
    mariadb = await startMariadb();
    pool = mysql.createPool({ uri: mariadb.url, connectionLimit: 20 });
    counting = new CountingPool(pool);
    fence = mysqlFence(counting); // without migrate(): rows need no table of fences
    await pool.query(`create table orders (
      id int primary key, code varchar(20) unique, state text, customer text, token bigint not null default 0, version bigint not null default 0)`);
  });
  afterAll(async () => {
    await pool?.end();
    await mariadb?.stop();
  });
  beforeEach(async () => {
    await pool.query("insert into orders values (?, ?, 'new', 'c', 0, 0)", [++id, `code ${id}`]);
  });

  const row = async (which = id) => rowsIn(await pool.query("select * from orders where id = ?", [which]))[0];
  const table = "orders";
  const paid = { state: "paid" };

  describe("that carry their token", () => {
    const name = "orders/42";

    it("are written in one round trip, and refused in two", async () => {
      await fence.updateRow(exclusive(name, 1), { table, set: paid, where: { id } }); // once more, to learn of the table's keys
      const before = counting.sent;
      await fence.updateRow(exclusive(name, 34), { table, set: paid, where: { id } });
      expect(counting.sent - before).toBe(1);
      expect(await row()).toMatchObject({ state: "paid", token: 34 });
      const stale = fence.updateRow(exclusive(name, 33), { table, set: { state: "late" }, where: { id } });
      await expect(stale).rejects.toMatchObject({ code: "STALE_TOKEN", resource: name, token: 33, floor: 34 });
      expect(counting.sent - before).toBe(3);
      expect(await row()).toMatchObject({ state: "paid", token: 34 });
      await fence.updateRow(exclusive(name, TOKEN_MAX), { table, set: paid, where: { id } });
      const [edge] = await Promise.allSettled([
        fence.raiseRow(exclusive(name, TOKEN_MAX - 1), { table, where: { id } }),
      ]);
      expect(edge).toMatchObject({ reason: { code: "STALE_TOKEN", floor: TOKEN_MAX } });
    });

    it("are named by a unique key, or not written at all", async () => {
      const write = (where: Record<string, unknown>) =>
        fence.updateRow(exclusive(name, 60), { table, set: { state: "several" }, where });
      await pool.query(
        "create table if not exists parts (a int, b int, s text, token bigint not null default 0, unique (a, b))",
      );
      await pool.query("insert into parts (a, b) values (1, 1), (1, 2), (null, 1), (null, 1)");
      const part = (where: Record<string, unknown>) =>
        fence.updateRow(exclusive(name, 60), { table: "parts", set: { s: "x" }, where });
      const bad = [{ customer: "c" }, { code: 0 }, { code: null }, { code: false }, { id: [1, 2] }, { id: { id: 1 } }];
      for (const where of bad) await expect(write(where)).rejects.toEqual(refused("INVALID"));
      for (const where of [{ a: 1 }, { a: null, b: 1 }]) await expect(part(where)).rejects.toEqual(refused("INVALID"));
      expect(rowsIn(await pool.query("select 1 from orders where state = 'several'"))).toEqual([]);
      expect(rowsIn(await pool.query("select 1 from parts where s = 'x'"))).toEqual([]);
      await part({ a: 1, b: 2 });
      await write({ CODE: `code ${id}`, customer: "c" });
      expect(await row()).toMatchObject({ state: "several" });
      await expect(write({ code: "nobody's" })).rejects.toEqual(refused("NOT_FOUND"));
      const nowhere = fence.updateRow(exclusive(name, 5), { table: "missing", set: { a: 1 }, where: { id: 1 } });
      await expect(nowhere).rejects.toEqual(refused("INVALID"));
      for (const value of [[1], { a: 1 }, () => 1]) {
        const set = { state: value };
        await expect(fence.updateRow(exclusive(name, 61), { table, set, where: { id } })).rejects.toEqual(
          refused("INVALID"),
        );
      }
    });

    it("count as written when they are written as they are, whatever the pool is set to", async () => {
      for (const options of [
        { flags: ["-FOUND_ROWS"] },
        { rowsAsArray: true },
        { supportBigNumbers: true, bigNumberStrings: true },
      ]) {
        const other = mysql.createPool({ uri: mariadb.url, ...options });
        const odd = mysqlFence(other);
        for (let i = 0; i < 2; i++) await odd.updateRow(exclusive(name, 5), { table, set: paid, where: { id } });
        await expect(odd.updateRow(exclusive(name, 4), { table, set: paid, where: { id } })).rejects.toMatchObject({
          code: "STALE_TOKEN",
          floor: 5,
        });
        await odd.migrate();
        await odd.raise(exclusive("odd", TOKEN_MAX - 1));
        expect((await odd.inspect("odd")).floor).toBe(TOKEN_MAX - 1);
        await other.end();
      }
    });

    it("are refused if their token is null, or wrong, and say why", async () => {
      await pool.query("create table lax (id int primary key, a int, token bigint)");
      await pool.query("insert into lax values (1, 0, null)");
      const write = () => fence.updateRow(exclusive(name, 5), { table: "lax", set: { a: 1 }, where: { id: 1 } });
      await expect(write()).rejects.toEqual(refused("INVALID"));
      await pool.query("update lax set token = -1");
      await write();
      expect(rowsIn(await pool.query("select * from lax"))).toEqual([{ id: 1, a: 1, token: 5 }]);
      const wrong = fence.updateRow(exclusive(name, 5), { table: "lax", set: { b: 1 }, where: { id: 1 } });
      await expect(wrong).rejects.toMatchObject({ code: "ER_BAD_FIELD_ERROR" }); // the driver's own
    });

    it("raise their floor before they are read", async () => {
      await fence.raiseRow(exclusive(name, 34), { table, where: { id } });
      expect(await row()).toMatchObject({ state: "new", token: 34 });
      const late = fence.updateRow(exclusive(name, 33), { table, set: paid, where: { id } });
      await expect(late).rejects.toEqual(refused("STALE_TOKEN"));
      await fence.raiseRow(shared(name, 36), { table, where: { id } });
      expect(await row()).toMatchObject({ token: 34 });
      await expect(fence.raiseRow(shared(name, 33), { table, where: { id } })).rejects.toEqual(refused("STALE_TOKEN"));
      await expect(fence.raiseRow(exclusive(name, 40), { table, where: { id: -1 } })).rejects.toEqual(
        refused("NOT_FOUND"),
      );
    });

    it("are inserted with their token, so that who was stale before stays it", async () => {
      const anew = 1_000_000 + id;
      await fence.insertRow(exclusive(name, 34), { table, values: { id: anew, state: "new" } });
      expect(await row(anew)).toMatchObject({ token: 34 });
      await pool.query("delete from orders where id = ?", [anew]);
      await fence.insertRow(exclusive(name, 34), { table, values: { id: anew, state: "anew" } });
      const late = fence.updateRow(exclusive(name, 33), { table, set: { state: "late" }, where: { id: anew } });
      await expect(late).rejects.toEqual(refused("STALE_TOKEN"));
      const again = fence.insertRow(exclusive(name, 33), { table, values: { id: anew } });
      await expect(again).rejects.toMatchObject({ code: "ER_DUP_ENTRY" });
      await fence.insertRow(shared(name, 34), { table, values: { id: anew + 500_000 } });
      expect(await row(anew + 500_000)).toMatchObject({ token: 0 });
    });

    it("are written in a transaction of their user's, too", async () => {
      const client = await pool.getConnection();
      await client.query("begin");
      await fence.updateRow(exclusive(name, 34), { table, set: paid, where: { id } }, client);
      await client.query("rollback");
      client.release();
      expect(await row()).toMatchObject({ state: "new", token: 0 });
    });

    it("tell what is committed, not what an older snapshot shows", async () => {
      const client = await pool.getConnection();
      await client.query("start transaction with consistent snapshot");
      await fence.updateRow(exclusive(name, 34), { table, set: paid, where: { id } });
      const late = fence.updateRow(exclusive(name, 33), { table, set: { state: "late" }, where: { id } }, client);
      await expect(late).rejects.toMatchObject({ code: "STALE_TOKEN", floor: 34 });
      await client.query("rollback");
      client.release();
    });

    it("are guarded in handwritten statements by a look at the number of rows", async () => {
      const sql = "update orders set state = 'paid', token = ? where id = ? and token <= ?";
      const write = async (token: number) => {
        const [head] = await pool.query<mysql.ResultSetHeader>(sql, [token, id, token]);
        assertWritten(head, exclusive(name, token));
      };
      await write(34);
      await expect(write(33)).rejects.toMatchObject({ code: "STALE_TOKEN", token: 33, floor: undefined });
    });

    it("live in schemas and tables of any name", async () => {
      await pool.query("create database `My Shop`");
      await pool.query(
        "create table `My Shop`.`Or``ders` (`Id` int primary key, `sta te` text, `T` bigint not null default 0)",
      );
      const where = { Id: 1 };
      const at = { table: "My Shop.Or`ders", tokenColumn: "T" };
      await fence.insertRow(exclusive(name, 3), { ...at, values: { Id: 1, "sta te": "a" } });
      await fence.updateRow(exclusive(name, 4), { ...at, set: { "sta te": "b" }, where });
      expect(rowsIn(await pool.query("select * from `My Shop`.`Or``ders`"))).toEqual([{ Id: 1, "sta te": "b", T: 4 }]);
    });
  });

  describe("with a version", () => {
    it("lose no update of twenty writers, twenty-five times each", async () => {
      await pool.query("create table counters (id int primary key, n int not null, version bigint not null default 0)");
      await pool.query("insert into counters values (1, 0, 0)");
      let conflicts = 0;
      const increment = async (attempt: number) => {
        if (attempt > 1) conflicts++;
        const [row] = rowsIn<{ n: number; version: number }>(
          await pool.query("select n, version from counters where id = 1"),
        );
        const { n, version } = row as { n: number; version: number };
        await updateVersioned(pool, { table: "counters", where: { id: 1 }, set: { n: n + 1 }, version });
      };
      await Promise.all(
        Array.from({ length: 20 }, async () => {
          for (let i = 0; i < 25; i++) await retryOnConflict(increment, { attempts: 500, delayMs: 2, delayMsMax: 20 });
        }),
      );
      expect(rowsIn(await pool.query("select n, version from counters"))).toEqual([{ n: 500, version: 500 }]);
      expect(conflicts, "they have met").toBeGreaterThan(0);
    });

    it("get the next one, or tell why not", async () => {
      const update = { table, set: paid, where: { id } };
      expect(await updateVersioned(pool, { ...update, version: 0 })).toBe(1);
      expect(await updateVersioned(pool, { ...update, version: "1" })).toBe(2);
      await expect(updateVersioned(pool, { ...update, version: 1 })).rejects.toEqual(refused("CONFLICT"));
      await expect(updateVersioned(pool, { ...update, version: 3 })).rejects.toEqual(refused("CONFLICT"));
      const nobody = { ...update, where: { id: -1 }, version: 1 };
      await expect(updateVersioned(pool, nobody)).rejects.toEqual(refused("NOT_FOUND"));
      const several = { ...update, where: { customer: "c" }, version: 2 };
      await expect(updateVersioned(pool, several)).rejects.toEqual(refused("INVALID"));
      await pool.query("update orders set version = 9007199254740990 where id = ?", [id]);
      expect(await updateVersioned(pool, { ...update, version: "9007199254740990" })).toBe(TOKEN_MAX);
      await expect(updateVersioned(pool, { ...update, version: TOKEN_MAX })).rejects.toEqual(refused("INVALID"));
    });

    it("are updated inside a fenced transaction, too", async () => {
      await fence.migrate();
      await fence.tx(exclusive("orders/v", 3), async (tx) => {
        await updateVersioned(tx, { table, set: paid, where: { id }, version: 0 });
        await fence.updateRow(exclusive("orders/v", 3), { table, set: paid, where: { id } }, tx);
      });
      expect(await row()).toMatchObject({ version: 1, token: 3 });
    });
  });
});
