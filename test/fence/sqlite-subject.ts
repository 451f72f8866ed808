/** The registers of the conformance suite in a SQLite file: behind the table of floors, and with the fence in the row. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Fenced, FenceError, holdOf, holdsOf } from "@leasehold/fence";
import { sqliteFence } from "@leasehold/fence/sqlite";
import Database from "better-sqlite3";
import type { Subject } from "./conformance.js";
import { startHolder } from "./holder.js";

const holders = fileURLToPath(new URL("./holders/sqlite.mjs", import.meta.url));

/** A database file that is removed again. */
export class TestFile {
  readonly folder = mkdtempSync(join(tmpdir(), "leasehold-sqlite-"));
  readonly path = join(this.folder, "test.db");
  readonly #open: Database.Database[] = [];

  /** Another connection. `timeout`: how long it waits for the write lock. */
  connect(options: Database.Options = {}): Database.Database {
    const db = new Database(this.path, { timeout: 5_000, ...options });
    db.pragma("journal_mode = wal");
    this.#open.push(db);
    return db;
  }

  remove(): void {
    for (const db of this.#open) db.close();
    rmSync(this.folder, { recursive: true });
  }
}

/** Rewrites what a fence sends: how a test breaks it. */
type Sabotage = (sql: string) => string;
const honest: Sabotage = (sql) => sql;

/** A connection whose statements are rewritten. */
function sabotaged(db: Database.Database, sabotage: Sabotage): Database.Database {
  const prepare = db.prepare.bind(db);
  return Object.assign(db, { prepare: ((sql: string) => prepare(sabotage(sql))) as typeof db.prepare });
}

function openFile(sabotage: Sabotage) {
  const file = new TestFile();
  let sent = 0;
  const db = sabotaged(file.connect({ verbose: () => sent++ }), sabotage);
  const fence = sqliteFence(db);
  fence.migrate();
  const look = file.connect();
  return { file, db, fence, look, sent: () => sent };
}

/** Fenced transactions. */
export async function txSubject(sabotage: Sabotage = honest): Promise<Subject> {
  const { file, db, fence, look, sent } = openFile(sabotage);
  db.exec("create table registers (name text primary key, value text not null)");
  const put = "insert into registers (name, value) values (?, ?) on conflict do update set value = excluded.value";
  const register = look.prepare("select value from registers where name = ?").pluck();
  return {
    fence,
    async write(by, value) {
      fence.tx(by, (db) => db.prepare(put).run(holdOf(by).resource, value));
    },
    async read(resource) {
      await new Promise(setImmediate); // let others have a turn: nothing in here is asynchronous
      return register.get(resource) as string | undefined;
    },
    async recreate(by) {
      const { resource } = holdOf(by);
      fence.tx(by, (db) => db.prepare("delete from registers where name = ?").run(resource));
      look.prepare("insert into registers (name, value) values (?, 'anew')").run(resource);
    },
    sent,
    holder(name, token, remainingMs, value) {
      return startHolder(holders, { file: file.path, timeoutMs: 500 }, name, token, remainingMs, value);
    },
    async close() {
      file.remove();
    },
  };
}

/** Rows that carry their token. */
export async function rowSubject(sabotage: Sabotage = honest): Promise<Subject> {
  const { file, db, fence, look, sent } = openFile(sabotage);
  db.exec("create table registers (name text primary key, value text, token integer not null default 0)");
  const register = look.prepare("select value from registers where name = ?").pluck();
  const floor = db.prepare("select token from registers where name = ?").pluck();
  const forget = db.prepare("update registers set token = 0 where name = ?");
  const table = "registers";
  /** Makes the row if it is not there, with the token of its maker. */
  const orMade = (by: Fenced, act: () => void) => {
    try {
      act();
    } catch (error) {
      if (!FenceError.is(error, "NOT_FOUND")) throw error;
      fence.insertRow(by, { table, values: { name: holdOf(by).resource } });
      act();
    }
  };
  /** Refuses what is no resource. */
  const checked = (resource: string) => holdOf({ name: resource, token: 0 }).resource;
  return {
    fence: {
      async raise(lock) {
        for (const hold of holdsOf(lock)) {
          orMade(hold, () => fence.raiseRow(hold, { table, where: { name: hold.resource } }));
        }
      },
      async inspect(resource) {
        return { resource, floor: (floor.get(checked(resource)) as number | undefined) ?? 0 };
      },
      async reset(resource) {
        forget.run(checked(resource));
      },
    },
    async write(by, value) {
      orMade(by, () => fence.updateRow(by, { table, set: { value }, where: { name: holdOf(by).resource } }));
    },
    async read(resource) {
      await new Promise(setImmediate);
      return (register.get(resource) as string | null | undefined) ?? undefined;
    },
    async recreate(by) {
      const { resource } = holdOf(by);
      db.prepare("delete from registers where name = ?").run(resource);
      fence.insertRow(by, { table, values: { name: resource, value: "anew" } });
    },
    sent,
    holder(name, token, remainingMs, value) {
      const config = { file: file.path, timeoutMs: 500, style: "row" };
      return startHolder(holders, config, name, token, remainingMs, value);
    },
    async close() {
      file.remove();
    },
  };
}
