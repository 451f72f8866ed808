/**
 * Optimistic updates: no lock, a version column. What was read is written back only if it is still what was read:
 *
 *     writer 1 reads 41, version 7            writer 2 reads 41, version 7
 *     set 42 where version = 7: version 8
 *                                             set 42 where version = 7: no row; CONFLICT, read again
 *
 * For short read-modify-writes of one row with few writers it is cheaper than a lock. It protects the row that carries the
 * version and nothing else; and who loses has done its work in vain.
 */
import { FenceError, invalid, show } from "../errors.js";
import { checkKeys, checkWhole, TOKEN_MAX } from "../token.js";
import { type Columns, type Dialect, type GuardedWrite, guardedUpdate, judgeRow } from "./rows.js";

/** An update of a row that was read before. */
export interface VersionedUpdate {
  /** `table` or `schema.table`, upper and lower case as the database has them. */
  readonly table: string;
  /** The columns that name the row. It must match one row at most. */
  readonly where: Columns;
  /** The new values. The version is set by the update. */
  readonly set: Columns;
  /** The version that was read: a whole number, or its digits, as drivers give 64-bit integers. */
  readonly version: number | string | bigint;
  /** The column with the version, `bigint not null default 0`. Default: `version`. */
  readonly versionColumn?: string | undefined;
}

const UPDATE_KEYS = ["table", "where", "set", "version", "versionColumn"];

/** An update that takes effect only on the version that was read, and the version that the row has then. */
export function versionedUpdate(dialect: Dialect, update: VersionedUpdate): GuardedWrite & { readonly next: number } {
  checkKeys(update, UPDATE_KEYS, "a versioned update");
  const { table, where, set } = update;
  const column = update.versionColumn ?? "version";
  const version = readVersion(update.version);
  const next = version + 1;
  const statements = guardedUpdate(dialect, { table, where, set }, { column, operator: "=", value: version, next });
  const judge = (seen: readonly unknown[]) => judgeRow(seen, table, column) ?? conflict(table, version, seen[0]);
  return { ...statements, judge, next };
}

/** The version that was read. The highest one is left out: there must be a next one. */
function readVersion(version: unknown): number {
  const digits = typeof version === "string" && /^\d{1,16}$/.test(version);
  const number = digits || typeof version === "bigint" ? Number(version) : version;
  return checkWhole(number, "the version", 0, TOKEN_MAX - 1);
}

function conflict(table: string, version: number, seen: unknown): FenceError {
  const message = `the row in ${show(table)} has the version ${show(seen)}, not ${version} any more; nothing was written`;
  return new FenceError("CONFLICT", message);
}

/** How often and how fast to try again. */
export interface RetryOptions {
  /** How many times to try altogether, 1 to 1,000. Default: 10. */
  readonly attempts?: number | undefined;
  /** Before the second attempt: a random time up to this, in milliseconds; it doubles with each. Default: 10. */
  readonly delayMs?: number | undefined;
  /** The longest such time, in milliseconds. Default: 1,000. */
  readonly delayMsMax?: number | undefined;
  /** Aborting it ends the waiting for the next attempt; the promise rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
}

const RETRY_KEYS = ["attempts", "delayMs", "delayMsMax", "signal"];
const ATTEMPTS_MAX = 1_000;
const DELAY_MS_MAX = 60_000;

/**
 * Runs a read-modify-write again for as long as it ends with CONFLICT, after a random time, so that those who collided do
 * not collide again. Every other error passes at once; after the last attempt the CONFLICT does. Rejects INVALID for
 * wrong options, before the first attempt.
 *
 * @param fn gets the number of the attempt, from 1; it must read anew each time
 * @example
 * await retryOnConflict(async () => {
 *   const { rows } = await pool.query("select seats, version from shows where id = 7");
 *   const { seats, version } = rows[0];
 *   await updateVersioned(pool, { table: "shows", where: { id: 7 }, set: { seats: seats - 1 }, version });
 * });
 */
export async function retryOnConflict<T>(
  fn: (attempt: number) => T | Promise<T>,
  options: RetryOptions = {},
): Promise<T> {
  checkKeys(options, RETRY_KEYS, "the options of retryOnConflict");
  if (typeof fn !== "function") throw invalid(`a function is needed, not ${show(fn)}`);
  const attempts = checkWhole(options.attempts ?? 10, "attempts", 1, ATTEMPTS_MAX);
  const delayMsMax = checkWhole(options.delayMsMax ?? 1_000, "delayMsMax", 0, DELAY_MS_MAX);
  let delayMs = checkWhole(options.delayMs ?? 10, "delayMs", 0, DELAY_MS_MAX);
  for (let attempt = 1; ; attempt++) {
    options.signal?.throwIfAborted();
    try {
      return await fn(attempt);
    } catch (error) {
      if (attempt >= attempts || !FenceError.is(error, "CONFLICT")) throw error;
    }
    await delay(Math.random() * Math.min(delayMs, delayMsMax), options.signal);
    delayMs *= 2;
  }
}

/** A wait that ends early, by a rejection with the signal's reason, when that is aborted. */
function delay(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }, ms);
    signal?.addEventListener("abort", aborted, { once: true });
  });
}
