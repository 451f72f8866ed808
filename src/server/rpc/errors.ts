/**
 * The one table from reasons to gRPC statuses. A status carries `google.rpc.Status` with an ErrorInfo in
 * `grpc-status-details-bin`, and the reason once more in the plain trailer `leasehold-reason` for clients that have no
 * helper library at hand.
 */
import { Metadata, status } from "@grpc/grpc-js";
import { encodeStatus, type StatusDetails } from "@leasehold/client/wire";
import type { Reason, Refusal } from "../core/types.js";
import type { RouteFailure } from "../sequencer/routes.js";

export type WireReason = Reason | RouteFailure["reason"] | "INTERNAL";

/** Why a call, a stream or a command came to nothing. */
export interface WireFailure {
  readonly reason: WireReason;
  readonly message: string;
  /** When to try again; 0: do not simply repeat. */
  readonly retryAfterMs: number;
}

/** What grpc-js takes as an error. */
export interface GrpcStatus {
  readonly code: status;
  readonly details: string;
  readonly metadata: Metadata;
}

const codes: Readonly<Record<WireReason, status>> = {
  INVALID: status.INVALID_ARGUMENT,
  LIMIT: status.RESOURCE_EXHAUSTED,
  UNKNOWN_LEASE: status.NOT_FOUND,
  UNKNOWN_SESSION: status.NOT_FOUND,
  SESSION_REPLACED: status.ABORTED,
  CLUSTER_MISMATCH: status.FAILED_PRECONDITION,
  STALE_TOKEN: status.FAILED_PRECONDITION,
  CANCELLED_REQUEST: status.CANCELLED,
  CLOCK_JUMP: status.OUT_OF_RANGE,
  STORE_DOWN: status.UNAVAILABLE,
  CLOSED: status.UNAVAILABLE,
  OUTCOME_UNKNOWN: status.UNKNOWN,
  INTERNAL: status.INTERNAL,
};

export const codeOf = (reason: WireReason): status => codes[reason];

/** When a refusal of the core may be repeated. */
const refusalRetryMs: Partial<Record<WireReason, number>> = { LIMIT: 1_000, STORE_DOWN: 1_000 };

/** Trailers must stay far below what clients accept as headers, which is 8 KiB in the strictest. */
const messageLengthMax = 1_000;

/** What a client is told about a bug. */
export const internalFailure: WireFailure = {
  reason: "INTERNAL",
  message: "a bug of the server; its log says more",
  retryAfterMs: 0,
};

export function failureOf(refusal: Refusal): WireFailure {
  return {
    reason: refusal.reason,
    message: refusal.message,
    retryAfterMs: refusalRetryMs[refusal.reason] ?? 0,
  };
}

/** What a client reads from the status, by whatever way it arrives. */
export function statusDetails(failure: WireFailure): StatusDetails {
  return {
    code: codes[failure.reason],
    message: printable(failure.message),
    reason: failure.reason,
    retryAfterMs: failure.retryAfterMs,
  };
}

export function grpcStatus(failure: WireFailure): GrpcStatus {
  const details = statusDetails(failure);
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", encodeStatus(details));
  metadata.set("leasehold-reason", failure.reason);
  return { code: details.code, details: details.message, metadata };
}

/** Half a surrogate pair, as cutting a text may leave it, would make grpc-js throw when it writes the trailer. */
function printable(message: string): string {
  const short = message.length > messageLengthMax ? `${message.slice(0, messageLengthMax)}...` : message;
  return short.replace(/\p{Surrogate}/gu, "\ufffd");
}
