/** The one error class of the fence kit. Tell errors apart by `code`, never by their text. */

/**
 * What went wrong.
 *
 * - `STALE_TOKEN`: the storage has seen a higher token for this resource: somebody else has been granted the lock since.
 *   Nothing was written. `error.resource`, `error.token` and `error.floor` say what met what.
 * - `LOST`: the lock is not held any more, or its time is over; nothing was committed.
 * - `CONFLICT`: the row has another version than the one that was read (optimistic updates); nothing was written.
 * - `NOT_FOUND`: there is no such row; nothing was written.
 * - `INVALID`: a wrong argument or a set-up that cannot work; nothing was sent.
 * - `LIMIT`: a bound is reached: a buffer or a queue is full.
 * - `UNREACHABLE`: the storage did not answer in time. Nothing is known of what was sent last.
 * - `OUTCOME_UNKNOWN`: the connection broke while a commit was on its way: it may have been written or not.
 * - `DENIED`: not permitted.
 */
export type FenceErrorCode =
  | "STALE_TOKEN"
  | "LOST"
  | "CONFLICT"
  | "NOT_FOUND"
  | "INVALID"
  | "LIMIT"
  | "UNREACHABLE"
  | "OUTCOME_UNKNOWN"
  | "DENIED";

/** Shared with the client, so that `LeaseholdError.is(error, "STALE_TOKEN")` knows these errors, too. */
const BRAND = Symbol.for("leasehold.error");
const RETRYABLE: ReadonlySet<FenceErrorCode> = new Set(["LOST", "CONFLICT", "LIMIT", "UNREACHABLE"]);

export interface FenceErrorDetails {
  readonly cause?: unknown;
  /** What is fenced. */
  readonly resource?: string;
  /** The token that was refused. */
  readonly token?: number;
  /** The highest token that the storage has seen, as far as it said so. */
  readonly floor?: number;
}

/**
 * Every error of the fence kit's own. What the driver or your callback throws passes through as it is.
 *
 * @example
 * try {
 *   await fence.tx(lock, (tx) => tx.query("update orders set state = 'paid' where id = 42"));
 * } catch (error) {
 *   if (FenceError.is(error, "STALE_TOKEN")) console.log(`somebody has token ${error.floor}; stop`);
 *   else throw error;
 * }
 */
export class FenceError extends Error {
  override readonly name = "FenceError";
  readonly code: FenceErrorCode;
  /** Whether the same work, begun anew with a fresh lock or a fresh read, may succeed. */
  readonly retryable: boolean;
  /** What is fenced, where that is known. */
  readonly resource: string | undefined;
  /** The token that was refused, where that is known. */
  readonly token: number | undefined;
  /** The highest token that the storage has seen, where that is known. */
  readonly floor: number | undefined;

  constructor(code: FenceErrorCode, message: string, details: FenceErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.retryable = RETRYABLE.has(code);
    this.resource = details.resource;
    this.token = details.token;
    this.floor = details.floor;
    Object.defineProperty(this, BRAND, { value: true });
  }

  /** Whether it is an error of the fence kit or of the client, and of that code if one is given. */
  static is(error: unknown, code?: FenceErrorCode): error is FenceError {
    if (typeof error !== "object" || error === null || !(BRAND in error)) return false;
    return code === undefined || (error as unknown as FenceError).code === code;
  }
}

export const invalid = (message: string): FenceError => new FenceError("INVALID", message);

/** `floor`: the highest token that the storage has seen; undefined where it does not say. */
export function stale(resource: string, token: number, floor: number | undefined, cause?: unknown): FenceError {
  const seen = floor === undefined ? "a higher one has been used" : `${floor} has been used`;
  const message = `the token ${token} is stale for ${JSON.stringify(resource)}: ${seen}`;
  return new FenceError("STALE_TOKEN", message, {
    resource,
    token,
    ...(floor === undefined ? {} : { floor }),
    ...(cause === undefined ? {} : { cause }),
  });
}

/** A value in an error message: short, and never a throw. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
  if (typeof value === "bigint") return `${value}n`;
  return typeof value === "object" && value !== null ? "an object" : String(value);
}
