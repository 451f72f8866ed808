/**
 * The fence in the row itself, for all SQL databases: a column `token bigint not null default 0` holds the highest token
 * that has written the row, and the check is a condition of the update. No table of fences, no transaction:
 *
 *     update orders set state = 'paid', token = 34 where id = 42 and token <= 34
 *
 * What makes it hold:
 *
 * - Update only. An upsert would let the stale back in through a row that was deleted: nothing remembers its token.
 * - The number of changed rows is always looked at. An update that matched nothing is no error to a database.
 * - One row. If `where` matched three rows and one of them had seen a higher token, two would be written and the third
 *   silently left out. So an update that does not name exactly one row writes nothing at all.
 * - `null` is refused. It makes the condition unknown, and then the row could never be written, or always, depending on
 *   how the condition is put.
 *
 * A zero does not say why. So one look follows, only then: a higher token in the row is STALE_TOKEN, no row NOT_FOUND.
 *
 * Nothing here talks to a database: the statements are built and what was found is judged, so that drivers that answer at
 * once can use it as well as those that answer later.
 */
import { FenceError, invalid, show, stale } from "../errors.js";
import { type Fenced, type Hold, holdOf } from "../hold.js";
import { checkKeys, readToken } from "../token.js";

/** What differs from database to database. */
export interface Dialect {
  /** An identifier in quotes: `"name"`. */
  quote(identifier: string): string;
  /** The placeholder of a parameter; the first one has 1. */
  placeholder(position: number): string;
  /** A whole number as the driver binds it exactly to a 64-bit column. */
  whole(value: number): unknown;
  /** A 64-bit column as text: drivers read such numbers in different ways, and some of them inexactly. */
  asText(column: string): string;
  /**
   * Whether an update may look at its own table, in a subselect, without locking what it reads. If it may not, the
   * adapter itself must see to it that `where` names at most one row.
   */
  readonly countsInUpdate: boolean;
}

/** A statement and its parameters, in the order of their placeholders. */
export interface Statement {
  readonly text: string;
  readonly values: readonly unknown[];
}

/** Values by the names of their columns. `null` is SQL's; `undefined` is refused. */
export type Columns = Readonly<Record<string, unknown>>;

/** Names a row. */
export interface RowKey {
  /** `table` or `schema.table`, upper and lower case as the database has them. */
  readonly table: string;
  /** The columns that name the row: all of them equal (or `null`, too). It must match one row at most. */
  readonly where: Columns;
  /** The column with the token. Default: `token`. */
  readonly tokenColumn?: string | undefined;
}

/** What a fenced update writes. */
export interface RowUpdate extends RowKey {
  /** The new values. The token is set by the fence. */
  readonly set: Columns;
}

/** What a fenced insert writes. */
export interface RowInsert {
  /** `table` or `schema.table`. */
  readonly table: string;
  /** The values of the new row. The token is set by the fence. */
  readonly values: Columns;
  /** The column with the token. Default: `token`. */
  readonly tokenColumn?: string | undefined;
}

/** A guarded update, and what tells why it changed nothing. */
export interface GuardedWrite {
  /** Changes exactly one row, or none. */
  readonly write: Statement;
  /** At most two rows with one column, `seen`: the guard's text or null. */
  readonly look: Statement;
  /** What stands against the write, from the values that the look has found; undefined: nothing does. */
  judge(seen: readonly unknown[]): FenceError | undefined;
}

/** Runs statements on a connection whose driver answers later. */
export interface RowRunner {
  /** Runs a write. Resolves with the number of rows that its condition matched. */
  changed(statement: Statement): Promise<number>;
  /** Runs a look. Resolves with the values of its column `seen`. */
  seen(statement: Statement): Promise<readonly unknown[]>;
}

/** More than any database permits in a row that people still understand. */
const COLUMNS_MAX = 1_000;
const IDENTIFIER_BYTES_MAX = 63;
const CONTROL = /[\p{Cc}\p{Surrogate}]/u;
const DEFAULT_TOKEN_COLUMN = "token";

/** Throws INVALID unless it is text that a database can have as a name; quoted, it may contain anything else. */
function checkIdentifier(name: unknown, what: string): string {
  const fits = typeof name === "string" && name !== "" && Buffer.byteLength(name) <= IDENTIFIER_BYTES_MAX;
  if (fits && !CONTROL.test(name)) return name;
  throw invalid(`${what} must be text of 1 to ${IDENTIFIER_BYTES_MAX} bytes, not ${show(name)}`);
}

/** `table`, `schema.table` or `database.schema.table`, in quotes. */
function quoteTable(dialect: Dialect, table: unknown): string {
  const parts = typeof table === "string" ? table.split(".") : [];
  if (parts.length < 1 || parts.length > 3) throw invalid(`table must be table or schema.table, not ${show(table)}`);
  return parts.map((part) => dialect.quote(checkIdentifier(part, "a part of the table's name"))).join(".");
}

/** The columns and values of `what`, checked; none of them may be the guard's own. */
function entries(columns: unknown, what: string, guard: string): [column: string, value: unknown][] {
  if (typeof columns !== "object" || columns === null || Array.isArray(columns)) {
    throw invalid(`${what} must be an object of columns and values, not ${show(columns)}`);
  }
  const all = Object.entries(columns);
  if (all.length > COLUMNS_MAX)
    throw invalid(`${what} has ${all.length} columns; at most ${COLUMNS_MAX} are permitted`);
  for (const [column, value] of all) {
    checkIdentifier(column, `a column in ${what}`);
    if (column === guard) throw invalid(`${what} must not name ${show(guard)}: the fence sets and compares it`);
    if (value === undefined) throw invalid(`${what} has undefined for ${show(column)}; say null if that is meant`);
  }
  return all;
}

/** A guard: a column that the update compares, and sets if it is to. */
export interface Guard {
  readonly column: string;
  /** The comparison with the value, such as `<=`. */
  readonly operator: "<=" | "=";
  readonly value: number;
  /** What the column is set to; undefined: it is not written; "itself": it is written, and stays. */
  readonly next: number | "itself" | undefined;
}

/** Text under construction: every value gets its placeholder. */
class Building {
  readonly values: unknown[] = [];

  constructor(readonly dialect: Dialect) {}

  value(value: unknown): string {
    return this.dialect.placeholder(this.values.push(value));
  }

  equal(where: readonly [string, unknown][]): string {
    const conditions = where.map(([column, value]) => {
      const name = this.dialect.quote(column);
      return value === null ? `${name} is null` : `${name} = ${this.value(value)}`;
    });
    return conditions.join(" and ");
  }

  done(text: string): Statement {
    return { text, values: this.values };
  }
}

/** An update of one row under a guard, and the look that explains why nothing was changed. */
export function guardedUpdate(
  dialect: Dialect,
  { table, where, set }: { table: unknown; where: unknown; set: unknown },
  guard: Guard,
): { write: Statement; look: Statement } {
  const name = quoteTable(dialect, table);
  const column = dialect.quote(checkIdentifier(guard.column, "the guarding column"));
  const values = entries(set, "set", guard.column);
  const key = entries(where, "where", guard.column);
  if (key.length === 0) throw invalid("where must name the row: it has no columns");

  const write = new Building(dialect);
  const changes = values.map(([one, value]) => `${dialect.quote(one)} = ${write.value(value)}`);
  if (guard.next === "itself") changes.push(`${column} = ${column}`);
  else if (guard.next !== undefined) changes.push(`${column} = ${write.value(dialect.whole(guard.next))}`);
  if (changes.length === 0) throw invalid("set must have columns; there is nothing to write");
  let text = `update ${name} set ${changes.join(", ")} where ${write.equal(key)}`;
  text += ` and ${column} ${guard.operator} ${write.value(dialect.whole(guard.value))}`;
  if (dialect.countsInUpdate) {
    text += ` and not exists (select 1 from ${name} where ${write.equal(key)} limit 1 offset 1)`; // no second one
  }
  const look = new Building(dialect);
  const found = `select ${dialect.asText(column)} as seen from ${name} where ${look.equal(key)} limit 2`;
  return { write: write.done(text), look: look.done(found) };
}

const UPDATE_KEYS = ["table", "where", "set", "tokenColumn"];
const KEY_KEYS = ["table", "where", "tokenColumn"];
const INSERT_KEYS = ["table", "values", "tokenColumn"];

/**
 * The fenced update of a row. A shared hold is checked, and leaves the token as it is. Throws INVALID, and LOST when the
 * lock is not held any more.
 */
export function rowUpdate(dialect: Dialect, hold: Hold, update: RowUpdate): GuardedWrite {
  checkKeys(update, UPDATE_KEYS, "a row's update");
  const guarded = fencedWrite(dialect, hold, update, update.set);
  if (Object.keys(update.set).length > 0) return guarded;
  throw invalid("set must have columns; to raise the token and write nothing else there is raiseRow");
}

/**
 * Only sets the token of a row: the floor at the grant, before the row is read. A shared hold leaves it as it is, and is
 * checked. Throws INVALID, and LOST when the lock is not held any more.
 */
export function rowRaise(dialect: Dialect, hold: Hold, key: RowKey): GuardedWrite {
  checkKeys(key, KEY_KEYS, "a row's key");
  return fencedWrite(dialect, hold, key, {}, "itself");
}

function fencedWrite(
  dialect: Dialect,
  hold: Hold,
  { table, where, tokenColumn }: RowKey,
  set: Columns,
  shared?: "itself" | undefined,
): GuardedWrite {
  const { token, resource } = hold;
  const column = tokenColumn ?? DEFAULT_TOKEN_COLUMN;
  const guard: Guard = { column, operator: "<=", value: token, next: hold.raises ? token : shared };
  const statements = guardedUpdate(dialect, { table, where, set }, guard);
  const judge = (seen: readonly unknown[]) => {
    const [value] = seen;
    const refusal = judgeRow(seen, table, column, resource);
    if (refusal) return refusal;
    const floor = readToken(value);
    return floor > token ? stale(resource, token, floor) : undefined;
  };
  return { ...statements, judge };
}

/** What stands against a guarded update whatever its guard: there must be one row, and its guard must not be null. */
export function judgeRow(
  seen: readonly unknown[],
  table: string,
  column: string,
  resource?: string | undefined,
): FenceError | undefined {
  const [value] = seen;
  if (seen.length === 0) return notFound(table, resource);
  if (seen.length > 1) return invalid(`where matches several rows of ${show(table)}: it must name one, by its key`);
  if (value !== null && value !== undefined) return undefined;
  return invalid(`the column ${show(column)} of ${show(table)} is null; make it "bigint not null default 0"`);
}

function notFound(table: string, resource: string | undefined): FenceError {
  const message = `there is no such row in ${show(table)}; nothing was written`;
  return new FenceError("NOT_FOUND", message, resource === undefined ? {} : { resource });
}

/** Why a guarded update changed nothing. What has come to fit only since then was not there when it was looked for. */
export function refusal(guarded: GuardedWrite, seen: readonly unknown[], table: string): FenceError {
  return guarded.judge(seen) ?? notFound(table, undefined);
}

/** Runs a guarded update: one round trip, and a second one only to tell why nothing was written. */
export async function runGuarded(runner: RowRunner, guarded: GuardedWrite, table: string): Promise<void> {
  if ((await runner.changed(guarded.write)) > 0) return;
  throw refusal(guarded, await runner.seen(guarded.look), table);
}

/**
 * The insert of a row that carries the token of its maker, so that who was stale before is stale for the new row, too. A
 * shared hold leaves 0. Throws INVALID, and LOST when the lock is not held any more.
 */
export function rowInsert(dialect: Dialect, hold: Hold, insert: RowInsert): Statement {
  checkKeys(insert, INSERT_KEYS, "a row's insert");
  const { token } = hold;
  const name = quoteTable(dialect, insert.table);
  const column = checkIdentifier(insert.tokenColumn ?? DEFAULT_TOKEN_COLUMN, "the guarding column");
  const values: [string, unknown][] = [
    ...entries(insert.values, "values", column),
    [column, dialect.whole(hold.raises ? token : 0)],
  ];
  const building = new Building(dialect);
  const columns = values.map(([one]) => dialect.quote(one)).join(", ");
  const placeholders = values.map(([, value]) => building.value(value)).join(", ");
  return building.done(`insert into ${name} (${columns}) values (${placeholders})`);
}

/** What the drivers say of a statement that was run: pg, mysql2, better-sqlite3; or the bare number of rows. */
export type Written =
  | number
  | { readonly rowCount: number | null }
  | { readonly affectedRows: number }
  | { readonly changes: number };

/**
 * For SQL of your own with `token <= …` in its condition: throws STALE_TOKEN unless it has changed a row. (A zero does not
 * tell a stale token from a row that does not exist, so `floor` is not known.) Throws INVALID for a result that does not
 * say how many rows there were.
 *
 * @param rows how many rows it should have changed; default 1
 * @example
 * const sql = "update orders set state = 'paid', token = $1 where id = 42 and token <= $1";
 * assertWritten(await pool.query(sql, [lock.token]), lock);
 */
export function assertWritten(result: Written, lock: Fenced, rows = 1): void {
  const written = rowsOf(result);
  if (written >= rows) return;
  const { resource, token } = holdOf(lock);
  const what = `${written} of ${rows} rows were changed under the token ${token} for ${show(resource)}`;
  const message = `${what}: a higher one has been used, or the row does not exist`;
  throw new FenceError("STALE_TOKEN", message, { resource, token });
}

function rowsOf(result: Written): number {
  let rows: unknown = result;
  if (typeof result === "object" && result !== null) {
    if ("rowCount" in result) rows = result.rowCount;
    else if ("affectedRows" in result) rows = result.affectedRows;
    else if ("changes" in result) rows = result.changes;
  }
  if (typeof rows === "number" && Number.isSafeInteger(rows) && rows >= 0) return rows;
  throw invalid(`a driver's result with the number of changed rows is needed, not ${show(result)}`);
}
