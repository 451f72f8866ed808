/**
 * High-water marks in PostgreSQL: a row for each consumer and key. See high-water.ts for what they are for.
 *
 * One statement does it: an upsert that is guarded by the order of (token, sequence). It locks the row, so of two
 * consumers that both handle a message one waits for the other's commit, and then finds the mark in its way. (At the
 * isolation levels above the default it fails with a serialization error instead, and is tried again.)
 */
import { FenceError, invalid, show } from "../errors.js";
import { checkKeys, checkResource, readToken } from "../token.js";
import type { HighWater, Mark } from "./high-water.js";

/** What is used of a `Pool` or a `Client` of `pg`, and of anything else that runs SQL with `$1` for parameters. */
export interface MarkQueries {
  query(text: string, values?: unknown[]): Promise<{ readonly rows: readonly unknown[] }>;
}

export interface PostgresHighWaterOptions {
  /**
   * Names the consumer whose marks these are: each one that reads the same messages for another purpose has its own.
   */
  readonly consumer: string;
  /** The table, with its schema if that is not in the search path. Default: `leasehold_high_water`. */
  readonly table?: string | undefined;
}

const TABLE = /^[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?$/;
/** Any number, the same for everybody: two migrations at once would both find that there is no table. */
const MIGRATION_LOCK = 7_420_633;

/** Made by `postgresHighWater`. */
export class PostgresHighWater implements HighWater<MarkQueries> {
  readonly #pool: MarkQueries;
  readonly #consumer: string;
  readonly #table: string;

  /** Use `postgresHighWater`. */
  constructor(pool: MarkQueries, options: PostgresHighWaterOptions) {
    checkKeys(options, ["consumer", "table"], "the options of postgresHighWater");
    const { consumer, table = "leasehold_high_water" } = options;
    if (typeof table !== "string" || !TABLE.test(table)) {
      throw invalid(`the table must be lower case letters, digits and underscores, not ${show(table)}`);
    }
    this.#pool = pool;
    this.#consumer = checkResource(consumer);
    this.#table = table;
  }

  /** Makes the table if there is none. */
  async migrate(): Promise<void> {
    await this.#pool.query(`
      do $$ begin
        perform pg_advisory_xact_lock(${MIGRATION_LOCK});
        create table if not exists ${this.#table} (
          consumer text not null,
          resource text not null,
          token bigint not null check (token between 0 and 9007199254740991),
          sequence bigint not null check (sequence between 0 and 9007199254740991),
          primary key (consumer, resource)
        );
      end $$`);
  }

  async load(key: string): Promise<Mark | undefined> {
    return this.#read(this.#pool, key, "");
  }

  async save(key: string, { token, sequence }: Mark, tx: MarkQueries = this.#pool): Promise<Mark | undefined> {
    const { rows } = await tx.query(
      `insert into ${this.#table} as mark (consumer, resource, token, sequence) values ($1, $2, $3, $4)
       on conflict (consumer, resource) do update set token = excluded.token, sequence = excluded.sequence
       where (mark.token, mark.sequence) < (excluded.token, excluded.sequence)
       returning 1`,
      [this.#consumer, key, token, sequence],
    );
    if (rows.length > 0) return undefined;
    const mark = await this.#read(tx, key, "");
    if (mark) return mark;
    // It was in the way a moment ago, and has been reset since. Nothing is known: the handler is to try again.
    throw new FenceError("CONFLICT", `the mark of ${JSON.stringify(key)} was reset meanwhile`, {
      resource: key,
      token,
    });
  }

  async check(key: string, token: number, tx: MarkQueries = this.#pool): Promise<Mark | undefined> {
    // There must be a row to lock: otherwise the first writer of all could slip in.
    await tx.query(
      `insert into ${this.#table} (consumer, resource, token, sequence) values ($1, $2, 0, 0) on conflict do nothing`,
      [this.#consumer, key],
    );
    const mark = await this.#read(tx, key, "for share");
    return mark && mark.token > token ? mark : undefined;
  }

  async #read(db: MarkQueries, key: string, lock: "" | "for share"): Promise<Mark | undefined> {
    const { rows } = await db.query(
      `select token::text, sequence::text from ${this.#table} where consumer = $1 and resource = $2 ${lock}`,
      [this.#consumer, key],
    );
    const row = rows[0] as { token: unknown; sequence: unknown } | undefined;
    return row && { token: readToken(row.token), sequence: readToken(row.sequence) };
  }

  async reset(key: string): Promise<void> {
    await this.#pool.query(`delete from ${this.#table} where consumer = $1 and resource = $2`, [this.#consumer, key]);
  }
}

/**
 * High-water marks in PostgreSQL. Throws INVALID for bad options. Run `migrate()` once, or make the table as it does.
 *
 * @example
 * const marks = postgresHighWater(pool, { consumer: "billing" });
 * await marks.migrate();
 */
export function postgresHighWater(pool: MarkQueries, options: PostgresHighWaterOptions): PostgresHighWater {
  return new PostgresHighWater(pool, options);
}
