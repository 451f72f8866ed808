/** What is used of the driver `mysql2/promise`, and what its errors say. */

/** What a statement resulted in: rows, or the head that says how many were changed; and what the driver says of columns. */
export type MysqlAnswer<Result = unknown> = [result: Result, fields: unknown];

/** Whatever runs statements: a pool, a connection, or the transaction that `tx` gives to its function. */
export interface MysqlDb {
  query(text: string, values?: unknown[]): Promise<MysqlAnswer>;
}

/** A connection out of a pool: a `PoolConnection` of `mysql2/promise` is one. */
export interface MysqlConnection extends MysqlDb {
  on(event: "error" | "end", listener: (error?: unknown) => void): unknown;
  removeListener(event: "error" | "end", listener: (error?: unknown) => void): unknown;
  /** Back into the pool. */
  release(): void;
  /** Out of the pool, and closed. */
  destroy(): void;
}

/** A pool as `createPool` of `mysql2/promise` makes it. */
export interface MysqlPool<Client extends MysqlConnection = MysqlConnection> extends MysqlDb {
  getConnection(): Promise<Client>;
}

/** The SQLSTATE of a refusal by the fence's procedures. */
export const STALE_STATE = "LH409";

/** Numbers of the server's errors that mean something here. */
export const ERRNO = {
  databaseDenied: 1044,
  noDatabaseChosen: 1046,
  noDatabase: 1049,
  recordChanged: 1020,
  tableDenied: 1142,
  noTable: 1146,
  lockTimeout: 1205,
  deadlock: 1213,
  privilegeNeeded: 1227,
  noProcedure: 1305,
  interrupted: 1317,
  procedureDenied: 1370,
  triggerDenied: 1419,
  connectionKilled: 1927,
  statementTimeout: 1969,
  executionTimeout: 3024, // MySQL's
  idleTimeout: 4031, // MySQL's
} as const;

interface ServerError {
  readonly errno: number;
  readonly sqlState: string;
  readonly sqlMessage?: unknown;
}

/** Only what the server has sent has an SQLSTATE; the driver's own errors have the numbers of the operating system. */
const isServerError = (error: unknown): error is ServerError =>
  typeof error === "object" &&
  error !== null &&
  "sqlState" in error &&
  typeof error.sqlState === "string" &&
  "errno" in error &&
  typeof error.errno === "number";

/** The number of an error that the server has sent; undefined for all others. */
export const errnoOf = (error: unknown): number | undefined => (isServerError(error) ? error.errno : undefined);

/** Whether the connection is gone after this error. It is unless the server has sent it, and not as its last words. */
export function endsConnection(error: unknown): boolean {
  if (!isServerError(error) || error.sqlState.startsWith("08")) return true;
  return error.errno === ERRNO.connectionKilled || error.errno === ERRNO.idleTimeout;
}

/** The floor that a procedure of the fence has put at the beginning of its refusal; undefined: it is none. */
export function readStale(error: unknown): number | undefined {
  if (!isServerError(error) || error.sqlState !== STALE_STATE) return undefined;
  const [, digits] = /^(\d{1,16}) /.exec(String(error.sqlMessage)) ?? [];
  return digits === undefined ? undefined : Number(digits);
}

/** The bit of the server's state that says: a transaction is open. */
const IN_TRANSACTION = 1;

/** The state that the server was in after a statement, as its last head says; rows alone do not say it. */
function stateAfter([result]: MysqlAnswer): number | undefined {
  const head: unknown = Array.isArray(result) ? result.at(-1) : result;
  const state = typeof head === "object" && head !== null && "serverStatus" in head ? head.serverStatus : undefined;
  return typeof state === "number" ? state : undefined;
}

/** Whether the server has said, with this answer, that no transaction is open any more. */
export const isOutside = (answer: MysqlAnswer): boolean =>
  ((stateAfter(answer) ?? IN_TRANSACTION) & IN_TRANSACTION) === 0;

/** The rows of an answer, each as its first value: also when the pool is set to give rows as arrays. */
export function firstValues([rows]: MysqlAnswer): unknown[] {
  if (!Array.isArray(rows)) return [];
  return rows.map((row: unknown) => (Array.isArray(row) ? row[0] : Object.values(row as object)[0]));
}

/**
 * How many rows a write has matched. `affectedRows` is that only if the pool has the flag FOUND_ROWS, which is the default;
 * the first number in the server's words always is.
 */
export function matchedRows([head]: MysqlAnswer): number {
  if (typeof head !== "object" || head === null) return 0;
  const [said] = ("info" in head && typeof head.info === "string" && /\d+/.exec(head.info)) || [];
  if (said !== undefined) return Number(said);
  return "affectedRows" in head && typeof head.affectedRows === "number" ? head.affectedRows : 0;
}
