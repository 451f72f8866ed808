/** What an error of the server or of the connection means to those who hold a lock. */
import { FenceError, show, stale } from "../errors.js";
import { ERRNO, endsConnection, errnoOf, readStale } from "./mysql-driver.js";
import { type MysqlTable, nameOf } from "./mysql-schema.js";
import { type Held, isOver } from "./postgres-limits.js";

const among = (...numbers: number[]) => {
  const set: ReadonlySet<number | undefined> = new Set(numbers);
  return (error: unknown): boolean => set.has(errnoOf(error));
};

/** Errors that come when a statement was ended from outside, at whatever it was. */
export const isInterrupted = among(ERRNO.interrupted, ERRNO.statementTimeout, ERRNO.executionTimeout);
/** Errors that say: somebody else has written it since it was read. */
export const isConflict = among(ERRNO.deadlock, ERRNO.recordChanged);
const isLockTimeout = among(ERRNO.lockTimeout);
/** Errors that only come because something took too long. */
const isLimited = (error: unknown) => isLockTimeout(error) || isInterrupted(error);
/**
 * Errors after which the transaction may have been rolled back by the server. If it was, the next statement would be
 * committed at once, by itself, without a check.
 */
export const isFatal = (error: unknown): boolean => isLimited(error) || isConflict(error) || endsConnection(error);

const isMissing = among(ERRNO.noProcedure, ERRNO.noTable);
const isNowhere = among(ERRNO.noDatabase, ERRNO.noDatabaseChosen);
const isDenied = among(
  ERRNO.databaseDenied,
  ERRNO.tableDenied,
  ERRNO.privilegeNeeded,
  ERRNO.procedureDenied,
  ERRNO.triggerDenied,
);

function ofHolds(code: "LOST" | "OUTCOME_UNKNOWN", held: readonly Held[], what: string, cause: unknown): FenceError {
  const names = held.map(({ resource }) => show(resource)).join(", ");
  const [first, second] = held;
  const which = first && !second ? { resource: first.resource, token: first.token } : {};
  return new FenceError(code, `${what} for ${names}`, { cause, ...which });
}

/** The connection broke, or the statement was ended, while the commit was on its way. */
export const outcomeUnknown = (held: readonly Held[], cause: unknown): FenceError =>
  ofHolds("OUTCOME_UNKNOWN", held, "the commit was broken off: it may have been written or not,", cause);

/** LOST where the time was over; everything else stays as it is. */
export function explain(error: unknown, held: readonly Held[]): unknown {
  if (FenceError.is(error) && error.code !== "UNREACHABLE") return error;
  if ((isLimited(error) || endsConnection(error)) && isOver(held)) {
    return ofHolds("LOST", held, "the hold is over, and the transaction has been ended,", error);
  }
  return error;
}

/** The refusal by a procedure that was called for this hold; every other error stays as it is. */
export function explainStale(error: unknown, { resource, token }: Held): unknown {
  const floor = readStale(error);
  return floor === undefined ? error : stale(resource, token, floor, error);
}

/** What the server says to one of the fence's own statements: INVALID, DENIED; every other error stays as it is. */
export function explainOwn(error: unknown, at: MysqlTable): unknown {
  if (isDenied(error)) {
    const message = `the database's user lacks a privilege on ${nameOf(at)} or its procedures`;
    return new FenceError("DENIED", message, { cause: error });
  }
  if (isNowhere(error)) {
    return new FenceError("INVALID", `there is no database for ${nameOf(at)}, or none is chosen`, { cause: error });
  }
  if (isMissing(error)) {
    const message = `there are no procedures ${nameOf(at, "_…")} in the database; run migrate()`;
    return new FenceError("INVALID", message, { cause: error });
  }
  return error;
}

/** The same before anything of the caller's was sent: there it is known that nothing came of it. */
export function explainStart(error: unknown, held: readonly Held[], at: MysqlTable): unknown {
  const explained = explainOwn(explain(error, held), at);
  if (FenceError.is(explained)) return explained;
  if (isLimited(error) || isConflict(error)) {
    return new FenceError("UNREACHABLE", "MySQL could not do it in time", { cause: error });
  }
  if (endsConnection(error)) {
    return new FenceError("UNREACHABLE", "the connection to MySQL broke", { cause: error });
  }
  return error;
}
