/**
 * Causal sessions for PostgreSQL with streaming replicas: which position is taken, and what a replica is asked.
 *
 * **Which of the three positions of the primary's log?** Records are inserted, written, and flushed to disk, in this order;
 * replicas are sent what is flushed.
 *
 * - *Flushed* covers a commit that was waited for: with `synchronous_commit` on, COMMIT returns after its flush. And replicas
 *   reach it: it has been, or is being, sent. So it is taken where that setting is known for the transaction, read in the
 *   transaction's last breath, since `set local` counts.
 * - With `synchronous_commit = off`, COMMIT returns before the flush:
 *
 *       write, commit            -> done; the commit's record ends at 0/5000, flushed is 0/4000
 *       position taken: flushed  -> 0/4000
 *       replica at 0/4000        -> "applied", and does not show the write
 *
 *   *Inserted* covers it: the commit's record has been inserted. It is taken here, and wherever the setting is not known.
 *   It may also cover what other transactions have inserted since, which is flushed with the next commit or within some 200
 *   ms. If the read cannot wait so long it goes to the primary: late, and right.
 * - At the beginning of a page, *inserted* is behind the page's header, which is written with the next record only: on an
 *   idle primary no replica reaches it. So when nothing but those 24 bytes (no record that changes anything is so short) is
 *   not flushed, what is flushed is taken.
 *
 * **One round trip.** COMMIT and the question for the position go in one message, so a transaction has no more round trips
 * than without a session. When it fails, the error may come from either; see `#commit`.
 *
 * **A replica's timeline** is that of what it receives, if the user may see that (a member of `pg_read_all_stats`), else that
 * of its last checkpoint, which lags after a failover: the session then reads from the primary for some minutes.
 */
import { FenceError, invalid } from "../errors.js";
import { checkKeys } from "../token.js";
import type { PgPosition } from "./lsn.js";
import type { CausalOptions } from "./options.js";
import {
  firstRow,
  ignore,
  inserted,
  type PgClient,
  type PgPool,
  type PgState,
  PgSystem,
  STATE,
  stateOf,
} from "./postgres-server.js";
import { CausalSession } from "./session.js";
import { checkCausalOptions, Shared } from "./shared.js";
import type { Lent } from "./system.js";

export type { PgClient, PgPool } from "./postgres-server.js";

export interface PostgresCausalOptions<C extends PgClient> extends CausalOptions {
  /** Leads to the primary, after a failover to the new one. */
  readonly primary: PgPool<C>;
  /** Each leads to a replica, or to several (a load balancer): what is asked is the connection that then reads. */
  readonly replicas: readonly PgPool<C>[];
}

export interface PgWriteOptions {
  /**
   * Default: true, `work` runs in a transaction that is committed behind it. False: `work` is a single statement, or begins
   * and commits by itself; the position then costs a round trip.
   */
  readonly transaction?: boolean | undefined;
  /** Checked before the transaction and before its commit: the write then rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
}

const COMMIT = `select current_setting('synchronous_commit') as durability; commit; ${STATE}`;
/** "current transaction is aborted": an earlier statement failed. */
const ABORTED = "25P02";
/** Bad data, integrity, rollback, check option, `raise`: with these a COMMIT is refused, and no look at a position is. */
const REFUSED_COMMIT = /^(22|23|40|44|P0)/;

/** The session of a user or a request. `C`: the client that callbacks get. */
export class PostgresSession<C extends PgClient> extends CausalSession<C, PgState, PgPosition> {
  /**
   * Runs `work` on the primary, in a transaction that it commits, and takes the position after the commit. Rejects with what
   * `work` or the driver throws, and INVALID when `work` went on after a statement that had failed: nothing is committed
   * then. OUTCOME_UNKNOWN: the connection broke in the commit.
   *
   * @example
   * await session.write((db) => db.query("update orders set state = 'paid' where id = $1", [42]));
   */
  async write<T>(work: (db: C) => Promise<T>, options: PgWriteOptions = {}): Promise<T> {
    checkKeys(options, ["transaction", "signal"], "the options of a write");
    const { transaction = true, signal } = options;
    signal?.throwIfAborted();
    const lent = await this.system.primary.lend();
    try {
      signal?.throwIfAborted();
      const value = await (transaction ? this.#transact(lent.db, work, signal) : this.#write(lent.db, work));
      lent.release();
      return value;
    } catch (error) {
      await lent.failed();
      throw error;
    }
  }

  /**
   * Takes note that something was written to the primary elsewhere, and committed before this call: by a fence's transaction,
   * by another library. Never rejects: if the position cannot be had, the session reads from the primary until it can.
   */
  async noteWrite(): Promise<void> {
    this.doubt(); // reads that do not wait for this call are right, too
    const asked = this.asking();
    let lent: Lent<C> | undefined;
    try {
      lent = await this.system.primary.lend();
      await this.#take(lent.db, asked);
      lent.release();
    } catch {
      lent?.release(true);
    }
  }

  async #transact<T>(db: C, work: (db: C) => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    await db.query("begin");
    const value = await work(db);
    signal?.throwIfAborted();
    await this.#commit(db);
    return value;
  }

  async #commit(db: C): Promise<void> {
    const asked = this.asking();
    let results: unknown;
    try {
      results = await db.query(COMMIT);
    } catch (error) {
      throw this.#notCommitted(error);
    }
    const [durability, , state] = Array.isArray(results) ? results : [];
    try {
      const seen = stateOf(firstRow(state));
      const waitedFor = firstRow(durability).durability !== "off";
      this.record(waitedFor ? { ...inserted(seen), lsn: seen.flushed } : inserted(seen), asked);
    } catch {
      this.doubt(); // it is committed; what is not known is where
    }
  }

  /** Why the commit failed; if it is not certain that it has, everything that follows reads from the primary. */
  #notCommitted(error: unknown): unknown {
    const { code } = error as { readonly code?: unknown };
    if (code === ABORTED) {
      return invalid("a statement of the transaction has failed, and its error was not passed on: it is rolled back");
    }
    if (typeof code === "string" && code.length === 5 && REFUSED_COMMIT.test(code)) return error;
    this.doubt();
    return new FenceError("OUTCOME_UNKNOWN", "PostgreSQL did not confirm the commit", { cause: error });
  }

  /** Without a transaction: whatever fails, something may have been written. */
  async #write<T>(db: C, work: (db: C) => Promise<T>): Promise<T> {
    try {
      return await work(db);
    } finally {
      this.doubt();
      const asked = this.asking();
      await this.#take(db, asked).catch(ignore);
    }
  }

  async #take(db: C, asked: number): Promise<void> {
    const state = await this.system.primary.look(db);
    if (!state.standby) this.record(inserted(state), asked);
  }
}

/** Makes sessions. */
export interface PostgresCausal<C extends PgClient> {
  /** `position`: the value of the header `Causal-Position`, or what another session's `position` was. Throws INVALID. */
  session(position?: string): PostgresSession<C>;
}

/**
 * Reads from streaming replicas that never show less than what the session has written. Throws INVALID.
 *
 * @example
 * const causal = postgresCausal({ primary: new Pool({ host: "db" }), replicas: [new Pool({ host: "db-replica" })] });
 * const session = causal.session();
 * await session.write((db) => db.query("insert into notes (text) values ('hello')"));
 * const { rows } = await session.read((db) => db.query("select * from notes")); // shows it
 */
export function postgresCausal<C extends PgClient>(options: PostgresCausalOptions<C>): PostgresCausal<C> {
  checkCausalOptions(options);
  for (const pool of [options.primary, ...options.replicas]) {
    if (typeof pool?.connect !== "function") throw invalid("primary and replicas must be pools of the package pg");
  }
  const system = new PgSystem(options.primary, options.replicas);
  const shared = new Shared(system, options);
  return { session: (position) => new PostgresSession(shared, position) };
}
