/** The registers of the conformance suite in a SQLite file: behind the table of floors, and with the fence in the row. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Fenced, FenceError, holdOf } from "@leasehold/fence";
import { type SqliteFence, sqliteFence } from "@leasehold/fence/sqlite";
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
export type Sabotage = (sql: string) => string;
const honest: Sabotage = (sql) => sql;

/** A connection whose statements are rewritten. */
export function sabotaged(db: Database.Database, sabotage: Sabotage): Database.Database {
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

/** The raise of the row style: the row is there, with its floor, before its holder reads it. */
class RowFence {
  constructor(
    readonly fence: SqliteFence<Database.Database>,
    readonly db: Database.Database,
  ) {}
}
