/** What a request on the ops port is answered with. */
import type { Refusal } from "../core/types.js";
import { failureOf, type WireFailure, type WireReason } from "../rpc/errors.js";

export interface Answer {
  readonly status: number;
  readonly body: string | Buffer;
  /** Absent: plain text. */
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const statuses: Readonly<Record<WireReason, number>> = {
  INVALID: 400,
  CANCELLED_REQUEST: 400,
  CLOCK_JUMP: 400,
  UNAUTHENTICATED: 401,
  DENIED: 403,
  UNKNOWN_LEASE: 404,
  UNKNOWN_SESSION: 404,
  SESSION_REPLACED: 409,
  CLUSTER_MISMATCH: 409,
  STALE_TOKEN: 409,
  NOT_WAITING: 409,
  DEADLOCK: 409,
  LIMIT: 429,
  INTERNAL: 500,
  // Nobody knows whether it was done: 504 is what proxies say then, and no client repeats it by itself.
  OUTCOME_UNKNOWN: 504,
  STORE_DOWN: 503,
  CLOSED: 503,
};

export const json = (value: unknown, status = 200): Answer => ({
  status,
  body: JSON.stringify(value),
  type: "application/json; charset=utf-8",
});

/** `status`: another one than that of its reason. */
export function failed(failure: WireFailure, status = statuses[failure.reason]): Answer {
  const { reason, message, retryAfterMs } = failure;
  const answer = json({ error: { reason, message, retryAfterMs } }, status);
  return reason === "UNAUTHENTICATED" ? { ...answer, headers: { "www-authenticate": "Bearer" } } : answer;
}

export const refused = (refusal: Refusal, status?: number): Answer => failed(failureOf(refusal), status);
