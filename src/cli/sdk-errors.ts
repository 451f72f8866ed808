import type { ErrorCode, LeaseholdError } from "@leasehold/client";
import { exitCode } from "./common.js";

const codes: Readonly<Partial<Record<ErrorCode, number>>> = {
  UNREACHABLE: exitCode.unreachable,
  STORE_DOWN: exitCode.unreachable,
  NOT_LEADER: exitCode.unreachable,
  OUTCOME_UNKNOWN: exitCode.unreachable,
  LOST: exitCode.unreachable,
  BUSY: exitCode.busy,
  LIMIT: exitCode.busy,
  DENIED: exitCode.denied,
  INVALID: exitCode.usage,
};

/** The exit code for an error of the client library; an internal one stands for a bug. */
export function exitCodeFor(error: LeaseholdError): number {
  // The server's store is not the one that it was: nobody gave a wrong option.
  if (error.reason === "CLUSTER_MISMATCH") return exitCode.config;
  return codes[error.code] ?? exitCode.internal;
}
