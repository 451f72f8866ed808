/** What an error of the server or of the connection means to those who hold a lock. */
import { FenceError, show, stale } from "../errors.js";
import { endsConnection, readStale, SQLSTATE, sqlStateOf } from "./postgres-driver.js";
import { type Held, isOver } from "./postgres-limits.js";
import { nameOf, type PostgresTable } from "./postgres-schema.js";

/** Errors that only come because something took too long. */
const LIMITED: ReadonlySet<string | undefined> = new Set([
  SQLSTATE.idleInTransaction,
  SQLSTATE.lockTimeout,
  SQLSTATE.queryCanceled,
]);

function ofHolds(code: "LOST" | "OUTCOME_UNKNOWN", held: readonly Held[], what: string, cause: unknown): FenceError {
  const names = held.map(({ resource }) => show(resource)).join(", ");
  const [first, second] = held;
  const which = first && !second ? { resource: first.resource, token: first.token } : {};
  return new FenceError(code, `${what} for ${names}`, { cause, ...which });
}

/** The connection broke while the commit was on its way. */
export const outcomeUnknown = (held: readonly Held[], cause: unknown): FenceError =>
  ofHolds("OUTCOME_UNKNOWN", held, "the connection broke during the commit: it may have been written or not,", cause);

/** STALE_TOKEN, or LOST where the time was over; everything else stays as it is. */
export function explain(error: unknown, held: readonly Held[]): unknown {
  const state = sqlStateOf(error);
  if (state === SQLSTATE.stale) return explainStale(error, held);
  if (FenceError.is(error) && error.code !== "UNREACHABLE") return error;
  if ((LIMITED.has(state) || endsConnection(error)) && isOver(held)) {
    return ofHolds("LOST", held, "the hold is over, and the transaction has been ended,", error);
  }
  return error;
}

function explainStale(error: unknown, held: readonly Held[]): unknown {
  const found = readStale(error);
  const one = held.find(({ resource }) => resource === found?.resource);
  // Of another resource: somebody has called the functions by hand, and knows more.
  return found && one ? stale(found.resource, one.token, found.floor, error) : error;
}

/** The same before anything of the caller's was sent: there it is known that nothing came of it. */
export function explainStart(error: unknown, held: readonly Held[], at: PostgresTable): unknown {
  const explained = explain(error, held);
  if (FenceError.is(explained)) return explained;
  const state = sqlStateOf(error);
  if (state === SQLSTATE.noSchema) {
    return new FenceError("INVALID", `there is no schema "${at.schema}" in the database`, { cause: error });
  }
  if (state === SQLSTATE.noFunction || state === SQLSTATE.noTable) {
    const message = `there are no functions ${nameOf(at, "_…")} in the database; run migrate()`;
    return new FenceError("INVALID", message, { cause: error });
  }
  if (state === SQLSTATE.denied) return denied(error, at);
  if (LIMITED.has(state)) {
    return new FenceError("UNREACHABLE", "PostgreSQL could not do it in time", { cause: error });
  }
  if (endsConnection(error)) {
    return new FenceError("UNREACHABLE", "the connection to PostgreSQL broke", { cause: error });
  }
  return error;
}

/** The database's role may not do that with the fence's table. */
export function denied(cause: unknown, at: PostgresTable): FenceError {
  const message = `the database's role lacks a privilege on ${nameOf(at)} or its functions`;
  return new FenceError("DENIED", message, { cause });
}
