/** Refusals as `application/problem+json` (RFC 9457), with `code` and `retryable` as in the client library's errors. */
import { LeaseholdError } from "@leasehold/client";
import type { ProblemBody } from "../api/schemas.js";

export interface Answer {
  readonly status: number;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

export const PROBLEM_TYPE = "application/problem+json";
const RETRY_AFTER_S = 1;
/** Holders that a refusal names. */
const HOLDERS_MAX = 10;

/** A refusal of the sidecar's own. */
export class HttpProblem extends Error {
  readonly status: number;
  readonly code: string;
  readonly retryable: boolean;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    code: string,
    message: string,
    more: { readonly retryable?: boolean; readonly headers?: Readonly<Record<string, string>> } = {},
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryable = more.retryable ?? false;
    this.headers = more.headers ?? {};
  }
}

export const badRequest = (message: string): HttpProblem => new HttpProblem(400, "INVALID", message);

const STATUS: Readonly<Record<string, number>> = {
  INVALID: 400,
  DENIED: 403,
  DEADLOCK: 409,
  STALE_TOKEN: 409,
  NOT_WAITING: 409,
  CLOCK_JUMP: 409,
  LOST: 410,
  BUSY: 423,
  LIMIT: 429,
  UNREACHABLE: 503,
  STORE_DOWN: 503,
  NOT_LEADER: 503,
  OUTCOME_UNKNOWN: 503,
  CLOSED: 503,
};

const TITLE: Readonly<Record<string, string>> = {
  INVALID: "The request is not valid",
  NOT_FOUND: "There is nothing by that name",
  DENIED: "Not permitted",
  DEADLOCK: "Waiting would never end",
  STALE_TOKEN: "The token does not hold the lock",
  LOST: "The lock is not held any more",
  BUSY: "Somebody else holds the lock",
  LIMIT: "A bound is reached",
  UNREACHABLE: "No server can be reached",
  CLOSED: "The sidecar is stopping",
};

/** What went wrong, as an answer. `onBug` hears of what is nobody's fault but ours. */
export function problemOf(error: unknown, onBug: (error: unknown) => void): Answer {
  if (error instanceof HttpProblem) {
    const { status, code, message, retryable, headers } = error;
    return problem(status, code, message, retryable, {}, headers);
  }
  const failure = LeaseholdError.from(error);
  const { code } = failure;
  const status = STATUS[code] ?? 500;
  if (status === 500) {
    onBug(error);
    return problem(500, code, "this is a bug of the sidecar; its log has the details", false, {});
  }
  const retryAfterS = Math.max(RETRY_AFTER_S, Math.ceil(failure.retryAfterMs / 1_000));
  const wait = status === 503 || status === 429 ? { "retry-after": String(retryAfterS) } : {};
  const retryable = failure.retryable || code === "CLOSED";
  return problem(status, code, failure.message, retryable, details(failure), wait);
}

function problem(
  status: number,
  code: string,
  detail: string,
  retryable: boolean,
  more: Partial<ProblemBody>,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  const type = `urn:problem-type:leasehold:${code.toLowerCase().replaceAll("_", "-")}`;
  const body: ProblemBody = { type, title: TITLE[code] ?? code, status, detail, code, retryable, ...more };
  return { status, body, headers: { ...headers, "content-type": PROBLEM_TYPE } };
}

function details({ busy, lost, knot }: LeaseholdError): Partial<ProblemBody> {
  const holders = busy?.holders.slice(0, HOLDERS_MAX).map(({ owner, token, mode, heldMs, leaseRemainingMs }) => {
    return { owner, token, mode, heldMs, leaseRemainingMs };
  });
  return {
    ...(busy && holders
      ? {
          busy: {
            name: busy.name,
            holders,
            holdersTotal: busy.holdersTotal,
            waiters: busy.waiters,
            reserved: busy.reserved,
            delayRemainingMs: busy.delayRemainingMs,
          },
        }
      : {}),
    ...(lost ? { lost } : {}),
    ...(knot.length > 0
      ? { knot: knot.map(({ owner, waitsFor, holds }) => ({ owner, waitsFor: [...waitsFor], holds: [...holds] })) }
      : {}),
  };
}
