/** The fence in the row, and optimistic updates, in SQLite: as `rows.ts` and `versioned.ts` have them, and at once. */
import { invalid } from "../errors.js";
import { type Fenced, holdOf } from "../hold.js";
import {
  type Dialect,
  type GuardedWrite,
  type RowInsert,
  type RowKey,
  type RowUpdate,
  refusal,
  rowInsert,
  rowRaise,
  rowUpdate,
  type Statement,
} from "./rows.js";
import type { SqliteDatabase, SqliteStatement } from "./sqlite-driver.js";
import { type VersionedUpdate, versionedUpdate } from "./versioned.js";

const sqlite: Dialect = {
  quote: (identifier) => `"${identifier.replaceAll('"', '""')}"`,
  placeholder: () => "?",
  // The driver binds a number as a real, and a column that was not declared as one of integers keeps it so.
  whole: (value) => BigInt(value),
  // A real can be there all the same, from SQL that binds the token as a number. Its text would have a point.
  asText: (column) =>
    `cast(case typeof(${column}) when 'real' then cast(${column} as integer) else ${column} end as text)`,
  countsInUpdate: true,
};

/** Statements that are kept prepared. Programs have few, and preparing one costs more than running it. */
const PREPARED_MAX = 200;

/** Runs guarded writes on one database. */
export class SqliteRows {
  readonly #db: SqliteDatabase;
  readonly #prepared = new Map<string, SqliteStatement>();

  constructor(db: SqliteDatabase) {
    this.#db = db;
  }

  update(lock: Fenced, update: RowUpdate): void {
    this.#guarded(rowUpdate(sqlite, holdOf(lock), update), update.table);
  }

  raise(lock: Fenced, key: RowKey): void {
    const hold = holdOf(lock);
    const raise = rowRaise(sqlite, hold, key);
    if (hold.raises) {
      this.#guarded(raise, key.table);
    } else {
      const refused = raise.judge(this.#seen(raise));
      if (refused) throw refused;
    }
  }

  insert(lock: Fenced, insert: RowInsert): void {
    this.#run(rowInsert(sqlite, holdOf(lock), insert));
  }

  updateVersioned(update: VersionedUpdate): number {
    const versioned = versionedUpdate(sqlite, update);
    this.#guarded(versioned, update.table);
    return versioned.next;
  }

  #guarded(guarded: GuardedWrite, table: string): void {
    if (this.#run(guarded.write) === 0) throw refusal(guarded, this.#seen(guarded), table);
  }

  #seen({ look }: GuardedWrite): unknown[] {
    const rows = this.#prepare(look.text).all(...look.values) as { readonly seen: unknown }[];
    return rows.map((row) => row.seen);
  }

  #run({ text, values }: Statement): number {
    return this.#prepare(text).run(...values).changes;
  }

  #prepare(text: string): SqliteStatement {
    const known = this.#prepared.get(text);
    if (known) return known;
    const statement = this.#db.prepare(text);
    if (this.#prepared.size >= PREPARED_MAX) this.#prepared.clear();
    this.#prepared.set(text, statement);
    return statement;
  }
}

/** By database, so that `updateVersioned` keeps its statements, too, and no longer than the database. */
const rows = new WeakMap<SqliteDatabase, SqliteRows>();

export function rowsOf(db: SqliteDatabase): SqliteRows {
  if (typeof db?.prepare !== "function") throw invalid("a database of better-sqlite3 is needed");
  const known = rows.get(db) ?? new SqliteRows(db);
  rows.set(db, known);
  return known;
}
