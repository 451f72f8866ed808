/**
 * The fence in PostgreSQL, for the driver `pg`. Two styles:
 *
 * - `tx`: any statements in a transaction, checked against a table of floors. See postgres-transaction.ts.
 * - `updateRow`: one row that carries the token itself, no table and no transaction. See rows.ts.
 */
import { invalid, show } from "../errors.js";
import type { Fence, Floor } from "../fence.js";
import { type Fenced, type Hold, holdOf, holdsOf } from "../hold.js";
import { RaisedFloors } from "../raised.js";
import { checkKeys, checkResource, checkWhole, readToken } from "../token.js";
import { Connection } from "./postgres-connection.js";
import type { PostgresClient, PostgresDb, PostgresPool, PostgresResult } from "./postgres-driver.js";
import { heldOf } from "./postgres-limits.js";
import { explainStart } from "./postgres-refusals.js";
import { checkTable, migrationOf, nameOf } from "./postgres-schema.js";
import { Sessions } from "./postgres-session.js";
import { type Place, type PostgresIsolation, type PostgresTx, raiseFloors, transact } from "./postgres-transaction.js";
import {
  type Dialect,
  type RowInsert,
  type RowKey,
  type RowRunner,
  type RowUpdate,
  rowInsert,
  rowRaise,
  rowUpdate,
  runGuarded,
} from "./rows.js";
import { type VersionedUpdate, versionedUpdate } from "./versioned.js";

export { assertWritten, type Columns, type RowInsert, type RowKey, type RowUpdate, type Written } from "./rows.js";
export { type RetryOptions, retryOnConflict, type VersionedUpdate } from "./versioned.js";
export type { PostgresClient, PostgresDb, PostgresIsolation, PostgresPool, PostgresResult, PostgresTx };

export interface PostgresFenceOptions {
  /** The schema of the table of floors, `a-z`, `0-9` and `_`. Default: `public`. */
  readonly schema?: string | undefined;
  /** The table of floors; its functions begin with its name. Default: `leasehold_fence`. */
  readonly table?: string | undefined;
  /**
   * Stands for the rest of the hold, in milliseconds, if nobody has said it (a claim without `remainingMs`): half of it for
   * a statement, a quarter for a pause. 200 to 86,400,000. Default: 5,000.
   */
  readonly limitMs?: number | undefined;
}

export interface TxOptions {
  /** Default: the database's own. */
  readonly isolation?: PostgresIsolation | undefined;
}

const OPTION_KEYS = ["schema", "table", "limitMs"];
const TX_KEYS = ["isolation"];
const ISOLATIONS = ["read committed", "repeatable read", "serializable"];
/** As many as `acquireAll` takes at once. */
const LOCKS_MAX = 64;
const DAY_MS = 86_400_000;
/** For what an administrator does. */
const ADMIN_MS = 60_000;

const dialect: Dialect = {
  quote: (identifier) => `"${identifier.replaceAll('"', '""')}"`,
  placeholder: (position) => `$${position}`,
  whole: (value) => String(value),
  asText: (column) => `${column}::text`,
  countsInUpdate: true,
};

const rowsOf = (db: PostgresDb): RowRunner => ({
  changed: async ({ text, values }) => (await db.query(text, [...values])).rowCount ?? 0,
  seen: async ({ text, values }) => (await db.query(text, [...values])).rows.map((row) => row.seen),
});

/**
 * Makes a fence on a pool of `pg`. Nothing is sent before it is used. Throws INVALID for wrong options.
 *
 * @example
 * const fence = postgresFence(new pg.Pool());
 * await fence.migrate(); // once, by the owner of the schema
 *
 * await client.withLock("orders/42", { fence }, async (lock) => {
 *   await fence.tx(lock, async (tx) => {
 *     const { rows } = await tx.query("select total from orders where id = $1", [42]);
 *     await tx.query("update orders set total = $2 where id = $1", [42, rows[0].total + 7]);
 *   });
 * });
 */
export function postgresFence<Client extends PostgresClient = PostgresClient>(
  pool: PostgresPool<Client>,
  options: PostgresFenceOptions = {},
): PostgresFence<Client> {
  return new PostgresFence(pool, options);
}

/** What `postgresFence` makes. */
class PostgresFence<Client extends PostgresClient = PostgresClient> implements Fence {
  readonly #place: Place<Client>;

  constructor(pool: PostgresPool<Client>, options: PostgresFenceOptions) {
    checkKeys(options, OPTION_KEYS, "the options of postgresFence");
    if (typeof pool?.connect !== "function" || typeof pool.query !== "function") {
      throw invalid(`a pool of the driver pg is needed, not ${show(pool)}`);
    }
    const { schema = "public", table = "leasehold_fence", limitMs = 5_000 } = options;
    this.#place = {
      pool,
      at: checkTable({ schema, table }),
      raised: new RaisedFloors(),
      sessions: new Sessions(),
      limitMs: checkWhole(limitMs, "limitMs", 200, DAY_MS),
    };
  }

  /**
   * Makes the table of floors and its functions, or brings them up to date; floors stay. Several processes may do it at
   * once. It needs the rights of the schema's owner. Rejects DENIED, UNREACHABLE, and with the driver's errors.
   */
  async migrate(): Promise<void> {
    await this.#asAdmin(migrationOf(this.#place.at), undefined);
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
   *
   * Resolves with the function's result, once it is committed. Rejects with what the function throws; else STALE_TOKEN and
   * LOST (nothing was written), OUTCOME_UNKNOWN when the connection breaks during the commit, UNREACHABLE when there is no
   * connection, INVALID, DENIED, and with the driver's errors.
   *
   * @example
   * const total = await fence.tx(lock, async (tx) => {
   *   const { rows } = await tx.query("update orders set total = total + 7 where id = 42 returning total");
   *   return rows[0].total;
   * }, { isolation: "repeatable read" });
   */
  async tx<T>(
    lock: Fenced | readonly Fenced[],
    fn: (tx: PostgresTx<Client>) => T | Promise<T>,
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
    return transact(this.#place, inOrder(locks.map(holdOf)).map(heldOf), fn, isolation);
  }

  /**
   * Updates the one row that `where` names, unless it has seen a higher token. One statement, one round trip. A shared hold
   * leaves the token in the row as it is. Rejects STALE_TOKEN; NOT_FOUND when there is no such row; INVALID, also when
   * there are several, or the column is null; LOST; and with the driver's errors. In all of these nothing was written.
   *
   * @param db the pool of the fence, or a transaction
   * @example
   * await fence.updateRow(lock, { table: "orders", set: { state: "paid" }, where: { id: 42 } });
   */
  async updateRow(lock: Fenced, update: RowUpdate, db: PostgresDb = this.#place.pool): Promise<void> {
    await runGuarded(rowsOf(db), rowUpdate(dialect, holdOf(lock), update), update.table);
  }

  /**
   * Sets the token of a row and nothing else: the floor at the grant, before the row is read. A shared hold is only checked.
   * Rejects as `updateRow` does.
   *
   * @example
   * await fence.raiseRow(lock, { table: "orders", where: { id: 42 } });
   */
  async raiseRow(lock: Fenced, row: RowKey, db: PostgresDb = this.#place.pool): Promise<void> {
    await runGuarded(rowsOf(db), rowRaise(dialect, holdOf(lock), row), row.table);
  }

  /**
   * Inserts a row with the token of the lock, so that it is guarded from its beginning. Rejects LOST, INVALID, and with the
   * driver's errors, such as 23505 when there is one with that key.
   *
   * A stale holder can insert what its successor has deleted: the row is gone, and its token with it. If rows are deleted,
   * mark them as deleted, or use `tx`.
   */
  async insertRow(lock: Fenced, insert: RowInsert, db: PostgresDb = this.#place.pool): Promise<void> {
    const { text, values } = rowInsert(dialect, holdOf(lock), insert);
    await db.query(text, [...values]);
  }

  /** The floor of a resource: `name` of a lock, or `name#slot`. Rejects INVALID, DENIED, UNREACHABLE. */
  async inspect(resource: string): Promise<Floor> {
    const text = `select token::text as floor from ${nameOf(this.#place.at)} where resource = $1`;
    const { rows } = await this.#asAdmin(text, [checkResource(resource)]);
    return { resource, floor: readToken(rows[0]?.floor ?? 0) };
  }

  /** Forgets the floor of a resource. It needs the privilege to delete. Rejects INVALID, DENIED, UNREACHABLE. */
  async reset(resource: string): Promise<void> {
    await this.#asAdmin(`delete from ${nameOf(this.#place.at)} where resource = $1`, [checkResource(resource)]);
    this.#place.raised.forget(resource);
  }

  async #asAdmin(text: string, values: unknown[] | undefined): Promise<PostgresResult> {
    const connection = await Connection.open(this.#place.pool, ADMIN_MS);
    try {
      connection.begun(); // the migration may fail in its own
      const result = await connection.ask(text, values, ADMIN_MS);
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

export type { PostgresFence };

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
export async function updateVersioned(db: PostgresDb, update: VersionedUpdate): Promise<number> {
  const guarded = versionedUpdate(dialect, update);
  await runGuarded(rowsOf(db), guarded, update.table);
  return guarded.next;
}
