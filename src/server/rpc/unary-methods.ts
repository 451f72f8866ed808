/** The unary calls: for each, its messages, how a request is checked, and what an outcome looks like. */
import { decode, encode, type MessageType, v1 } from "@leasehold/client/wire";
import type { Outcome, Refusal, Request } from "../core/types.js";
import type { ClockReading } from "../skew/client-clocks.js";
import { acquireAllBody, acquireBody, cancelBody, forcedBody, renewedBody } from "./encode.js";
import { type HotLock, leaseBody, leasesBody, lockBody, locksBody, topBody } from "./encode-views.js";
import type { WireFailure } from "./errors.js";
import type { RpcLimits } from "./limits.js";
import type { RenewalPacing } from "./pacing.js";
import { type ServerStatus, statusBody, statusWithoutCore } from "./status.js";
import type { RequestValidator } from "./validate.js";

/** What one method does differently from the others. */
export interface UnaryMethod {
  /** "/leasehold.v1.LockService/Acquire" */
  readonly path: string;
  /** Throws `WireError`. `remainingMs`: until the deadline of the call. */
  read(bytes: Buffer, remainingMs: number): ReadRequest;
  /** Null when the outcome does not belong to this method, which is a bug. */
  write(outcome: Outcome, timestamp: number, clockAheadBy: number, request: Request, principal: string): Buffer | null;
  /** An answer in place of a failure; null: the failure is the answer. */
  instead?(failure: WireFailure): Buffer | null;
}

export interface ReadRequest {
  readonly request: Request | Refusal;
  readonly observed: number;
  /** What the client tells of its wall clock; undefined: this method does not ask for it. */
  readonly clock?: ClockReading | undefined;
  /** The caller's span; absent or "": none. */
  readonly traceparent?: string;
}

/** What the answers tell beside the outcomes of the core. */
export interface AnswerSources {
  readonly pacing: RenewalPacing;
  serverStatus(): ServerStatus;
  /** The locks with the most grants of late, the hottest first. */
  hottest(limit: number): readonly HotLock[];
}

export function unaryMethods(check: RequestValidator, limits: RpcLimits, sources: AnswerSources): UnaryMethod[] {
  return [
    ...leaseMethods(check, limits, sources.pacing),
    ...acquireMethods(check, limits),
    ...holdMethods(check),
    ...lockMethods(check, limits),
    tickMethod(check),
    statusMethod(sources),
    forceReleaseMethod(check),
    topMethod(check, limits, sources),
  ];
}

function leaseMethods(check: RequestValidator, { listBytesMax }: RpcLimits, pacing: RenewalPacing): UnaryMethod[] {
  const lease = (o: Outcome) => (o.kind === "lease" ? leaseBody(o) : null);
  return [
    method(
      "LeaseService/CreateLease",
      v1.CreateLeaseRequest,
      v1.CreateLeaseResponse,
      (m) => check.createLease(m),
      lease,
      ({ wallClockMs }) => ({ wallClockMs, roundTripMs: 0, roundTripFrame: 0 }),
    ),
    method(
      "LeaseService/RenewLease",
      v1.RenewLeaseRequest,
      v1.RenewLeaseResponse,
      (m) => check.renewLease(m),
      (o) => (o.kind === "renewed" ? renewedBody(o, pacing.renewAfterMs(o.remainingMs), listBytesMax) : null),
      ({ wallClockMs, roundTripMs }) => ({ wallClockMs, roundTripMs, roundTripFrame: 0 }),
    ),
    method(
      "LeaseService/RevokeLease",
      v1.RevokeLeaseRequest,
      v1.RevokeLeaseResponse,
      (m) => check.revokeLease(m),
      (o) => (o.kind === "revoked" ? { revoked: o.revoked } : null),
    ),
    method("LeaseService/GetLease", v1.GetLeaseRequest, v1.GetLeaseResponse, (m) => check.getLease(m), lease),
    method(
      "LeaseService/ListLeases",
      v1.ListLeasesRequest,
      v1.ListLeasesResponse,
      (m) => check.listLeases(m),
      (o) => (o.kind === "leases" ? leasesBody(o, listBytesMax) : null),
    ),
  ];
}

function acquireMethods(check: RequestValidator, { listBytesMax }: RpcLimits): UnaryMethod[] {
  const answers = (o: Outcome, all: boolean) =>
    (o.kind === "grant" || o.kind === "busy" || o.kind === "waiting") && o.all === all ? o : null;
  return [
    method(
      "LockService/Acquire",
      v1.AcquireRequest,
      v1.AcquireResponse,
      (m, remainingMs) => check.acquire.oneOfCall(m, remainingMs),
      (o) => {
        const answer = answers(o, false);
        return answer && acquireBody(answer, false, listBytesMax);
      },
    ),
    method(
      "LockService/AcquireAll",
      v1.AcquireAllRequest,
      v1.AcquireAllResponse,
      (m, remainingMs) => check.acquire.allOfCall(m, remainingMs),
      (o) => {
        const answer = answers(o, true);
        return answer && acquireAllBody(answer, false, listBytesMax);
      },
    ),
    method(
      "LockService/CancelAcquire",
      v1.CancelAcquireRequest,
      v1.CancelAcquireResponse,
      (m) => check.cancelCall(m),
      (o) => (o.kind === "cancelled" ? cancelBody(o) : null),
    ),
  ];
}

/** For the holder of a lock. */
function holdMethods(check: RequestValidator): UnaryMethod[] {
  return [
    method(
      "LockService/Release",
      v1.ReleaseRequest,
      v1.ReleaseResponse,
      (m) => check.release(m),
      (o) => (o.kind === "released" ? {} : null),
    ),
    method(
      "LockService/Transfer",
      v1.TransferRequest,
      v1.TransferResponse,
      (m) => check.transfer(m),
      (o) => (o.kind === "transferred" ? { token: o.token } : null),
    ),
    method(
      "LockService/Downgrade",
      v1.DowngradeRequest,
      v1.DowngradeResponse,
      (m) => check.downgrade(m),
      (o) => (o.kind === "downgraded" ? {} : null),
    ),
    method(
      "LockService/SetMetadata",
      v1.SetMetadataRequest,
      v1.SetMetadataResponse,
      (m) => check.setMetadata(m),
      (o) => (o.kind === "metadataSet" ? {} : null),
    ),
  ];
}

function lockMethods(check: RequestValidator, { listBytesMax }: RpcLimits): UnaryMethod[] {
  return [
    method(
      "LockService/DescribeLock",
      v1.DescribeLockRequest,
      v1.DescribeLockResponse,
      (m) => check.describeLock(m),
      (o) => (o.kind === "lock" ? lockBody(o, listBytesMax) : null),
    ),
    method(
      "LockService/ListLocks",
      v1.ListLocksRequest,
      v1.ListLocksResponse,
      (m) => check.listLocks(m),
      (o) => (o.kind === "locks" ? locksBody(o, listBytesMax) : null),
    ),
    method(
      "LockService/Validate",
      v1.ValidateRequest,
      v1.ValidateResponse,
      (m) => check.validate(m),
      (o) => (o.kind === "validated" ? { held: o.held } : null),
    ),
  ];
}

function method<M extends { observed: number; traceparent?: string }, Body extends object>(
  path: string,
  requestType: MessageType<never, M>,
  responseType: MessageType<Body & { timestamp: number; clockAheadBy: number }, unknown>,
  toRequest: (message: M, remainingMs: number) => Request | Refusal,
  toBody: (outcome: Outcome) => Body | null,
  clockOf?: (message: M) => ClockReading,
): UnaryMethod {
  return {
    path: `/leasehold.v1.${path}`,
    read(bytes, remainingMs) {
      const message = decode(requestType, bytes);
      const { observed, traceparent = "" } = message;
      return { request: toRequest(message, remainingMs), observed, clock: clockOf?.(message), traceparent };
    },
    write(outcome, timestamp, clockAheadBy) {
      const body = toBody(outcome);
      return body && encode(responseType, { ...body, timestamp, clockAheadBy });
    },
  };
}

/** Tick's `observed` belongs to the request itself, which is refused when it is too far ahead. */
function tickMethod(check: RequestValidator): UnaryMethod {
  return {
    path: "/leasehold.v1.ClockService/Tick",
    read: (bytes) => ({ request: check.tick(decode(v1.TickRequest, bytes)), observed: 0 }),
    write: (o) => (o.kind === "ticks" ? encode(v1.TickResponse, { first: o.first, last: o.last }) : null),
  };
}

/** Status answers even when the core cannot: an operator needs it most when the store is down. */
function statusMethod(sources: AnswerSources): UnaryMethod {
  return {
    path: "/leasehold.v1.AdminService/Status",
    read(bytes) {
      decode(v1.StatusRequest, bytes);
      return { request: { kind: "status" }, observed: 0 };
    },
    write: (o, _timestamp, _clockAheadBy, _request, principal) =>
      o.kind === "status"
        ? encode(v1.StatusResponse, { ...statusBody(sources.serverStatus(), o.counts), principal })
        : null,
    instead: (failure) =>
      failure.reason === "INVALID" || failure.reason === "INTERNAL"
        ? null
        : encode(v1.StatusResponse, statusWithoutCore(sources.serverStatus(), failure.message)),
  };
}

/** The requests of administrators carry no `observed`: they take no part in the order of events. */
function forceReleaseMethod(check: RequestValidator): UnaryMethod {
  return {
    path: "/leasehold.v1.AdminService/ForceRelease",
    read: (bytes) => ({ request: check.forceRelease(decode(v1.ForceReleaseRequest, bytes)), observed: 0 }),
    write: (o, timestamp) =>
      o.kind === "forced" ? encode(v1.ForceReleaseResponse, { ...forcedBody(o), timestamp }) : null,
  };
}

function topMethod(check: RequestValidator, { listBytesMax }: RpcLimits, sources: AnswerSources): UnaryMethod {
  return {
    path: "/leasehold.v1.AdminService/TopLocks",
    read: (bytes) => ({ request: check.topLocks(decode(v1.TopLocksRequest, bytes)), observed: 0 }),
    write(o, timestamp, _clockAheadBy, request) {
      if (o.kind !== "top" || request.kind !== "topLocks") return null;
      return encode(v1.TopLocksResponse, { ...topBody(o, sources.hottest(request.limit), listBytesMax), timestamp });
    },
  };
}
