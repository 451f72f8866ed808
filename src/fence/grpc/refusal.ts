/**
 * Refusals over gRPC: a status, with the reason in the trailer `leasehold-reason`, and as an `ErrorInfo` of the domain
 * `leasehold` in `grpc-status-details-bin`.
 */
import { FenceError, type FenceErrorCode, stale } from "../errors.js";
import { readToken } from "../token.js";
import { decodeDetails, encodeDetails } from "./details.js";
import type { GrpcMetadata, GrpcStatus } from "./types.js";

const REASON = "leasehold-reason";
const DETAILS = "grpc-status-details-bin";
const RETRY_AFTER_S = 1;

/** The status codes of gRPC that are used here. */
export const status = {
  invalidArgument: 3,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
} as const;

const codes: Readonly<Partial<Record<FenceErrorCode, number>>> = {
  STALE_TOKEN: status.failedPrecondition,
  LOST: status.failedPrecondition,
  INVALID: status.invalidArgument,
  DENIED: status.permissionDenied,
  LIMIT: status.resourceExhausted,
  UNREACHABLE: status.unavailable,
};

const isTokenKnown = ({ code }: FenceError) => code === "STALE_TOKEN" || code === "LOST";

/** What the caller is told: what it did wrong, and nothing of what went wrong here. */
function tell(error: FenceError): string {
  if (isTokenKnown(error) || error.code === "INVALID") return error.message;
  if (error.code === "DENIED") return "not permitted";
  return error.code === "LIMIT" ? "a bound of the service is reached" : "the token cannot be checked now";
}

/** `code`: another gRPC status than the usual one. */
export function statusOf<Metadata extends GrpcMetadata>(
  error: FenceError,
  metadata: Metadata,
  code = codes[error.code] ?? status.unavailable,
): GrpcStatus<Metadata> & { metadata: Metadata } {
  const { resource, token, floor } = isTokenKnown(error) ? error : {};
  const known = Object.entries({ resource, token, floor }).filter(([, value]) => value !== undefined);
  const message = tell(error);
  const retryAfterS = code === status.unavailable || code === status.resourceExhausted ? RETRY_AFTER_S : undefined;
  const described = Object.fromEntries(known.map(([key, value]) => [key, String(value)]));
  metadata.set(REASON, error.code);
  metadata.set(DETAILS, encodeDetails({ code, message, reason: error.code, metadata: described, retryAfterS }));
  return { code, details: message, metadata };
}

function infoOf(metadata: Pick<GrpcMetadata, "get">): { reason: string; metadata: Record<string, string> } | undefined {
  for (const value of metadata.get(DETAILS)) {
    const info = typeof value === "string" ? undefined : decodeDetails(value);
    if (info) return info;
  }
  const [reason] = metadata.get(REASON);
  return typeof reason === "string" ? { reason, metadata: {} } : undefined;
}

/**
 * The refusal of a fence that an error of a gRPC call is: STALE_TOKEN, LOST, INVALID, DENIED, LIMIT or UNREACHABLE, with the
 * call's error as its cause. Undefined if it is another error. Never throws.
 *
 * @example
 * client.pay(order, { interceptors: [fenceClientInterceptor({ grpc, lock })] }, (error, answer) => {
 *   if (fenceErrorOf(error)?.code === "STALE_TOKEN") return stop();
 *   // …
 * });
 */
export function fenceErrorOf(error: unknown): FenceError | undefined {
  const metadata = (error as { metadata?: Partial<GrpcMetadata> } | null | undefined)?.metadata;
  if (typeof metadata?.get !== "function") return undefined;
  const info = infoOf(metadata as GrpcMetadata);
  const code = info && (Object.keys(codes).find((one) => one === info.reason) as FenceErrorCode | undefined);
  if (info === undefined || code === undefined) return undefined;
  const { resource, token: digits, floor } = info.metadata;
  try {
    const token = digits === undefined ? undefined : readToken(digits);
    if (code === "STALE_TOKEN" && resource !== undefined && token !== undefined) {
      return stale(resource, token, floor === undefined ? undefined : readToken(floor), error);
    }
    const message = error instanceof Error ? error.message : code;
    return new FenceError(code, message, { cause: error, ...(resource && { resource }), ...(token && { token }) });
  } catch {
    return undefined; // numbers that are no tokens: whoever wrote this was no fence
  }
}
