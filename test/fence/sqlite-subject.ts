/** The registers of the conformance suite in a SQLite file: behind the table of floors, and with the fence in the row. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Fenced, FenceError, holdOf, holdsOf } from "@leasehold/fence";
import { sqliteFence } from "@leasehold/fence/sqlite";
import Database from "better-sqlite3";
import type { StoppedHolder, Subject } from "./conformance.js";
import { startHolder } from "./holder.js";

const holders = fileURLToPath(new URL("./holders/sqlite.mjs", import.meta.url));

/** A database file that is removed again. */
export class TestFile {
  readonly folder = mkdtempSync(join(tmpdir(), "leasehold-sqlite-"));
  readonly path = join(this.folder, "test.db");
  readonly #open: Database.Database[] = [];

  /** Another connection. `timeout`: how long it waits for the write lock. */
  connect({ journal = "wal", ...options }: Database.Options & { journal?: "wal" | "delete" } = {}): Database.Database {
    const db = new Database(this.path, { timeout: 5_000, ...options });
    db.pragma(`journal_mode = ${journal}`);
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

/** Without a check: inside a transaction every floor seems to be 0; what is stored is as it should be. */
export const seesNoFloor: Sabotage = (sql) =>
  sql
    .replace(/^select token from/, "select seen_as_zero(token) as token from")
    .replace("do update set token = excluded.token", "do update set token = max(token, excluded.token)");

/** A connection whose statements are rewritten. */
function sabotaged(db: Database.Database, sabotage: Sabotage): Database.Database {
  const prepare = db.prepare.bind(db);
  db.function("seen_as_zero", (token) => (db.inTransaction ? 0 : token));
  return Object.assign(db, { prepare: ((sql: string) => prepare(sabotage(sql))) as typeof db.prepare });
}

function openFile(sabotage: Sabotage) {
  const file = new TestFile();
  const started: StoppedHolder[] = [];
  let sent = 0;
  const db = sabotaged(file.connect({ verbose: () => sent++ }), sabotage);
  const fence = sqliteFence(db);
  fence.migrate();
  const look = file.connect();
  const holder = async (style: "row" | "tx", name: string, token: number, remainingMs: number, value: string) => {
    const config = { file: file.path, timeoutMs: 500, style };
    const holder = await startHolder(holders, config, name, token, remainingMs, value);
    started.push(holder);
    return holder;
  };
  const close = async () => {
    for (const holder of started) await holder.goOn(); // a case that failed has left it where it stood
    file.remove();
  };
  return { db, fence, look, sent: () => sent, holder, close };
}

/** Fenced transactions. */
export async function txSubject(sabotage: Sabotage = honest): Promise<Subject> {
  const { db, fence, look, sent, holder, close } = openFile(sabotage);
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
    holder: (...job) => holder("tx", ...job),
    close,
  };
}

/** Rows that carry their token. */
export async function rowSubject(sabotage: Sabotage = honest): Promise<Subject> {
  const { db, fence, look, sent, holder, close } = openFile(sabotage);
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
      look.prepare("delete from registers where name = ?").run(resource);
      look.prepare("insert into registers (name, value) values (?, 'anew')").run(resource);
    },
    sent,
    holder: (...job) => holder("row", ...job),
    close,
  };
}
