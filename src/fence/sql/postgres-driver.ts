/** What is used of the driver `pg`, and what its errors say. */

/** What a statement resulted in. */
export interface PostgresResult<Row = Record<string, unknown>> {
  readonly rows: Row[];
  /** How many rows were returned or changed; null for statements that do neither. */
  readonly rowCount: number | null;
}

/** Whatever runs statements: a pool, a client, or the transaction that `tx` gives to its function. */
export interface PostgresDb {
  query(text: string, values?: unknown[]): Promise<PostgresResult>;
}

/** A connection out of a pool: a `PoolClient` of `pg` is one. */
export interface PostgresClient extends PostgresDb {
  on(event: "error", listener: (error: Error) => void): unknown;
  removeListener(event: "error", listener: (error: Error) => void): unknown;
  /** Back into the pool, or out of it if there is something wrong with it. */
  release(error?: Error | boolean): void;
}

/** A `Pool` of `pg`. */
export interface PostgresPool<Client extends PostgresClient = PostgresClient> extends PostgresDb {
  connect(): Promise<Client>;
}

/** SQLSTATEs that mean something here; those of the fence are raised by its functions. */
export const SQLSTATE = {
  stale: "LH409",
  idleInTransaction: "25P03",
  lockTimeout: "55P03",
  queryCanceled: "57014",
  serialization: "40001",
  deadlock: "40P01",
  noFunction: "42883",
  noTable: "42P01",
  noSchema: "3F000",
  denied: "42501",
} as const;

/**
 * The SQLSTATE of an error that the server has sent; undefined for all others. (A Node error's code, such as `EPIPE`, may
 * look like one, but only the server's errors have a severity.)
 */
export function sqlStateOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("severity" in error) || !("code" in error)) return undefined;
  return typeof error.code === "string" && error.code.length === 5 ? error.code : undefined;
}

/**
 * Whether the connection is gone after this error. It is unless the server has sent it, and not as its last words: class
 * 08, an end by an administrator or a crash (57P01 to 57P05), or by a time limit (25P03, 25P04).
 */
export function endsConnection(error: unknown): boolean {
  const state = sqlStateOf(error);
  return state === undefined || /^(08|57P0|25P03|25P04)/.test(state);
}

/** The floor and the resource that a fence's function has put into the detail of its error: digits, a space, the rest. */
export function readStale(error: unknown): { resource: string; floor: number } | undefined {
  const detail = typeof error === "object" && error !== null && "detail" in error ? error.detail : undefined;
  const [, digits, resource] = (typeof detail === "string" && /^(\d{1,16}) (.+)$/s.exec(detail)) || [];
  return digits === undefined || resource === undefined ? undefined : { resource, floor: Number(digits) };
}
