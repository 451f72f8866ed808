/**
 * The one table from reasons to gRPC statuses. A status carries `google.rpc.Status` with an ErrorInfo in
 * `grpc-status-details-bin`, and the reason once more in the plain trailer `leasehold-reason` for clients that have no
 * helper library at hand.
 */
import { Metadata, status } from "@grpc/grpc-js";
import { encodeStatus, type StatusDetails } from "@leasehold/client/wire";
import type { KnotWait, Reason, Refusal } from "../core/types.js";
import type { RouteFailure } from "../sequencer/routes.js";

export type WireReason = Reason | RouteFailure["reason"] | "UNAUTHENTICATED" | "INTERNAL";

/** Why a call, a stream or a command came to nothing. */
export interface WireFailure {
  readonly reason: WireReason;
  readonly message: string;
  /** When to try again; 0: do not simply repeat. */
  readonly retryAfterMs: number;
  /** DEADLOCK: the waits that wait for each other, the oldest first. */
  readonly knot?: readonly KnotWait[];
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
  NOT_WAITING: status.FAILED_PRECONDITION,
  // As of a transaction: the same call would fail again, but who gives up what it holds and starts over may get through.
  DEADLOCK: status.ABORTED,
  CANCELLED_REQUEST: status.CANCELLED,
  CLOCK_JUMP: status.OUT_OF_RANGE,
  UNAUTHENTICATED: status.UNAUTHENTICATED,
  DENIED: status.PERMISSION_DENIED,
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
/** In the details; they are sent as base64. */
const knotBytesMax = 2_400;

/** What a client is told about a bug. */
export const internalFailure: WireFailure = {
  reason: "INTERNAL",
  message: "a bug of the server; its log says more",
  retryAfterMs: 0,
};

export function failureOf(refusal: Refusal): WireFailure {
  const { reason, message, knot } = refusal;
  const failure: WireFailure = { reason, message, retryAfterMs: refusal.retryAfterMs ?? refusalRetryMs[reason] ?? 0 };
  return knot === undefined ? failure : { ...failure, knot };
}

/** What a client reads from the status, by whatever way it arrives. */
export function statusDetails(failure: WireFailure): StatusDetails {
  const details = {
    code: codes[failure.reason],
    message: printable(failure.message),
    reason: failure.reason,
    retryAfterMs: failure.retryAfterMs,
  };
  return failure.knot === undefined ? details : { ...details, metadata: knotMetadata(failure.knot) };
}

/**
 * The knot as `KnotWait` messages in the JSON form of Protocol Buffers. What is too large for trailers is told in part:
 * one name in each list, then the oldest waits only; `knot_waits` says how many there are.
 */
function knotMetadata(knot: readonly KnotWait[]): Record<string, string> {
  const fits = (json: string) => Buffer.byteLength(json) <= knotBytesMax;
  let told: readonly KnotWait[] = knot;
  let json = JSON.stringify(told);
  if (!fits(json)) {
    told = knot.map((wait) => ({ ...wait, waitsFor: wait.waitsFor.slice(0, 1), holds: wait.holds.slice(0, 1) }));
    json = JSON.stringify(told);
  }
  while (!fits(json)) {
    told = told.slice(0, Math.floor(told.length / 2));
    json = JSON.stringify(told);
  }
  return { knot: json, knot_waits: String(knot.length) };
}

/** `requestId`: for the trailer "x-request-id", so that a caller can name the request to whoever reads the log. */
export function grpcStatus(failure: WireFailure, requestId = ""): GrpcStatus {
  const details = statusDetails(failure);
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", encodeStatus(details));
  metadata.set("leasehold-reason", failure.reason);
  if (requestId !== "") metadata.set("x-request-id", requestId);
  return { code: details.code, details: details.message, metadata };
}

/** Half a surrogate pair, as cutting a text may leave it, would make grpc-js throw when it writes the trailer. */
function printable(message: string): string {
  const short = message.length > messageLengthMax ? `${message.slice(0, messageLengthMax)}...` : message;
  return short.replace(/\p{Surrogate}/gu, "\ufffd");
}
