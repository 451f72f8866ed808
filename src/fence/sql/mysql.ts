/**
 * The fence in MySQL and MariaDB, for the driver `mysql2/promise`. Two styles:
 *
 * - `tx`: any statements in a transaction, checked against a table of floors. See mysql-transaction.ts.
 * - `updateRow`: one row that carries the token itself, no table and no transaction. See rows.ts and mysql-rows.ts.
 */
import { FenceError, invalid, show } from "../errors.js";
import type { Fence, Floor } from "../fence.js";
import { type Fenced, type Hold, holdOf, holdsOf } from "../hold.js";
import { RaisedFloors } from "../raised.js";
import { checkKeys, checkResource, checkWhole, readToken } from "../token.js";
import { Connection } from "./mysql-connection.js";
import { firstValues, type MysqlAnswer, type MysqlConnection, type MysqlDb, type MysqlPool } from "./mysql-driver.js";
import { explainStart } from "./mysql-refusals.js";
import { checkOneRow, checkValues, mysql, rowsOf, shareKeys } from "./mysql-rows.js";
import { bytesOf, checkTable, inventoryOf, migrationOf, nameOf } from "./mysql-schema.js";
import { type MysqlIsolation, type MysqlTx, type Place, raiseFloors, transact } from "./mysql-transaction.js";
import { heldOf } from "./postgres-limits.js";
import { type RowInsert, type RowKey, type RowUpdate, rowInsert, rowRaise, rowUpdate, runGuarded } from "./rows.js";
import { type VersionedUpdate, versionedUpdate } from "./versioned.js";

export { assertWritten, type Columns, type RowInsert, type RowKey, type RowUpdate, type Written } from "./rows.js";
export { type RetryOptions, retryOnConflict, type VersionedUpdate } from "./versioned.js";
export type { MysqlAnswer, MysqlConnection, MysqlDb, MysqlIsolation, MysqlPool, MysqlTx };

export interface MysqlFenceOptions {
  /** The database of the table of floors. Default: the one that the pool's connections have chosen. */
  readonly database?: string | undefined;
  /** The table of floors, `a-z`, `0-9` and `_`; its procedures begin with its name. Default: `leasehold_fence`. */
  readonly table?: string | undefined;
  /**
   * Stands for the rest of the hold, in milliseconds, if nobody has said it (a claim without `remainingMs`): half of it for
   * a statement, a quarter for a pause, which is at least a second. 2,000 to 86,400,000. Default: 5,000.
   */
  readonly limitMs?: number | undefined;
}

export interface TxOptions {
  /** Default: the session's own. */
  readonly isolation?: MysqlIsolation | undefined;
}

const OPTION_KEYS = ["database", "table", "limitMs"];
const TX_KEYS = ["isolation"];
const ISOLATIONS = ["read committed", "repeatable read", "serializable"];
/** As many as `acquireAll` takes at once. */
const LOCKS_MAX = 64;
const DAY_MS = 86_400_000;
/** For what an administrator does. */
const ADMIN_MS = 60_000;

/**
 * Makes a fence on a pool of `mysql2/promise`. Nothing is sent before it is used. Throws INVALID for wrong options.
 *
 * @example
 * const fence = mysqlFence(createPool(url));
 * await fence.migrate(); // once, by who may create tables, triggers and procedures
 *
 * await client.withLock("orders/42", { fence }, async (lock) => {
 *   await fence.tx(lock, async (tx) => {
 *     const [rows] = await tx.query("select total from orders where id = ?", [42]);
 *     await tx.query("update orders set total = ? where id = ?", [rows[0].total + 7, 42]);
 *   });
 * });
 */
export function mysqlFence<Client extends MysqlConnection = MysqlConnection>(
  pool: MysqlPool<Client>,
  options: MysqlFenceOptions = {},
): MysqlFence<Client> {
  return new MysqlFence(pool, options);
}

/** What `mysqlFence` makes. */
class MysqlFence<Client extends MysqlConnection = MysqlConnection> implements Fence {
  readonly #place: Place<Client>;

  constructor(pool: MysqlPool<Client>, options: MysqlFenceOptions) {
    checkKeys(options, OPTION_KEYS, "the options of mysqlFence");
    if (typeof pool?.getConnection !== "function" || typeof pool.query !== "function") {
      throw invalid(`a pool of the driver mysql2/promise is needed, not ${show(pool)}`);
    }
    const { database, table = "leasehold_fence", limitMs = 5_000 } = options;
    this.#place = {
      pool,
      at: checkTable({ database, table }),
      raised: new RaisedFloors(),
      limitMs: checkWhole(limitMs, "limitMs", 2_000, DAY_MS),
    };
  }

  /**
   * Makes the table of floors and its procedures, or brings them up to date; floors stay. Several processes may do it at
   * once. It needs the privileges to create, create routine, alter routine and trigger. Rejects DENIED, UNREACHABLE, and with the driver's errors.
   */
  async migrate(): Promise<void> {
    const { at } = this.#place;
    await this.#asAdmin(async (ask) => {
      if (firstValues(await ask("select get_lock('leasehold_fence', 50) as got"))[0] !== 1) {
        throw new FenceError("UNREACHABLE", "somebody else has been at the table of floors for too long");
      }
      const inventory = inventoryOf(at);
      const [found] = firstValues(await ask(inventory.text, inventory.values));
      if (Number(found) !== inventory.complete) for (const text of migrationOf(at)) await ask(text);
    }, "do release_lock('leasehold_fence')");
  }

  /**
   * Raises the floor to the token of a lock, or the floors of all its permits, in one committed step; a shared hold is only
   * checked. Rejects STALE_TOKEN, LOST, INVALID, DENIED; UNREACHABLE when the database does not do it in time.
   */
  async raise(lock: Fenced): Promise<void> {
    const held = inOrder(holdsOf(lock)).map(heldOf);
    await raiseFloors(this.#place, held);
  }

  /**
   * Runs a function in a transaction that commits only if no higher token has been seen for the lock; several locks at
   * once, if several are given. As many round trips as without a fence.
   * A hold that ends in less than 1.5 seconds is too short.
   *
   * Resolves with the function's result, once it is committed. Rejects with what the function throws; else STALE_TOKEN and
   * LOST (nothing was written), OUTCOME_UNKNOWN when the connection breaks during the commit, UNREACHABLE when there is no
   * connection, INVALID, DENIED, and with the driver's errors.
   *
   * @example
   * const total = await fence.tx(lock, async (tx) => {
   *   await tx.query("update orders set total = total + 7 where id = 42");
   *   const [rows] = await tx.query("select total from orders where id = 42");
   *   return rows[0].total;
   * }, { isolation: "read committed" });
   */
  async tx<T>(
    lock: Fenced | readonly Fenced[],
    fn: (tx: MysqlTx<Client>) => T | Promise<T>,
    options: TxOptions = {},
  ): Promise<T> {
    checkKeys(options, TX_KEYS, "the options of tx");
    const { isolation } = options;
    if (isolation !== undefined && !ISOLATIONS.includes(isolation)) {
      throw invalid(`isolation must be one of ${ISOLATIONS.join(", ")}, not ${show(isolation)}`);
    }
    if (typeof fn !== "function") throw invalid(`a function is needed, not ${show(fn)}`);
    const locks = isSeveral(lock) ? lock : [lock];
    if (locks.length < 1 || locks.length > LOCKS_MAX) throw invalid(`1 to ${LOCKS_MAX} locks, not ${locks.length}`);
    const within = (tx: MysqlTx<Client>) => {
      shareKeys(this.#place.pool, tx);
      return fn(tx);
    };
    return transact(this.#place, inOrder(locks.map(holdOf)).map(heldOf), within, isolation);
  }

  /**
   * Updates the one row that `where` names, unless it has seen a higher token. One statement, one round trip, and
   * once for each table one more. A shared hold leaves the token in the row as it is. Rejects STALE_TOKEN; NOT_FOUND when
   * there is no such row; INVALID, also when `where` has no unique key of the table, or the column is null; LOST; and with
   * the driver's errors. In all of these nothing was written.
   *
   * @param db the pool of the fence, or a transaction
   * @example
   * await fence.updateRow(lock, { table: "orders", set: { state: "paid" }, where: { id: 42 } });
   */
  async updateRow(lock: Fenced, update: RowUpdate, db: MysqlDb = this.#place.pool): Promise<void> {
    const guarded = rowUpdate(mysql, holdOf(lock), update);
    checkValues(update.set);
    await checkOneRow(db, update.table, update.where, this.#place.pool);
    await runGuarded(rowsOf(db), guarded, update.table);
  }

  /**
   * Sets the token of a row and nothing else: the floor at the grant, before the row is read. A shared hold is only checked.
   * Rejects as `updateRow` does.
   *
   * @example
   * await fence.raiseRow(lock, { table: "orders", where: { id: 42 } });
   */
  async raiseRow(lock: Fenced, row: RowKey, db: MysqlDb = this.#place.pool): Promise<void> {
    const guarded = rowRaise(mysql, holdOf(lock), row);
    await checkOneRow(db, row.table, row.where, this.#place.pool);
    await runGuarded(rowsOf(db), guarded, row.table);
  }

  /**
   * Inserts a row with the token of the lock, so that it is guarded from its beginning. Rejects LOST, INVALID, and with the
   * driver's errors, such as ER_DUP_ENTRY when there is one with that key.
   *
   * A stale holder can insert what its successor has deleted: the row is gone, and its token with it. If rows are deleted,
   * mark them as deleted, or use `tx`.
   */
  async insertRow(lock: Fenced, insert: RowInsert, db: MysqlDb = this.#place.pool): Promise<void> {
    const { text, values } = rowInsert(mysql, holdOf(lock), insert);
    checkValues(insert.values);
    await db.query(text, [...values]);
  }

  /** The floor of a resource: `name` of a lock, or `name#slot`. Rejects INVALID, DENIED, UNREACHABLE. */
  async inspect(resource: string): Promise<Floor> {
    const bytes = bytesOf(checkResource(resource));
    const text = `select cast(token as char) as floor from ${nameOf(this.#place.at)} where resource = ${bytes}`;
    const [floor] = firstValues(await this.#asAdmin((ask) => ask(text)));
    return { resource, floor: readToken(floor ?? 0) };
  }

  /** Forgets the floor of a resource. It needs the privilege to delete. Rejects INVALID, DENIED, UNREACHABLE. */
  async reset(resource: string): Promise<void> {
    const bytes = bytesOf(checkResource(resource));
    await this.#asAdmin((ask) => ask(`delete from ${nameOf(this.#place.at)} where resource = ${bytes}`));
    this.#place.raised.forget(resource);
  }

  /** Runs statements on one connection, also on one that does not commit by itself. */
  async #asAdmin<T>(
    job: (ask: (text: string, values?: unknown[]) => Promise<MysqlAnswer>) => Promise<T>,
    last = "commit",
  ): Promise<T> {
    const connection = await Connection.open(this.#place.pool, ADMIN_MS);
    try {
      connection.begun(last === "commit" ? "rollback" : last);
      const ask = (text: string, values?: unknown[]) => connection.ask(text, values, ADMIN_MS);
      await ask("start transaction");
      const result = await job(ask);
      await ask(last);
      connection.ended();
      return result;
    } catch (error) {
      await connection.rollback();
      throw explainStart(error, [], this.#place.at);
    } finally {
      connection.release();
    }
  }
}

export type { MysqlFence };

const isSeveral = (lock: Fenced | readonly Fenced[]): lock is readonly Fenced[] => Array.isArray(lock);

/** Everybody locks floors in this order, so that nobody waits for one who waits for him. */
function inOrder(holds: readonly Hold[]): readonly Hold[] {
  return [...holds].sort((a, b) => (a.resource < b.resource ? -1 : a.resource > b.resource ? 1 : 0));
}

/**
 * Writes a row back if it still has the version that was read, and gives it the next one. Resolves with that. Rejects
 * CONFLICT when it has another version, NOT_FOUND, INVALID, and with the driver's errors; in all of these nothing was
 * written.
 *
 * @param db a pool, a client, or a transaction
 * @example
 * const next = await updateVersioned(pool, { table: "shows", where: { id: 7 }, set: { seats: 12 }, version: 3 });
 */
export async function updateVersioned(db: MysqlDb, update: VersionedUpdate): Promise<number> {
  const guarded = versionedUpdate(mysql, update);
  checkValues(update.set);
  await checkOneRow(db, update.table, update.where);
  await runGuarded(rowsOf(db), guarded, update.table);
  return guarded.next;
}
