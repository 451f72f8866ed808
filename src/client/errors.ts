/**
 * The one error class of the client. Tell errors apart by `code`, never by their text.
 */

import type { Busy } from "./views.js";
import { decodeStatus, type StatusDetails } from "./wire/index.js";

/**
 * What went wrong.
 *
 * - `BUSY`: the lock is held by somebody else and the wait is over; `error.busy` says by whom.
 * - `LOST`: the lock or lease is not, or no longer, held; `error.lost` says why.
 * - `DEADLOCK`: waiting would never end, because those who hold what is waited for wait themselves, in the end for
 *   something that the one who waits here holds; `error.knot` names them.
 * - `STALE_TOKEN`: the token does not hold the lock.
 * - `NOT_WAITING`: nobody can take the lock by that ticket: it waits no more, or its connection is broken.
 * - `UNREACHABLE`: no server answered in time.
 * - `OUTCOME_UNKNOWN`: the server could not tell whether the command took effect.
 * - `STORE_DOWN`: the server runs, its store does not.
 * - `NOT_LEADER`: this server does not lead.
 * - `DENIED`: not permitted.
 * - `LIMIT`: a bound of the server or of the client is reached.
 * - `INVALID`: a wrong argument or configuration.
 * - `CLOCK_JUMP`: a Lamport timestamp is too far ahead of the server's clock.
 * - `CLOSED`: this client is closed.
 * - `INTERNAL`: a bug, here or in the server.
 */
export type ErrorCode =
  | "BUSY"
  | "LOST"
  | "DEADLOCK"
  | "STALE_TOKEN"
  | "NOT_WAITING"
  | "UNREACHABLE"
  | "OUTCOME_UNKNOWN"
  | "STORE_DOWN"
  | "NOT_LEADER"
  | "DENIED"
  | "LIMIT"
  | "INVALID"
  | "CLOCK_JUMP"
  | "CLOSED"
  | "INTERNAL";

/**
 * Why a lock or lease is lost.
 *
 * - `expired`: its time ran out before a renewal was confirmed, or before progress was reported.
 * - `forced`: an administrator took it away.
 * - `revoked`: its lease was ended by somebody.
 * - `max_hold`: its maximum hold is over.
 * - `transferred`: this process has handed it on to a waiter, or is about to.
 * - `session_replaced`: another process took over this client's session, as happens when a machine is cloned.
 * - `unknown_to_server`: the server does not know it, as happens when its store was lost or replaced.
 */
export type LostReason =
  | "expired"
  | "forced"
  | "revoked"
  | "max_hold"
  | "transferred"
  | "session_replaced"
  | "unknown_to_server";

/** The same for people: it completes "the lock is lost: ". */
export const LOST_TEXT: Readonly<Record<LostReason, string>> = {
  expired: "its lease was not renewed in time",
  forced: "an administrator took it away",
  revoked: "its lease was revoked",
  max_hold: "its maximum hold is over",
  transferred: "it was handed on",
  session_replaced: "another process has taken over this client's session",
  unknown_to_server: "the server does not know it any more",
};

/** One of the waits of a deadlock. */
export interface KnotWait {
  readonly ticketId: string;
  /** Who waits. */
  readonly owner: string;
  readonly contenderId: string;
  /** The locks that it waits for. */
  readonly waitsFor: readonly string[];
  /** The locks that it holds and others of the knot wait for. */
  readonly holds: readonly string[];
}

const BRAND = Symbol.for("leasehold.error");
const RETRYABLE: ReadonlySet<ErrorCode> = new Set(["BUSY", "LOST", "UNREACHABLE", "STORE_DOWN", "NOT_LEADER", "LIMIT"]);

/** Reasons on the wire that are not codes of their own. */
const CODE_BY_REASON: Readonly<Record<string, ErrorCode>> = {
  UNKNOWN_LEASE: "LOST",
  UNKNOWN_SESSION: "LOST",
  SESSION_REPLACED: "LOST",
  CLUSTER_MISMATCH: "INVALID",
  CANCELLED_REQUEST: "CLOSED",
  UNAUTHENTICATED: "DENIED",
  // The server's, not the client's: it shuts down.
  CLOSED: "UNREACHABLE",
};
const CODES: ReadonlySet<string> = new Set<ErrorCode>([
  ...["BUSY", "LOST", "DEADLOCK", "STALE_TOKEN", "NOT_WAITING", "UNREACHABLE", "OUTCOME_UNKNOWN"],
  ...["STORE_DOWN", "NOT_LEADER", "DENIED", "LIMIT", "INVALID", "CLOCK_JUMP", "CLOSED", "INTERNAL"],
] as ErrorCode[]);

/** For statuses that carry no reason: a proxy's, or grpc-js's own. */
const CODE_BY_STATUS: Readonly<Record<number, ErrorCode>> = {
  1: "CLOSED",
  3: "INVALID",
  4: "UNREACHABLE",
  7: "DENIED",
  8: "LIMIT",
  14: "UNREACHABLE",
  16: "DENIED",
};

/** The code that a reason and a gRPC status code on the wire stand for. */
export function codeOf(reason: string, status: number): ErrorCode {
  const mapped = Object.hasOwn(CODE_BY_REASON, reason) ? CODE_BY_REASON[reason] : undefined;
  if (mapped) return mapped;
  if (CODES.has(reason)) return reason as ErrorCode;
  return CODE_BY_STATUS[status] ?? "INTERNAL";
}

export interface LeaseholdErrorDetails {
  readonly cause?: unknown;
  readonly reason?: string;
  readonly retryAfterMs?: number;
  readonly retryable?: boolean;
  readonly busy?: Busy;
  readonly lost?: LostReason;
  readonly knot?: readonly KnotWait[];
}

/**
 * Every error that the client throws or rejects with, except a `signal.reason` of yours.
 *
 * @example
 * try {
 *   await client.withLock("orders/42", { wait: "5s" }, work);
 * } catch (error) {
 *   if (LeaseholdError.is(error, "BUSY")) console.log("held by", error.busy?.holders[0]?.owner);
 *   else throw error;
 * }
 */
export class LeaseholdError extends Error {
  override readonly name = "LeaseholdError";
  readonly code: ErrorCode;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** The server's reason where it is finer than `code`, such as "CLUSTER_MISMATCH". */
  readonly reason: string;
  /** When the server suggests to try again; 0: it does not say. */
  readonly retryAfterMs: number;
  /** With `BUSY`: who holds the lock, how many wait. */
  readonly busy: Busy | undefined;
  /** With `LOST`: why, as far as it is known. */
  readonly lost: LostReason | undefined;
  /** With `DEADLOCK`: the waits that wait for each other, the oldest first, as far as they are known. */
  readonly knot: readonly KnotWait[];

  constructor(code: ErrorCode, message: string, details: LeaseholdErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.retryable = details.retryable ?? RETRYABLE.has(code);
    this.reason = details.reason ?? code;
    this.retryAfterMs = details.retryAfterMs ?? 0;
    this.busy = details.busy;
    this.lost = details.lost;
    this.knot = details.knot ?? [];
    Object.defineProperty(this, BRAND, { value: true });
  }

  /** Whether it is an error of this client's, and of that code if one is given. Works across copies of the package. */
  static is(error: unknown, code?: ErrorCode): error is LeaseholdError {
    if (typeof error !== "object" || error === null || !(BRAND in error)) return false;
    return code === undefined || (error as unknown as LeaseholdError).code === code;
  }

  /**
   * Turns anything that was thrown into a `LeaseholdError`; what it was stays as the `cause`. A gRPC error gets the code
   * that the server's reason stands for.
   */
  static from(error: unknown): LeaseholdError {
    if (LeaseholdError.is(error)) return error;
    if (isServiceError(error)) {
      const status = statusOf(error.code, error.details ?? error.message, error.metadata);
      return fromStatus(status, error);
    }
    return new LeaseholdError("INTERNAL", error instanceof Error ? error.message : String(error), { cause: error });
  }
}

/** What the client reads of a gRPC error's trailers. */
interface Trailers {
  get(key: string): readonly (string | Buffer)[];
}
interface ServiceErrorLike {
  readonly code: number;
  readonly message: string;
  readonly details?: string;
  readonly metadata?: Trailers;
}

function isServiceError(error: unknown): error is ServiceErrorLike {
  return error instanceof Error && typeof (error as Partial<Record<"code", unknown>>).code === "number";
}

/** What a gRPC status says: from the details trailer, else from the plain reason trailer, else from the code alone. */
export function statusOf(code: number, message: string, trailers: Trailers | undefined): StatusDetails {
  const details = trailers?.get("grpc-status-details-bin")[0];
  const decoded = Buffer.isBuffer(details) ? decodeStatus(details) : undefined;
  if (decoded) return { ...decoded, code };
  const reason = trailers?.get("leasehold-reason")[0];
  return { code, message, reason: typeof reason === "string" ? reason : "" };
}

export function fromStatus(status: StatusDetails, cause?: unknown): LeaseholdError {
  const code = codeOf(status.reason, status.code);
  return new LeaseholdError(code, status.message || `the server answered with status ${status.code}`, {
    cause,
    reason: status.reason || code,
    retryAfterMs: status.retryAfterMs ?? 0,
  });
}

export const invalid = (message: string): LeaseholdError => new LeaseholdError("INVALID", message);
