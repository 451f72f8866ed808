/** The table of floors: how it is made, who may do what with it, and what its functions say. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { FenceError } from "@leasehold/fence";
import { postgresFence } from "@leasehold/fence/postgres";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrationOf } from "../../src/fence/sql/postgres-schema.js";
import { startPostgres } from "../services/postgres.mjs";
import { until } from "../services/processes.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive, shared } from "./locks.js";

const refused = (code: string) => expect.objectContaining({ code });
const file = fileURLToPath(new URL("../../src/fence/migrations/postgres.sql", import.meta.url));

describe("the migration", () => {
  it("is the same in the file as in the code", () => {
    expect(readFileSync(file, "utf8")).toBe(migrationOf({ schema: "public", table: "leasehold_fence" }));
  });

  it("takes plain names only", () => {
    const pool = new pg.Pool();
    for (const name of ["", "Upper", "a-b", 'a"b', "a.b", "1a", "ä", "x".repeat(64), 7, null]) {
      expect(() => postgresFence(pool, { schema: name as string })).toThrow(refused("INVALID"));
      expect(() => postgresFence(pool, { table: name as string })).toThrow(refused("INVALID"));
    }
    expect(() => postgresFence(pool, { table: "x".repeat(57) })).toThrow(refused("INVALID"));
    expect(() => postgresFence(pool, { tabel: "x" } as never)).toThrow(refused("INVALID"));
    for (const limitMs of [0, 199, 1.5, 86_400_001, "5s"]) {
      expect(() => postgresFence(pool, { limitMs: limitMs as number })).toThrow(refused("INVALID"));
    }
    expect(() => postgresFence(null as never)).toThrow(refused("INVALID"));
  });
});

describeWithServices("the table of floors in PostgreSQL", ["postgres"], () => {
  let postgres: Awaited<ReturnType<typeof startPostgres>>;
  let admin: pg.Pool;
  beforeAll(async () => {
    postgres = await startPostgres();
    admin = new pg.Pool({ connectionString: postgres.url });
  });
  afterAll(async () => {
    await admin?.end();
    await postgres?.stop();
  });

  const as = (user: string, options = "") =>
    new pg.Pool({ host: postgres.host, port: postgres.port, database: postgres.database, user, options });

  it("is made by eight at once, time and again, and keeps its floors", async () => {
    await admin.query("create schema eight");
    const fences = Array.from({ length: 8 }, () => postgresFence(admin, { schema: "eight" }));
    await Promise.all(fences.map((fence) => fence.migrate()));
    await fences[0]?.raise(exclusive("orders/42", 34));
    await Promise.all(fences.map((fence) => fence.migrate()));
    expect(await fences[1]?.inspect("orders/42")).toEqual({ resource: "orders/42", floor: 34 });
    const { rows } = await admin.query(
      "select count(*)::int as n from pg_trigger where tgname = 'leasehold_fence_keep'",
    );
    expect(rows[0].n).toBe(1);
  });

  it("is made the same by psql, from the file, twice", async () => {
    const database = `${postgres.url.slice(0, postgres.url.lastIndexOf("/"))}/by_psql`;
    await admin.query("create database by_psql");
    await postgres.psql(`\\connect by_psql\n${readFileSync(file, "utf8")}\n${readFileSync(file, "utf8")}`);
    const pool = new pg.Pool({ connectionString: database });
    const fence = postgresFence(pool);
    await fence.tx(exclusive("a", 3), (tx) => tx.query("select 1"));
    expect((await fence.inspect("a")).floor).toBe(3);
    await pool.end();
  });

  it("is told to be missing", async () => {
    const fence = postgresFence(admin, { schema: "nowhere" });
    await expect(fence.migrate()).rejects.toEqual(refused("INVALID")); // it makes no schemas
    for (const one of [fence, postgresFence(admin, { table: "forgotten" })]) {
      await expect(one.raise(exclusive("a", 1))).rejects.toEqual(refused("INVALID"));
      await expect(one.tx(exclusive("a", 1), () => undefined)).rejects.toEqual(refused("INVALID"));
      await expect(one.tx(shared("a", 1), () => undefined)).rejects.toEqual(refused("INVALID"));
      await expect(one.inspect("a")).rejects.toEqual(refused("INVALID"));
      await expect(one.reset("a")).rejects.toEqual(refused("INVALID"));
    }
  });

  it("has its own name if wanted, and quotes words of SQL", async () => {
    await admin.query('create schema "select"');
    const fence = postgresFence(admin, { schema: "select", table: "order" });
    await fence.migrate();
    await fence.tx(exclusive("a", 3), (tx) => tx.query("select 1"));
    expect((await admin.query('select * from "select"."order"')).rows).toEqual([{ resource: "a", token: "3" }]);
  });

  describe("with a fence", () => {
    beforeAll(async () => {
      await postgresFence(admin).migrate();
      await admin.query(`
        create role app login;
        grant select, insert, update on leasehold_fence to app;
        create role reader login;
        grant select on leasehold_fence to reader;
        create role outsider login;`);
    });

    it("never lets a floor fall, nor go to another resource", async () => {
      await postgresFence(admin).raise(exclusive("falls", 10));
      const lower = admin.query("update leasehold_fence set token = 9 where resource = 'falls'");
      await expect(lower).rejects.toMatchObject({ code: "LH409", detail: "10 falls" });
      const moved = admin.query("update leasehold_fence set resource = 'other' where resource = 'falls'");
      await expect(moved).rejects.toMatchObject({ code: "23514" });
      for (const token of ["-1", "9007199254740992", "null"]) {
        await expect(admin.query(`insert into leasehold_fence values ('bad', ${token})`)).rejects.toThrow();
      }
      expect((await postgresFence(admin).inspect("falls")).floor).toBe(10);
    });

    it("is raised and checked by an application that may not reset it", async () => {
      const pool = as("app");
      const fence = postgresFence(pool);
      await fence.raise(exclusive("granted", 5));
      await fence.tx(exclusive("granted", 5), (tx) => tx.query("select 1"));
      await fence.tx(shared("granted", 6), (tx) => tx.query("select 1"));
      await expect(fence.reset("granted")).rejects.toEqual(refused("DENIED"));
      await expect(pool.query("truncate leasehold_fence")).rejects.toMatchObject({ code: "42501" });
      await expect(pool.query("alter table leasehold_fence disable trigger all")).rejects.toMatchObject({
        code: "42501",
      });
      await expect(fence.migrate()).rejects.toEqual(refused("DENIED"));
      expect((await fence.inspect("granted")).floor).toBe(5);
      await pool.end();
    });

    it("says DENIED to those without the privileges", async () => {
      for (const user of ["reader", "outsider"]) {
        const pool = as(user);
        const fence = postgresFence(pool);
        await expect(fence.raise(exclusive("denied", 5))).rejects.toEqual(refused("DENIED"));
        await expect(fence.tx(exclusive("denied", 5), () => undefined)).rejects.toEqual(refused("DENIED"));
        await expect(fence.tx(shared("denied", 5), () => undefined)).rejects.toEqual(refused("DENIED"));
        expect(pool.idleCount).toBe(pool.totalCount);
        await pool.end();
      }
    });

    it("tells the floor and the resource of a refusal in the detail of its error, and in ours", async () => {
      const fence = postgresFence(admin);
      const resource = "it's 100% a\\b 7";
      await fence.raise(exclusive(resource, 34));
      for (const call of [
        "select leasehold_fence_raise($1, 33)",
        "call leasehold_fence_check($1, 33, true)",
        "call leasehold_fence_check($1, 33, false)",
      ]) {
        const asked = admin.query(call, [resource]);
        await expect(asked).rejects.toMatchObject({ code: "LH409", detail: `34 ${resource}` });
      }
      const error = await fence.raise(exclusive(resource, 33)).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: "STALE_TOKEN", resource, token: 33, floor: 34 });
      expect(FenceError.is(error) && error.cause).toMatchObject({ code: "LH409" });
    });

    it("is used from another language as its head says: the raise returns the floor", async () => {
      const { rows } = await admin.query("select leasehold_fence_raise('psql', 7) as floor");
      expect(rows).toEqual([{ floor: "7" }]);
      await admin.query("call leasehold_fence_check('psql/new', 8, true)"); // a check that raises
      expect((await postgresFence(admin).inspect("psql/new")).floor).toBe(8);
      await admin.query("call leasehold_fence_check('psql/shared', 8, false)");
      expect((await postgresFence(admin).inspect("psql/shared")).floor).toBe(0);
    });

    it("takes no heed of odd settings of the session", async () => {
      const odd =
        "-c default_transaction_isolation=serializable -c standard_conforming_strings=off -c search_path=pg_catalog " +
        "-c IntervalStyle=iso_8601 -c backslash_quote=off";
      const pool = as("app", odd);
      const fence = postgresFence(pool);
      const resource = "odd's \\ name\\";
      await fence.raise(exclusive(resource, 1));
      const other = await admin.connect();
      await other.query("begin");
      await other.query("select leasehold_fence_raise($1, 2)", [resource]);
      const raised = fence.raise(exclusive(resource, 4)); // under serializable it would fail by the commit of the other
      const waiting = "select from pg_stat_activity where wait_event_type = 'Lock' and usename = 'app'";
      await until(async () => (await admin.query(waiting)).rowCount === 1, { what: "the wait of the raise" });
      await other.query("commit");
      other.release();
      await raised;
      await fence.tx(exclusive(resource, 5), (tx) => tx.query("select 1"));
      expect(await fence.inspect(resource)).toEqual({ resource, floor: 5 });
      await pool.end();
    });
  });
});
