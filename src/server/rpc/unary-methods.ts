/** The unary calls: for each, its messages, how a request is checked, and what an outcome looks like. */
import { decode, encode, type MessageType, v1 } from "@leasehold/client/wire";
import type { Outcome, Refusal, Request } from "../core/types.js";
import { acquireBody, cancelBody, leaseBody, leasesBody, lockBody, locksBody } from "./encode.js";
import type { WireFailure } from "./errors.js";
import type { RpcLimits } from "./limits.js";
import { type ServerStatus, statusBody, statusWithoutCore } from "./status.js";
import type { RequestValidator } from "./validate.js";

/** What one method does differently from the others. */
export interface UnaryMethod {
  /** "/leasehold.v1.LockService/Acquire" */
  readonly path: string;
  /** Throws `WireError`. `remainingMs`: until the deadline of the call. */
  read(bytes: Buffer, remainingMs: number): { readonly request: Request | Refusal; readonly observed: number };
  /** Null when the outcome does not belong to this method, which is a bug. */
  write(outcome: Outcome, timestamp: number, clockAheadBy: number): Buffer | null;
  /** An answer in place of a failure; null: the failure is the answer. */
  instead?(failure: WireFailure): Buffer | null;
}

export function unaryMethods(
  check: RequestValidator,
  limits: RpcLimits,
  serverStatus: () => ServerStatus,
): UnaryMethod[] {
  const { listBytesMax } = limits;
  const lease = (o: Outcome) => (o.kind === "lease" ? leaseBody(o) : null);
  return [
    method(
      "LeaseService/CreateLease",
      v1.CreateLeaseRequest,
      v1.CreateLeaseResponse,
      (m) => check.createLease(m),
      lease,
    ),
    method(
      "LeaseService/RenewLease",
      v1.RenewLeaseRequest,
      v1.RenewLeaseResponse,
      (m) => check.renewLease(m),
      (o) => (o.kind === "renewed" ? { ttlMs: o.ttlMs, remainingMs: o.remainingMs } : null),
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
    method(
      "LockService/Acquire",
      v1.AcquireRequest,
      v1.AcquireResponse,
      (m, remainingMs) => check.acquireCall(m, remainingMs),
      (o) => (o.kind === "grant" || o.kind === "busy" || o.kind === "waiting" ? acquireBody(o, false) : null),
    ),
    method(
      "LockService/CancelAcquire",
      v1.CancelAcquireRequest,
      v1.CancelAcquireResponse,
      (m) => check.cancelCall(m),
      (o) => (o.kind === "cancelled" ? cancelBody(o) : null),
    ),
    method(
      "LockService/Release",
      v1.ReleaseRequest,
      v1.ReleaseResponse,
      (m) => check.release(m),
      (o) => (o.kind === "released" ? {} : null),
    ),
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
    tickMethod(check),
    statusMethod(serverStatus),
  ];
}

function method<M extends { observed: number }, Body extends object>(
  path: string,
  requestType: MessageType<never, M>,
  responseType: MessageType<Body & { timestamp: number; clockAheadBy: number }, unknown>,
  toRequest: (message: M, remainingMs: number) => Request | Refusal,
  toBody: (outcome: Outcome) => Body | null,
): UnaryMethod {
  return {
    path: `/leasehold.v1.${path}`,
    read(bytes, remainingMs) {
      const message = decode(requestType, bytes);
      return { request: toRequest(message, remainingMs), observed: message.observed };
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
function statusMethod(serverStatus: () => ServerStatus): UnaryMethod {
  return {
    path: "/leasehold.v1.AdminService/Status",
    read(bytes) {
      decode(v1.StatusRequest, bytes);
      return { request: { kind: "status" }, observed: 0 };
    },
    write: (o) => (o.kind === "status" ? encode(v1.StatusResponse, statusBody(serverStatus(), o.counts)) : null),
    instead: (failure) =>
      failure.reason === "INVALID" || failure.reason === "INTERNAL"
        ? null
        : encode(v1.StatusResponse, statusWithoutCore(serverStatus(), failure.message)),
  };
}
