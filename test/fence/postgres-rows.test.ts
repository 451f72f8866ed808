/** Rows that carry their token, and optimistic updates, in PostgreSQL. */
import { TOKEN_MAX } from "@leasehold/fence";
import {
  assertWritten,
  type PostgresFence,
  postgresFence,
  retryOnConflict,
  updateVersioned,
} from "@leasehold/fence/postgres";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startPostgres } from "../services/postgres.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive, shared } from "./locks.js";
import { CountingPool } from "./postgres-subject.js";

const refused = (code: string) => expect.objectContaining({ code });

describeWithServices("rows in PostgreSQL", ["postgres"], () => {
  let postgres: Awaited<ReturnType<typeof startPostgres>>;
  let pool: pg.Pool;
  let counting: CountingPool;
  let fence: PostgresFence;
  let id = 0;
  beforeAll(async () => {
    postgres = await startPostgres();
    pool = new pg.Pool({ connectionString: postgres.url, max: 20 });
    counting = new CountingPool(pool);
    fence = postgresFence(counting); // without migrate(): rows need no table of fences
    await pool.query(`create table orders (
      id int primary key, state text, customer text, token bigint not null default 0, version bigint not null default 0)`);
  });
  afterAll(async () => {
    await pool?.end();
    await postgres?.stop();
  });
  beforeEach(async () => {
    await pool.query("insert into orders values ($1, 'new', 'c', 0, 0)", [++id]);
  });

  const row = async (which = id) => (await pool.query("select * from orders where id = $1", [which])).rows[0];
  const table = "orders";
  const paid = { state: "paid" };

  describe("that carry their token", () => {
    const name = "orders/42";

    it("are written in one round trip, and refused in two", async () => {
      const before = counting.sent;
      await fence.updateRow(exclusive(name, 34), { table, set: paid, where: { id } });
      expect(counting.sent - before).toBe(1);
      expect(await row()).toMatchObject({ state: "paid", token: "34" });
      const stale = fence.updateRow(exclusive(name, 33), { table, set: { state: "late" }, where: { id } });
      await expect(stale).rejects.toMatchObject({ code: "STALE_TOKEN", resource: name, token: 33, floor: 34 });
      expect(counting.sent - before).toBe(3);
      expect(await row()).toMatchObject({ state: "paid", token: "34" });
      await fence.updateRow(exclusive(name, TOKEN_MAX), { table, set: paid, where: { id } });
      const [edge] = await Promise.allSettled([
        fence.raiseRow(exclusive(name, TOKEN_MAX - 1), { table, where: { id } }),
      ]);
      expect(edge).toMatchObject({ reason: { code: "STALE_TOKEN", floor: TOKEN_MAX } });
    });

    it("are written whole or not at all when where matches several", async () => {
      await pool.query("update orders set customer = 'several', token = case when id = $1 then 50 else 0 end", [id]);
      for (const token of [40, 60]) {
        const several = fence.updateRow(exclusive(name, token), { table, set: paid, where: { customer: "several" } });
        await expect(several).rejects.toEqual(refused("INVALID"));
      }
      const { rows } = await pool.query("select distinct state from orders where customer = 'several' and token = 50");
      expect(rows).toEqual([{ state: "new" }]);
      const none = fence.updateRow(exclusive(name, 60), { table, set: paid, where: { customer: "nobody" } });
      await expect(none).rejects.toEqual(refused("NOT_FOUND"));
      await pool.query("update orders set customer = 'c'");
    });

    it("are refused if their token is null, or wrong, and say why", async () => {
      await pool.query("create table lax (id int primary key, a int, token bigint)");
      await pool.query("insert into lax values (1, 0, null)");
      const write = () => fence.updateRow(exclusive(name, 5), { table: "lax", set: { a: 1 }, where: { id: 1 } });
      await expect(write()).rejects.toEqual(refused("INVALID"));
      await pool.query("update lax set token = -1");
      await write();
      expect((await pool.query("select * from lax")).rows).toEqual([{ id: 1, a: 1, token: "5" }]);
      const wrong = fence.updateRow(exclusive(name, 5), { table: "lax", set: { b: 1 }, where: { id: 1 } });
      await expect(wrong).rejects.toMatchObject({ code: "42703" }); // the driver's own
    });

    it("raise their floor before they are read", async () => {
      await fence.raiseRow(exclusive(name, 34), { table, where: { id } });
      expect(await row()).toMatchObject({ state: "new", token: "34" });
      const late = fence.updateRow(exclusive(name, 33), { table, set: paid, where: { id } });
      await expect(late).rejects.toEqual(refused("STALE_TOKEN"));
      await fence.raiseRow(shared(name, 36), { table, where: { id } });
      expect(await row()).toMatchObject({ token: "34" });
      await expect(fence.raiseRow(shared(name, 33), { table, where: { id } })).rejects.toEqual(refused("STALE_TOKEN"));
      await expect(fence.raiseRow(exclusive(name, 40), { table, where: { id: -1 } })).rejects.toEqual(
        refused("NOT_FOUND"),
      );
    });

    it("are inserted with their token, so that who was stale before stays it", async () => {
      const anew = 1_000_000 + id;
      await fence.insertRow(exclusive(name, 34), { table, values: { id: anew, state: "new" } });
      expect(await row(anew)).toMatchObject({ token: "34" });
      await pool.query("delete from orders where id = $1", [anew]);
      await fence.insertRow(exclusive(name, 34), { table, values: { id: anew, state: "anew" } });
      const late = fence.updateRow(exclusive(name, 33), { table, set: { state: "late" }, where: { id: anew } });
      await expect(late).rejects.toEqual(refused("STALE_TOKEN"));
      const again = fence.insertRow(exclusive(name, 33), { table, values: { id: anew } });
      await expect(again).rejects.toMatchObject({ code: "23505" });
      await fence.insertRow(shared(name, 34), { table, values: { id: anew + 500_000 } });
      expect(await row(anew + 500_000)).toMatchObject({ token: "0" });
    });

    it("are written in a transaction of their user's, too", async () => {
      const client = await pool.connect();
      await client.query("begin");
      await fence.updateRow(exclusive(name, 34), { table, set: paid, where: { id } }, client);
      await client.query("rollback");
      client.release();
      expect(await row()).toMatchObject({ state: "new", token: "0" });
    });

    it("are guarded in handwritten statements by a look at the number of rows", async () => {
      const sql = "update orders set state = 'paid', token = $1 where id = $2 and token <= $1";
      const write = async (token: number) => assertWritten(await pool.query(sql, [token, id]), exclusive(name, token));
      await write(34);
      await expect(write(33)).rejects.toMatchObject({ code: "STALE_TOKEN", token: 33, floor: undefined });
    });

    it("live in schemas and tables of any name", async () => {
      await pool.query('create schema "My Shop"');
      await pool.query(
        'create table "My Shop"."Or""ders" ("Id" int primary key, "sta te" text, "T" bigint not null default 0)',
      );
      const where = { Id: 1 };
      const at = { table: 'My Shop.Or"ders', tokenColumn: "T" };
      await fence.insertRow(exclusive(name, 3), { ...at, values: { Id: 1, "sta te": "a" } });
      await fence.updateRow(exclusive(name, 4), { ...at, set: { "sta te": "b" }, where });
      expect((await pool.query('select * from "My Shop"."Or""ders"')).rows).toEqual([{ Id: 1, "sta te": "b", T: "4" }]);
    });
  });

  describe("with a version", () => {
    it("lose no update of twenty writers, twenty-five times each", async () => {
      await pool.query("create table counters (id int primary key, n int not null, version bigint not null default 0)");
      await pool.query("insert into counters values (1, 0)");
      let conflicts = 0;
      const increment = async (attempt: number) => {
        if (attempt > 1) conflicts++;
        const { rows } = await pool.query("select n, version from counters where id = 1");
        const { n, version } = rows[0];
        await updateVersioned(pool, { table: "counters", where: { id: 1 }, set: { n: n + 1 }, version });
      };
      await Promise.all(
        Array.from({ length: 20 }, async () => {
          for (let i = 0; i < 25; i++) await retryOnConflict(increment, { attempts: 500, delayMs: 2, delayMsMax: 20 });
        }),
      );
      expect((await pool.query("select n, version from counters")).rows).toEqual([{ n: 500, version: "500" }]);
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
      await pool.query("update orders set version = 9007199254740990 where id = $1", [id]);
      expect(await updateVersioned(pool, { ...update, version: "9007199254740990" })).toBe(TOKEN_MAX);
      await expect(updateVersioned(pool, { ...update, version: TOKEN_MAX })).rejects.toEqual(refused("INVALID"));
    });

    it("are updated inside a fenced transaction, too", async () => {
      await fence.migrate();
      await fence.tx(exclusive("orders/v", 3), async (tx) => {
        await updateVersioned(tx, { table, set: paid, where: { id }, version: 0 });
        await fence.updateRow(exclusive("orders/v", 3), { table, set: paid, where: { id } }, tx);
      });
      expect(await row()).toMatchObject({ version: "1", token: "3" });
    });
  });
});
