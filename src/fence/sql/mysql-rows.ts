/**
 * The fence in the row, and optimistic updates, in MySQL: as rows.ts and versioned.ts have them. What is left to this
 * adapter is that `where` names one row at most.
 *
 * An update may not look at its own table here but through a copy, and then it locks what it reads: two updates of one row
 * would both have a share lock and both want more. So it is the table that must promise it: `where` has all columns of one
 * of its unique keys. The keys are looked up once for each table. Two things could undo that promise, and are refused:
 *
 * - `where code = 0`, with a number for a column of text: all texts that do not begin with a digit are equal to it.
 * - An object or an array as a value: the driver makes conditions or lists of them, `id = 1, 2`.
 */
import { invalid, show } from "../errors.js";
import { firstValues, type MysqlDb, matchedRows } from "./mysql-driver.js";
import type { Columns, Dialect, RowRunner } from "./rows.js";

export const mysql: Dialect = {
  quote: (identifier) => `\`${identifier.replaceAll("`", "``")}\``,
  placeholder: () => "?",
  whole: (value) => value,
  asText: (column) => `cast(${column} as char)`,
  countsInUpdate: false,
};

export const rowsOf = (db: MysqlDb): RowRunner => ({
  changed: async ({ text, values }) => matchedRows(await db.query(text, [...values])),
  // With a lock, to see what is committed, as the update did: under repeatable read a plain look sees the snapshot, which
  // may be older than the token that has refused the update.
  seen: async ({ text, values }) => firstValues(await db.query(`${text} lock in share mode`, [...values])),
});

/** A unique key: its columns, and whether each is one of text. */
type Key = readonly { readonly column: string; readonly text: boolean }[];
/** Tables whose keys are remembered; a forgotten one costs a round trip. */
const TABLES_MAX = 1_000;
/** All of them are equal to numbers that they are not. */
const TEXT_TYPES = ["char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"];

/** By what runs the statements: a pool, a connection; a transaction has those of its fence. */
const known = new WeakMap<MysqlDb, Map<string, readonly Key[]>>();

function keysBy(db: MysqlDb): Map<string, readonly Key[]> {
  const keys = known.get(db) ?? new Map<string, readonly Key[]>();
  known.set(db, keys);
  return keys;
}

/** What is known of the tables of one is known for the other, too. */
export const shareKeys = (from: MysqlDb, to: MysqlDb): void => void known.set(to, keysBy(from));

/** Throws INVALID for values that the driver would not send as one value each. */
export function checkValues(columns: Columns | undefined): void {
  for (const [column, value] of Object.entries(columns ?? {})) {
    const one = typeof value !== "object" || value === null || value instanceof Date || value instanceof Uint8Array;
    if (one && typeof value !== "function" && typeof value !== "symbol") continue;
    throw invalid(`the column ${show(column)} needs text, a number, a date or bytes, not ${show(value)}`);
  }
}

/** Rejects INVALID unless `where` has a unique key of the table. `keys`: whose knowledge of the table is used. */
export async function checkOneRow(db: MysqlDb, table: string, where: Columns, keys: MysqlDb = db): Promise<void> {
  checkValues(where);
  const tables = keysBy(keys);
  if (tables.get(table)?.some((key) => names(key, where))) return;
  const found = await keysOf(db, table); // also if it is known: there may be a new one
  if (tables.size >= TABLES_MAX) tables.clear();
  tables.set(table, found);
  if (found.some((key) => names(key, where))) return;
  throw invalid(
    `where must name one row of ${show(table)}: by all columns of one of its unique keys, text by text, not numbers`,
  );
}

/** Whether this key's columns are all there, and compared as what they are. (There may be many rows with null.) */
const names = (key: Key, where: Columns): boolean =>
  key.every(({ column, text }) => {
    const [, value] = Object.entries(where).find(([one]) => one.toLowerCase() === column) ?? [];
    if (value === undefined || value === null) return false;
    return !text || typeof value === "string" || value instanceof Uint8Array;
  });

async function keysOf(db: MysqlDb, table: string): Promise<readonly Key[]> {
  const parts = table.split(".");
  const name = parts.pop();
  const [database] = parts;
  // One value a row, whatever the pool does to rows: JSON of the key's name, the column and its type.
  const text = `select json_array(s.index_name, s.column_name, c.data_type) as part
    from information_schema.statistics as s
    left join information_schema.columns as c
      on c.table_schema = s.table_schema and c.table_name = s.table_name and c.column_name = s.column_name
    where s.non_unique = 0 and s.table_schema = ${database === undefined ? "database()" : "?"} and s.table_name = ?`;
  const parsed = firstValues(await db.query(text, database === undefined ? [name] : [database, name]));
  const keys = new Map<string, { column: string; text: boolean }[]>();
  for (const part of parsed) {
    const [key, column, type] = (typeof part === "string" ? JSON.parse(part) : part) as (string | null)[];
    const columns = keys.get(key ?? "") ?? [];
    keys.set(key ?? "", columns);
    // A part of a key that is an expression has no column: no `where` has it.
    columns.push({ column: (column ?? "\0").toLowerCase(), text: TEXT_TYPES.includes((type ?? "").toLowerCase()) });
  }
  return [...keys.values()];
}
