import { codeOf, type KnotWait, LeaseholdError, type LostReason } from "../errors.js";
import { v1, whyUnreachable } from "../wire/index.js";
import type { WireFailure } from "./command.js";

/** The refusal of a command as an error. */
export function failureOf(failure: WireFailure): LeaseholdError {
  const reason = failure.reason || "INTERNAL";
  const code = codeOf(reason, 13);
  const knot = knotOf(failure);
  const message = knot.length > 0 ? `this wait would never end: ${knotText(knot)}` : failure.message;
  return new LeaseholdError(code, message || `the server refused: ${reason}`, {
    reason,
    retryAfterMs: failure.retryAfterMs ?? 0,
    knot,
  });
}

function knotOf(failure: WireFailure): KnotWait[] {
  return (failure.knot ?? []).map((wait) => ({
    ticketId: wait.ticketId ?? "",
    owner: wait.owner ?? "",
    contenderId: wait.contenderId ?? "",
    waitsFor: [...(wait.waitsFor ?? [])],
    holds: [...(wait.holds ?? [])],
  }));
}

/** Of a longer list, in a message. */
const TOLD_MAX = 5;

/** 'host/1 (T3) waits for "b" and holds "a"; …' */
function knotText(knot: readonly KnotWait[]): string {
  const told = knot.slice(0, TOLD_MAX).map(({ ticketId, owner, waitsFor, holds }) => {
    const waits = `${owner || "somebody"} (${ticketId}) waits for ${namesText(waitsFor)}`;
    return holds.length > 0 ? `${waits} and holds ${namesText(holds)}` : waits;
  });
  if (knot.length > TOLD_MAX) told.push(`and ${knot.length - TOLD_MAX} more`);
  return told.join("; ");
}

function namesText(names: readonly string[]): string {
  const told = names.slice(0, TOLD_MAX).map((name) => JSON.stringify(name));
  if (names.length > TOLD_MAX) told.push(`${names.length - TOLD_MAX} more`);
  return told.join(", ");
}

/** A result that is no answer to what was asked. */
export const unexpected = (what: string): LeaseholdError =>
  new LeaseholdError("INTERNAL", `the server's result is no answer to ${what}`);

export const closedError = (): LeaseholdError => new LeaseholdError("CLOSED", "this client is closed");

export const queueFull = (): LeaseholdError =>
  new LeaseholdError("LIMIT", "too many commands wait to be sent; let some be answered before asking for more");

export function lostReason(reason: number | null | undefined): LostReason {
  if (reason === v1.EndReason.END_REASON_REVOKED) return "revoked";
  if (reason === v1.EndReason.END_REASON_FORCED) return "forced";
  return reason === v1.EndReason.END_REASON_MAX_HOLD ? "max_hold" : "expired";
}

/** Codes that say more than that nobody answered. */
const TELLING = new Set(["STORE_DOWN", "NOT_LEADER", "LIMIT", "DENIED", "INVALID"]);

/** Nobody could be reached in time; `last` is what the last try met with. */
export function unreachableError(address: string, local: boolean, last: LeaseholdError | null): LeaseholdError {
  if (last && TELLING.has(last.code)) return last;
  const { why, answers } = whyUnreachable(last?.message ?? "");
  const hint = local && !answers ? ". Start one: npx leasehold serve" : "";
  return new LeaseholdError("UNREACHABLE", `cannot reach ${address} (${why})${hint}`, last ? { cause: last } : {});
}

/** Whether a stream that ended so, before the server had welcomed it, will not fare better when it is opened again. */
export const isFatal = (failure: LeaseholdError): boolean => failure.code === "INVALID" || failure.code === "DENIED";
