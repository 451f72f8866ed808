/** The table of floors: how it is made, who may do what with it, and what its procedures say. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { FenceError } from "@leasehold/fence";
import { mysqlFence } from "@leasehold/fence/mysql";
import mysql from "mysql2/promise";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrationFile, migrationOf } from "../../src/fence/sql/mysql-schema.js";
import { startMariadb } from "../services/mariadb.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive, shared } from "./locks.js";
import { rowsIn } from "./mysql-subject.js";

const refused = (code: string) => expect.objectContaining({ code });
const file = fileURLToPath(new URL("../../src/fence/migrations/mysql.sql", import.meta.url));

describe("the migration for MySQL", () => {
  it("is the same in the file as in the code", () => {
    expect(readFileSync(file, "utf8")).toBe(migrationFile({ database: undefined, table: "leasehold_fence" }));
  });

  it("hides each server's own settings from the other", () => {
    const text = migrationOf({ database: undefined, table: "t" }).join();
    const commented = text.replace(/\/\*[\s\S]*?\*\//g, "");
    for (const own of [
      "idle_transaction_timeout",
      "max_statement_time",
      "max_execution_time",
      "@@session.wait_timeout",
    ]) {
      expect(text).toContain(own);
      expect(commented).not.toContain(own);
    }
  });

  it("takes plain names only", () => {
    const pool = mysql.createPool({});
    for (const name of ["", "a b", "a`b", "a.b", "ä", "x".repeat(65), 7, null]) {
      expect(() => mysqlFence(pool, { database: name as string })).toThrow(refused("INVALID"));
      expect(() => mysqlFence(pool, { table: name as string })).toThrow(refused("INVALID"));
    }
    expect(() => mysqlFence(pool, { table: "x".repeat(57) })).toThrow(refused("INVALID"));
    expect(() => mysqlFence(pool, { tabel: "x" } as never)).toThrow(refused("INVALID"));
    for (const limitMs of [0, 1_999, 2_000.5, 86_400_001, "5s"]) {
      expect(() => mysqlFence(pool, { limitMs: limitMs as number })).toThrow(refused("INVALID"));
    }
    expect(() => mysqlFence(null as never)).toThrow(refused("INVALID"));
  });
});

describeWithServices("the table of floors in MariaDB", ["mariadb"], () => {
  let mariadb: Awaited<ReturnType<typeof startMariadb>>;
  let admin: mysql.Pool;
  beforeAll(async () => {
    mariadb = await startMariadb();
    admin = mysql.createPool(mariadb.url);
  });
  afterAll(async () => {
    await admin?.end();
    await mariadb?.stop();
  });
  const as = (user: string, options: mysql.PoolOptions = {}) =>
    mysql.createPool({ uri: mariadb.url.replace("root", user), ...options });

  it("is told to be missing", async () => {
    const fence = mysqlFence(admin);
    const asking = [
      () => fence.raise(exclusive("a", 1)),
      () => fence.tx(exclusive("a", 1), () => undefined),
      () => fence.inspect("a"),
      () => mysqlFence(admin, { database: "nowhere" }).migrate(),
    ];
    for (const ask of asking) await expect(ask()).rejects.toEqual(refused("INVALID"));
  });

  it("is made by eight at once, time and again, and keeps its floors", async () => {
    await admin.query("create database eight");
    const fences = Array.from({ length: 8 }, () => mysqlFence(admin, { database: "eight", table: "floors" }));
    await Promise.all(fences.map((fence) => fence.migrate()));
    await fences[0]?.raise(exclusive("orders/42", 34));
    await Promise.all(fences.map((fence) => fence.migrate()));
    expect(await fences[1]?.inspect("orders/42")).toEqual({ resource: "orders/42", floor: 34 });
    await admin.query("drop procedure eight.floors_check"); // as if it were of another version
    await Promise.all(fences.map((fence) => fence.migrate()));
    await fences[2]?.tx(exclusive("orders/42", 34), () => undefined);
    expect(rowsIn(await admin.query("select is_free_lock('leasehold_fence') as it"))).toEqual([{ it: 1 }]);
  });

  it("is made the same by the server's own client, from the file, twice", async () => {
    await admin.query("create database by_client");
    const { host, port, user } = mariadb;
    const source = ["--no-defaults", "-h", host, "-P", String(port), "-u", user, "by_client", "-e", `source ${file}`];
    for (let i = 0; i < 2; i++) await promisify(execFile)("mariadb", source);
    const pool = mysql.createPool({ uri: mariadb.url, database: "by_client" });
    const fence = mysqlFence(pool);
    await fence.tx(exclusive("a", 3), (tx) => tx.query("select 1"));
    expect((await fence.inspect("a")).floor).toBe(3);
    await pool.end();
  });

  describe("with a fence", () => {
    beforeAll(async () => {
      await mysqlFence(admin).migrate();
      for (const user of ["app", "reader", "outsider"]) await admin.query(`create user ${user}`);
      await admin.query("grant usage on *.* to outsider");
      await admin.query("grant select, insert, update on test.leasehold_fence to app");
      await admin.query("grant execute on test.* to app");
      await admin.query("grant select on test.leasehold_fence to reader");
      await admin.query("delete from mysql.db where user in ('', 'PUBLIC')"); // everybody may do everything in `test` by default
      await admin.query("flush privileges");
    });

    it("never lets a floor fall, nor go to another resource", async () => {
      await mysqlFence(admin).raise(exclusive("falls", 10));
      for (const change of ["token = 9", "resource = 'other'", "token = 9007199254740992", "token = null"]) {
        const changed = admin.query(`update leasehold_fence set ${change} where resource = 'falls'`);
        await expect(changed).rejects.toThrow();
      }
      await expect(admin.query("insert into leasehold_fence values ('bad', -1)")).rejects.toThrow();
      expect((await mysqlFence(admin).inspect("falls")).floor).toBe(10);
    });

    it("tells names apart that differ in a space at the end, or in an accent, whatever the connection's charset is", async () => {
      const latin = as("root", { charset: "latin1" });
      const names = ["pad", "pad ", "pad  ", "päd", "pÄd", "PAD", "pa\u0308d"];
      for (const [i, name] of names.entries()) await mysqlFence(i % 2 ? latin : admin).raise(exclusive(name, i + 1));
      for (const [i, name] of names.entries()) {
        expect(await mysqlFence(i % 2 ? admin : latin).inspect(name)).toEqual({ resource: name, floor: i + 1 });
      }
      await latin.end();
    });

    it("is raised and checked by an application that may not reset it", async () => {
      const pool = as("app", { connectionLimit: 1 });
      const fence = mysqlFence(pool);
      await fence.raise(exclusive("granted", 5));
      await fence.tx(exclusive("granted", 5), (tx) => tx.query("select 1"));
      await fence.tx(shared("granted", 6), (tx) => tx.query("select 1"));
      await expect(fence.reset("granted")).rejects.toEqual(refused("DENIED"));
      await expect(pool.query("truncate leasehold_fence")).rejects.toMatchObject({ errno: 1142 });
      await expect(mysqlFence(pool, { table: "another" }).migrate()).rejects.toEqual(refused("DENIED"));
      expect((await fence.inspect("granted")).floor).toBe(5);
      await pool.end();
    });

    it("says DENIED to those without the privileges", async () => {
      for (const user of ["reader", "outsider"]) {
        const pool = mysql.createPool({ host: mariadb.host, port: mariadb.port, user });
        const fence = mysqlFence(pool, { database: "test" });
        await expect(fence.raise(exclusive("denied", 5))).rejects.toEqual(refused("DENIED"));
        await expect(fence.tx(exclusive("denied", 5), () => undefined)).rejects.toEqual(refused("DENIED"));
        await expect(fence.tx(shared("denied", 5), () => undefined)).rejects.toEqual(refused("DENIED"));
        await pool.end();
      }
    });

    it("tells the floor of a refusal in its error, and in ours", async () => {
      const fence = mysqlFence(admin);
      const resource = "it's 100% a\\b 7";
      await fence.raise(exclusive(resource, 34));
      for (const call of ["_raise(?, 33)", "_check(?, 33, true)", "_check(?, 33, false)"]) {
        const asked = admin.query(`call leasehold_fence${call}`, [resource]);
        await expect(asked).rejects.toMatchObject({ sqlState: "LH409", sqlMessage: expect.stringMatching(/^34 /) });
      }
      const error = await fence.raise(exclusive(resource, 33)).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: "STALE_TOKEN", resource, token: 33, floor: 34 });
      expect(FenceError.is(error) && error.cause).toMatchObject({ sqlState: "LH409" });
    });

    it("is used from another language as its head says", async () => {
      const connection = await admin.getConnection();
      await connection.query("call leasehold_fence_raise('client', 7)");
      await connection.query("call leasehold_fence_begin(null, 1, 2000, 'client/new', 8)");
      await connection.query("call leasehold_fence_commit('client/new', 8, true)");
      await connection.query("call leasehold_fence_begin('serializable', 1, 2000, null, null)");
      await connection.query("call leasehold_fence_check('client/shared', 8, false)");
      await connection.query("call leasehold_fence_end()");
      connection.release();
      const floors = ["client", "client/new", "client/shared"].map((one) => mysqlFence(admin).inspect(one));
      expect((await Promise.all(floors)).map(({ floor }) => floor)).toEqual([7, 8, 0]);
    });

    it("takes no heed of odd settings of the session", async () => {
      const pool = as("root", { connectionLimit: 1 });
      await pool.query(
        "set session autocommit = 0, session sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'",
      );
      await pool.query("set session transaction isolation level serializable");
      const fence = mysqlFence(pool);
      const resource = "odd's \\ name\\";
      await fence.raise(exclusive(resource, 4));
      await fence.tx(exclusive(resource, 5), (tx) => tx.query("select 1"));
      expect(await mysqlFence(admin).inspect(resource)).toEqual({ resource, floor: 5 });
      expect((await fence.inspect(resource)).floor).toBe(5);
      await fence.reset(resource);
      expect((await mysqlFence(admin).inspect(resource)).floor).toBe(0);
      await pool.end();
    });
  });
});
