import { codeOf, LeaseholdError, type LostReason } from "../errors.js";
import { v1 } from "../wire/index.js";
import type { WireFailure } from "./command.js";

/** The refusal of a command as an error. */
export function failureOf(failure: WireFailure): LeaseholdError {
  const reason = failure.reason || "INTERNAL";
  const code = codeOf(reason, 13);
  return new LeaseholdError(code, failure.message || `the server refused: ${reason}`, {
    reason,
    retryAfterMs: failure.retryAfterMs ?? 0,
  });
}

/** A result that is no answer to what was asked. */
export const unexpected = (what: string): LeaseholdError =>
  new LeaseholdError("INTERNAL", `the server's result is no answer to ${what}`);

export const closedError = (): LeaseholdError => new LeaseholdError("CLOSED", "this client is closed");

export const queueFull = (): LeaseholdError =>
  new LeaseholdError("LIMIT", "too many commands wait to be sent; let some be answered before asking for more");

export function lostReason(reason: number | null | undefined): LostReason {
  return reason === v1.EndReason.END_REASON_REVOKED ? "revoked" : "expired";
}

/** Codes that say more than that nobody answered. */
const TELLING = new Set(["STORE_DOWN", "NOT_LEADER", "LIMIT", "DENIED", "INVALID"]);

/** The system's name for what is wrong, in the midst of a longer text. */
const SYSTEM_ERROR =
  /\bE(?:CONNREFUSED|CONNRESET|NOTFOUND|AI_AGAIN|TIMEDOUT|HOSTUNREACH|NETUNREACH|ACCES|NOENT|PIPE)\b/;

/** Nobody could be reached in time; `last` is what the last try met with. */
export function unreachableError(address: string, local: boolean, last: LeaseholdError | null): LeaseholdError {
  if (last && TELLING.has(last.code)) return last;
  const why = SYSTEM_ERROR.exec(last?.message ?? "")?.[0] ?? last?.message ?? "no answer";
  const hint = local ? ". Start one: npx leasehold serve" : "";
  return new LeaseholdError("UNREACHABLE", `cannot reach ${address} (${why})${hint}`, last ? { cause: last } : {});
}

/** Whether a stream that ended so, before the server had welcomed it, will not fare better when it is opened again. */
export const isFatal = (failure: LeaseholdError): boolean => failure.code === "INVALID" || failure.code === "DENIED";
