/**
 * The fence in SQLite, for better-sqlite3.
 *
 * The check and the write must be one step. Two statements are not:
 *
 *     holder 1 (token 33)  select token ...: 33, as it should be; stalls
 *     holder 2 (token 34)  raises the floor to 34, reads 41
 *     holder 1             update ... 42             <- nobody looks at the floor any more
 *
 * SQLite has one writer at a time, so they are one step in one transaction. It begins with `begin immediate`, which takes
 * the write lock at once and waits for it. (A plain `begin` takes it at the first write, and fails at once, without a wait,
 * if somebody has written since the first read.) The floor is raised at its beginning, before the callback reads: until the
 * commit nobody else can write, so nothing that is read meanwhile becomes old.
 *
 * For the same reason a holder that is stopped inside its transaction blocks everybody who writes to this file: there is no
 * server that could end it. They get UNREACHABLE when their busy timeout is over. When the holder wakes, it looks at its
 * hold once more, immediately before the commit, and rolls back.
 */
import { isAsyncFunction } from "node:util/types";
import { FenceError, invalid, show, stale } from "../errors.js";
import type { Fence, Floor } from "../fence.js";
import { type Fenced, type Hold, holdOf, holdsOf } from "../hold.js";
import { checkKeys, checkResource, readToken } from "../token.js";
import type { RowInsert, RowKey, RowUpdate } from "./rows.js";
import { codeOf, type SqliteDatabase, type SqliteStatement } from "./sqlite-driver.js";
import { rowsOf } from "./sqlite-rows.js";
import { checkTable, sqliteSchema } from "./sqlite-schema.js";
import type { VersionedUpdate } from "./versioned.js";

export { assertWritten, type Columns, type RowInsert, type RowKey, type RowUpdate } from "./rows.js";
export type { SqliteDatabase, SqliteStatement } from "./sqlite-driver.js";
export { type RetryOptions, retryOnConflict, type VersionedUpdate } from "./versioned.js";

export interface SqliteFenceOptions {
  /** The table of floors. Letters, digits and underscores. Default: `leasehold_fence`. */
  readonly table?: string | undefined;
}

/** As many as `acquireAll` takes at once. */
const LOCKS_MAX = 64;
const OPTION_KEYS: readonly (keyof SqliteFenceOptions)[] = ["table"];

/** The statements of the fence, prepared when they are first needed: before `migrate` there is no table. */
interface Prepared {
  readonly floor: SqliteStatement;
  readonly raise: SqliteStatement;
  readonly reset: SqliteStatement;
}

/** The fence of one database. Made by `sqliteFence`. */
export class SqliteFence<Database extends SqliteDatabase> implements Fence {
  readonly #db: Database;
  readonly #table: string;
  readonly #begin: SqliteStatement;
  readonly #commit: SqliteStatement;
  readonly #rollback: SqliteStatement;
  #prepared: Prepared | undefined;

  /** Use `sqliteFence`. */
  constructor(db: Database, table: string) {
    this.#db = db;
    this.#table = table;
    this.#begin = db.prepare("begin immediate");
    this.#commit = db.prepare("commit");
    this.#rollback = db.prepare("rollback");
  }

  /**
   * Makes the table of floors and its triggers where they are missing; floors that are there stay. Several processes may do
   * it at once. Throws UNREACHABLE when the database stays busy.
   */
  migrate(): void {
    this.#immediate(() => {
      for (const statement of sqliteSchema(this.#table)) this.#db.exec(statement);
    });
  }

  /**
   * Runs `fn` in a transaction that is committed only if the lock's token is not below the floor, which it raises; with
   * several locks, only if none of them is stale. `fn` gets the database; everything that it does with it before it returns
   * is in the transaction. If it throws, the transaction is rolled back and the error passes through.
   *
   * It is synchronous, as better-sqlite3 is. While it waits for the write lock (the busy timeout of the database, 5 s by
   * default) the process stands still, and so do the renewals of its locks: choose it well below their TTL.
   *
   * Throws STALE_TOKEN; LOST when the hold is over, also if it ends inside; INVALID for a wrong argument, inside another
   * transaction, and for a callback that is asynchronous; UNREACHABLE when the database stays busy. Nothing is written then.
   * Throws OUTCOME_UNKNOWN when the disk fails in the commit, and INVALID when the callback has ended the transaction.
   *
   * @example
   * await client.withLock("orders/42", async (lock) => {
   *   await fence.raise(lock);
   *   const order = await load(42);
   *   fence.tx(lock, (db) => db.prepare("update orders set state = ? where id = 42").run(next(order)));
   * });
   */
  tx<Result>(lock: Fenced | readonly Fenced[], fn: (db: Database) => Result): Result {
    const locks = isSeveral(lock) ? lock : [lock];
    if (locks.length < 1 || locks.length > LOCKS_MAX) throw invalid(`1 to ${LOCKS_MAX} locks, not ${locks.length}`);
    const holds = locks.map(holdOf);
    if (typeof fn !== "function" || isAsyncFunction(fn)) {
      throw invalid("the callback must be a function that is not async: what it does later is not in the transaction");
    }
    return this.#guarded(holds, () => {
      const result = fn(this.#db);
      if (isThenable(result)) {
        throw invalid("the callback returned a promise: what it does later is not in the transaction");
      }
      holds.forEach(look); // the last one: what a process that wakes from a stop meets
      return result;
    });
  }

  /**
   * Raises the floor to the token of a lock, or the floors of all its permits; a shared hold is only checked. Rejects as `tx`
   * throws.
   */
  async raise(lock: Fenced): Promise<void> {
    this.#guarded(holdsOf(lock), () => {});
  }

  /** The floor of a resource: `name` of a lock, or `name#slot`. Rejects INVALID. */
  async inspect(resource: string): Promise<Floor> {
    checkResource(resource);
    return { resource, floor: this.#floor(resource) };
  }

  /** Forgets the floor of a resource. Rejects INVALID, also inside a transaction, and UNREACHABLE. */
  async reset(resource: string): Promise<void> {
    checkResource(resource);
    this.#immediate(() => this.#statements.reset.run(resource));
  }

  /**
   * The fence in the row: changes one row, which has the token of its last writer in the column `token`, if that is not
   * above the lock's. Runs by itself or in a transaction that is open.
   *
   * Throws STALE_TOKEN, NOT_FOUND, LOST, INVALID, also when `where` matches several rows, and what the driver throws, such
   * as SQLITE_BUSY. Nothing is written then.
   *
   * @example
   * fence.updateRow(lock, { table: "orders", where: { id: 42 }, set: { state: "paid" } });
   */
  updateRow(lock: Fenced, update: RowUpdate): void {
    rowsOf(this.#db).update(lock, update);
  }

  /** Raises the floor that is in a row, before the row is read. A shared hold is only checked. Throws as `updateRow`. */
  raiseRow(lock: Fenced, key: RowKey): void {
    rowsOf(this.#db).raise(lock, key);
  }

  /**
   * Inserts a row that carries the lock's token, so that who is stale for the resource is stale for this row. Throws LOST
   * and INVALID, and what the driver throws for a row that exists.
   */
  insertRow(lock: Fenced, insert: RowInsert): void {
    rowsOf(this.#db).insert(lock, insert);
  }

  /** Checks the floors of these holds, raises them, and does the work, all in one transaction. */
  #guarded<Result>(holds: readonly Hold[], work: () => Result): Result {
    holds.forEach(look); // before anything is sent
    try {
      return this.#immediate(() => {
        for (const hold of holds) this.#guard(hold);
        return work();
      });
    } catch (error) {
      if (FenceError.is(error, "UNREACHABLE")) holds.forEach(look); // who waited until its hold was over is told that
      throw error;
    }
  }

  #guard(hold: Hold): void {
    const token = look(hold); // again: it may have waited for the write lock
    const floor = this.#floor(hold.resource);
    if (floor > token) throw stale(hold.resource, token, floor);
    // A bigint: the driver binds every number as a real.
    if (hold.raises && floor < token) this.#statements.raise.run(hold.resource, BigInt(token));
  }

  #floor(resource: string): number {
    const row = this.#statements.floor.get(resource) as { readonly token: unknown } | undefined;
    return row === undefined ? 0 : readToken(row.token);
  }

  get #statements(): Prepared {
    this.#prepared ??= this.#prepare();
    return this.#prepared;
  }

  #prepare(): Prepared {
    try {
      return {
        floor: this.#db.prepare(`select token from "${this.#table}" where resource = ?`),
        raise: this.#db.prepare(
          `insert into "${this.#table}" (resource, token) values (?, ?) on conflict do update set token = excluded.token`,
        ),
        reset: this.#db.prepare(`delete from "${this.#table}" where resource = ?`),
      };
    } catch (error) {
      const exists = this.#db.prepare("select 1 from sqlite_master where name = ?").get(this.#table) !== undefined;
      if (exists) throw error;
      throw invalid(`there is no table ${this.#table} in this database: call migrate() first`);
    }
  }

  #immediate<Result>(work: () => Result): Result {
    if (this.#db.inTransaction) {
      throw invalid("a transaction is open on this database: the fence begins its own, before anything is read");
    }
    this.#send(this.#begin);
    try {
      const result = work();
      if (!this.#db.inTransaction) {
        throw invalid("the transaction was ended inside the callback: by a statement of its own, or by an error");
      }
      this.#send(this.#commit);
      return result;
    } catch (error) {
      this.#rollBack();
      throw error;
    }
  }

  /** Begins or commits. Busy: nothing is written then. A disk that failed in a commit: nobody knows. */
  #send(statement: SqliteStatement): void {
    try {
      statement.run();
    } catch (error) {
      const code = codeOf(error);
      if (code.startsWith("SQLITE_BUSY")) {
        const message = "the database stayed busy for the whole busy timeout: another process is inside a transaction";
        throw new FenceError("UNREACHABLE", message, { cause: error });
      }
      if (statement === this.#commit && code.startsWith("SQLITE_IOERR")) {
        throw new FenceError("OUTCOME_UNKNOWN", "the disk failed in the commit", { cause: error });
      }
      throw error;
    }
  }

  #rollBack(): void {
    if (!this.#db.inTransaction) return; // SQLite has done it itself, as for a full disk
    try {
      this.#rollback.run();
    } catch {
      // What went wrong first is worth more. SQLite rolls back what is left when the file is opened the next time.
    }
  }
}

const isSeveral = (lock: Fenced | readonly Fenced[]): lock is readonly Fenced[] => Array.isArray(lock);

/** Throws LOST when it is over. */
const look = (hold: Hold): number => hold.token;

function isThenable(value: unknown): boolean {
  return typeof (value as { readonly then?: unknown } | null | undefined)?.then === "function";
}

/**
 * The fence of a SQLite database. `db`: a `Database` of better-sqlite3; all processes that write what is fenced use the
 * same file. Throws INVALID for wrong options.
 *
 * @example
 * const fence = sqliteFence(new Database("orders.db", { timeout: 2_000 }));
 * fence.migrate();
 * await client.withLock("orders/42", (lock) => {
 *   fence.tx(lock, (db) => db.prepare("update orders set state = 'paid' where id = 42").run());
 * });
 */
export function sqliteFence<Database extends SqliteDatabase>(
  db: Database,
  options: SqliteFenceOptions = {},
): SqliteFence<Database> {
  checkKeys(options, OPTION_KEYS, "the options of sqliteFence");
  if (typeof db?.prepare !== "function") throw invalid(`a database of better-sqlite3 is needed, not ${show(db)}`);
  return new SqliteFence(db, checkTable(options.table ?? "leasehold_fence"));
}

/**
 * An optimistic update: changes one row if it still has the version that was read. Returns its new version. Throws
 * CONFLICT, NOT_FOUND, or INVALID, and has written nothing then.
 *
 * @example
 * await retryOnConflict(() => {
 *   const { seats, version } = db.prepare("select seats, version from shows where id = 7").get();
 *   updateVersioned(db, { table: "shows", where: { id: 7 }, set: { seats: seats - 1 }, version });
 * });
 */
export function updateVersioned(db: SqliteDatabase, update: VersionedUpdate): number {
  return rowsOf(db).updateVersioned(update);
}
