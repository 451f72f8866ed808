/** The fence in SQLite, in both styles: what every fence must do, and what is particular to it. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { FenceError } from "@leasehold/fence";
import { retryOnConflict, type SqliteFence, sqliteFence, updateVersioned } from "@leasehold/fence/sqlite";
import type Database from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sqliteSchema } from "../../src/fence/sql/sqlite-schema.js";
import { CHECK_CASES, cases, failedCases, fenceConformance } from "./conformance.js";
import { startHolder } from "./holder.js";
import { exclusive, shared, TestLock } from "./locks.js";
import { rowSubject, seesNoFloor, TestFile, txSubject } from "./sqlite-subject.js";

const migration = fileURLToPath(new URL("../../src/fence/migrations/sqlite.sql", import.meta.url));
const holders = fileURLToPath(new URL("./holders/sqlite.mjs", import.meta.url));
const code = (wanted: string) => expect.objectContaining({ code: wanted });

const titles = (...starts: string[]) =>
  cases.map(({ title }) => title).filter((title) => starts.some((start) => title.startsWith(start)));

fenceConformance("SQLite, transactions", () => txSubject(), {
  "a holder that is stopped inside":
    "no server can end the transaction of a process that is stopped; see what is promised instead, below",
});
fenceConformance("SQLite, rows that carry their token", () => rowSubject(), {
  "a register that was deleted and made anew is still guarded":
    "a deleted row takes its token with it; only insertRow gives the new one a token",
});

describe("the fence in SQLite, broken on purpose", () => {
  // What has nothing to do with a check must not depend on it.
  const innocent = titles("a resource that", "the same token", "bad tokens", "nothing is sent", "an administrator");

  it("fails the suite when no transaction sees a floor", async () => {
    const failed = await failedCases(() => txSubject(seesNoFloor));
    expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES]));
    for (const title of [...innocent, ...titles("resources are independent", "a crash")]) {
      expect(failed).not.toContain(title);
    }
  });

  it("fails the suite without the condition in the row's update", async () => {
    const failed = await failedCases(() => rowSubject((sql) => sql.replace(/ and "token" <= \?/, " and ? >= 0")));
    expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES]));
    for (const title of innocent) expect(failed).not.toContain(title);
  });
});

describe("the fence in SQLite", () => {
  let file: TestFile;
  let db: Database.Database;
  let fence: SqliteFence<Database.Database>;
  const value = (name = "a") => db.prepare("select value from registers where name = ?").pluck().get(name);
  const put = (what: string) => db.prepare("insert or replace into registers values ('a', ?)").run(what);

  beforeEach(() => {
    file = new TestFile();
    db = file.connect({ timeout: 300 });
    db.exec("create table registers (name text primary key, value text)");
    fence = sqliteFence(db);
    fence.migrate();
  });
  afterEach(() => file.remove());

  it("refuses the successor of a stopped holder in clear words, and rolls the stopped one back when it wakes", async () => {
    const config = { file: file.path, timeoutMs: 300 };
    const stopped = await startHolder(holders, config, "a", 61, 1_000, "late");
    stopped.stop();
    const successor = exclusive("a", 62);
    await expect(fence.raise(successor)).rejects.toEqual(code("UNREACHABLE"));
    expect(value()).toBeUndefined(); // readers are not blocked, and see nothing half done
    expect((await fence.inspect("a")).floor).toBe(0);
    const deadlineMs = performance.now() + 1_100; // until its hold is over
    while (performance.now() < deadlineMs) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await stopped.goOn()).toBe("LOST");
    expect(value()).toBeUndefined();
    fence.tx(successor, () => put("successor"));
    expect(value()).toBe("successor");
  });

  it("takes several locks, and writes only if none of them is stale", async () => {
    await fence.raise(exclusive("b", 7));
    const locks = (token: number) => [exclusive("a", token), exclusive("b", token)];
    expect(() => fence.tx(locks(6), () => put("late"))).toThrow(
      expect.objectContaining({ code: "STALE_TOKEN", resource: "b", token: 6, floor: 7 }),
    );
    expect((await fence.inspect("a")).floor).toBe(0);
    fence.tx(locks(8), () => put("both"));
    expect([await fence.inspect("a"), await fence.inspect("b")].map(({ floor }) => floor)).toEqual([8, 8]);
    expect(() => fence.tx([], () => 1)).toThrow(code("INVALID"));
    const [, lost] = locks(9);
    lost?.lose();
    expect(() => fence.tx([exclusive("a", 9), lost as TestLock], () => put("late"))).toThrow(code("LOST"));
    expect(value()).toBe("both");
  });

  it("rolls back and passes on what the commit refuses", async () => {
    db.exec("create table parents (id integer primary key)");
    db.exec("create table children (parent integer references parents deferrable initially deferred)");
    const orphan = () => fence.tx(exclusive("a", 5), () => db.exec("insert into children values (1)"));
    expect(orphan).toThrow(code("SQLITE_CONSTRAINT_FOREIGNKEY"));
    expect(db.inTransaction).toBe(false);
    expect(db.prepare("select count(*) from children").pluck().get()).toBe(0);
    expect((await fence.inspect("a")).floor).toBe(0);
  });

  it("writes nothing when readers keep the commit waiting for too long", async () => {
    db.pragma("journal_mode = delete"); // where a commit waits for readers
    const reader = file.connect({ journal: "delete" });
    reader.exec("begin");
    reader.prepare("select * from registers").all();
    expect(() => fence.tx(exclusive("a", 5), () => put("late"))).toThrow(code("UNREACHABLE"));
    expect(db.inTransaction).toBe(false);
    reader.exec("commit");
    expect(value()).toBeUndefined();
    expect((await fence.inspect("a")).floor).toBe(0);
    fence.tx(exclusive("a", 5), () => put("now"));
    expect(value()).toBe("now");
  });

  it("says LOST, not busy, to who has waited until the hold was over", () => {
    const other = file.connect();
    other.exec("begin immediate");
    const claim = { name: "a", token: 5, remainingMs: 100 };
    expect(() => fence.tx(claim, () => put("late"))).toThrow(code("LOST"));
    other.exec("rollback");
  });

  it("rolls back when the lock is lost inside", () => {
    const lock = exclusive("a", 5);
    const write = () =>
      fence.tx(lock, () => {
        put("late");
        lock.lose();
      });
    expect(write).toThrow(code("LOST"));
    expect(value()).toBeUndefined();
    expect(db.inTransaction).toBe(false);
  });

  it("returns what the callback returns, and passes on what it throws", () => {
    expect(fence.tx(exclusive("a", 5), () => 42)).toBe(42);
    const error = new Error("mine");
    const failing = () =>
      fence.tx(exclusive("a", 6), () => {
        put("undone");
        throw error;
      });
    expect(failing).toThrow(error);
    expect(value()).toBeUndefined();
  });

  it("refuses callbacks that are asynchronous", () => {
    expect(() => fence.tx(exclusive("a", 5), async () => put("a"))).toThrow(code("INVALID"));
    const promising = () => fence.tx(exclusive("a", 5), () => Promise.resolve(put("a")));
    expect(promising).toThrow(code("INVALID"));
    expect(value()).toBeUndefined();
  });

  it("refuses to begin inside a transaction, and a callback that ends its own", () => {
    db.exec("begin");
    expect(() => fence.tx(exclusive("a", 5), () => put("a"))).toThrow(code("INVALID"));
    db.exec("rollback");
    expect(() => fence.tx(exclusive("a", 5), () => db.exec("commit"))).toThrow(code("INVALID"));
  });

  it("says to migrate first", () => {
    const other = sqliteFence(db, { table: "other_fence" });
    expect(() => other.tx(exclusive("a", 5), () => 1)).toThrow(/migrate\(\)/);
    expect(() => sqliteFence(db, { table: 'a"b' })).toThrow(code("INVALID"));
    expect(() => sqliteFence(db, { tabel: "a" } as object)).toThrow(code("INVALID"));
    expect(() => sqliteFence({} as Database.Database)).toThrow(code("INVALID"));
    const keyword = sqliteFence(db, { table: "order" });
    keyword.migrate();
    expect(keyword.tx(exclusive("a", 5), () => 1)).toBe(1);
  });

  it("can be migrated again, and keeps its floors", async () => {
    await fence.raise(exclusive("a", 7));
    fence.migrate();
    sqliteFence(file.connect()).migrate();
    expect((await fence.inspect("a")).floor).toBe(7);
  });

  it("never lowers a floor, whoever tries", async () => {
    await fence.raise(exclusive("a", 7));
    for (const sql of [
      "update leasehold_fence set token = 6",
      "insert or replace into leasehold_fence values ('a', 6)",
      "update leasehold_fence set resource = 'b'",
      "update leasehold_fence set token = 9007199254740992",
    ]) {
      expect(() => db.exec(sql), sql).toThrow();
    }
    expect((await fence.inspect("a")).floor).toBe(7);
  });

  it("is made by the file of migrations, too", async () => {
    const text = readFileSync(migration, "utf8");
    expect(text).toBe(`${sqliteSchema("leasehold_fence").join(";\n\n")};\n`);
    db.exec("drop table leasehold_fence");
    db.exec(text);
    db.exec(text);
    await fence.raise(exclusive("a", 7));
    expect((await fence.inspect("a")).floor).toBe(7);
  });

  it("reads floors exactly, whatever the connection does with integers", async () => {
    db.defaultSafeIntegers(true);
    const exact = sqliteFence(db);
    await exact.raise(exclusive("a", 2 ** 53 - 1));
    expect((await exact.inspect("a")).floor).toBe(2 ** 53 - 1);
    expect(() => exact.tx(exclusive("a", 2 ** 53 - 2), () => 1)).toThrow(code("STALE_TOKEN"));
  });

  it("looks at the hold again after the wait for the write lock", async () => {
    const lock = new TestLock("a", 5, "exclusive", [], 60_000);
    const late = file.connect();
    const prepare = late.prepare.bind(late);
    const losing = (sql: string) => {
      const statement = prepare(sql);
      if (sql !== "begin immediate") return statement;
      const run = () => {
        lock.lose(); // as time does, while the statement waits
        return statement.run();
      };
      return { ...statement, run };
    };
    Object.assign(late, { prepare: losing });
    expect(() => sqliteFence(late).tx(lock, () => put("late"))).toThrow(code("LOST"));
    expect(value()).toBeUndefined();
  });
});

describe("rows in SQLite", () => {
  let file: TestFile;
  let db: Database.Database;
  let fence: SqliteFence<Database.Database>;
  beforeEach(() => {
    file = new TestFile();
    db = file.connect();
    db.exec("create table seats (id integer primary key, left integer, token integer, version integer default 0)");
    db.exec("insert into seats values (1, 10, 0, 0), (2, 10, 0, 0), (3, 10, null, 0)");
    fence = sqliteFence(db);
  });
  afterEach(() => file.remove());
  const update = (where: Record<string, unknown>, lock = exclusive("seats", 5)) =>
    fence.updateRow(lock, { table: "seats", set: { left: 9 }, where });
  const left = () => db.prepare("select left from seats order by id").pluck().all();

  it("are written one at a time: several, none, or one whose token is null, are refused", () => {
    update({ id: 1 });
    expect(() => update({ left: 10 })).toThrow(code("INVALID"));
    expect(() => update({ id: 9 })).toThrow(code("NOT_FOUND"));
    expect(() => update({ id: 3 })).toThrow(/null/);
    expect(() => update({ id: 1 }, exclusive("seats", 4))).toThrow(
      expect.objectContaining({ code: "STALE_TOKEN", floor: 5, token: 4 }),
    );
    expect(left()).toEqual([9, 10, 10]);
  });

  it("have exact tokens whatever the type of their column", () => {
    db.exec("create table loose (id integer primary key, token, x)");
    db.exec("insert into loose values (1, 0, '')");
    const highest = 2 ** 53 - 1;
    const write = (token: number) =>
      fence.updateRow(exclusive("loose", token), { table: "loose", set: { x: "written" }, where: { id: 1 } });
    write(highest - 1);
    expect(db.prepare("select typeof(token) from loose").pluck().get()).toBe("integer");
    db.prepare("update loose set token = ?").run(highest); // by hand, and so as a real
    expect(db.prepare("select typeof(token) from loose").pluck().get()).toBe("real");
    expect(() => write(highest - 1)).toThrow(expect.objectContaining({ code: "STALE_TOKEN", floor: highest }));
    write(highest);
  });

  it("that are inserted carry the token of their maker, unless it shares the lock", () => {
    const token = (id: number) => db.prepare("select token from seats where id = ?").pluck().get(id);
    fence.insertRow(exclusive("seats", 7), { table: "seats", values: { id: 8, left: 1 } });
    expect(token(8)).toBe(7);
    expect(() => update({ id: 8 }, exclusive("seats", 6))).toThrow(code("STALE_TOKEN"));
    fence.insertRow(shared("seats", 7), { table: "seats", values: { id: 9, left: 1 } });
    expect(token(9)).toBe(0);
    const again = () => fence.insertRow(exclusive("seats", 8), { table: "seats", values: { id: 8 } });
    expect(again).toThrow(code("SQLITE_CONSTRAINT_PRIMARYKEY"));
  });

  it("are written in a transaction of the caller's, too, and go with it", () => {
    const failing = db.transaction(() => {
      update({ id: 1 });
      throw new Error("mine");
    });
    expect(failing).toThrow("mine");
    expect(left()).toEqual([10, 10, 10]);
    db.transaction(() => update({ id: 1 })).immediate();
    expect(left()).toEqual([9, 10, 10]);
  });

  it("with a version lose no update of many writers", async () => {
    const connections = Array.from({ length: 10 }, () => file.connect());
    const take = (one: Database.Database) =>
      retryOnConflict(
        async () => {
          const row = one.prepare("select left, version from seats where id = 2").get() as {
            left: number;
            version: number;
          };
          await new Promise(setImmediate);
          updateVersioned(one, { table: "seats", where: { id: 2 }, set: { left: row.left - 1 }, version: row.version });
        },
        { attempts: 500, delayMsMax: 5 },
      );
    await Promise.all(connections.map(take));
    expect(left()).toEqual([10, 0, 10]);
    const stale = () => updateVersioned(db, { table: "seats", where: { id: 2 }, set: { left: 5 }, version: 3 });
    expect(stale).toThrow(code("CONFLICT"));
    expect(FenceError.is(new FenceError("CONFLICT", ""), "CONFLICT")).toBe(true);
  });
});
