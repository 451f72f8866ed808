/** Acquires that are withdrawn, and calls that are gone before their answer. */
import { type Caller, cancelledRequest } from "./acquire.js";
import { endHold, schedule } from "./holds.js";
import { liveLease } from "./leases.js";
import { denied, mayUse } from "./principals.js";
import { refuseRequestId, rememberRequest } from "./requests.js";
import { storeOutcome } from "./session-log.js";
import {
  type Hold,
  type Lease,
  type PastRequest,
  requestKey,
  type Session,
  type SessionOutcome,
  type State,
  type Ticket,
} from "./state.js";
import { detachTicket, removeTicket } from "./tickets.js";
import type { CancelAcquire, Effects, Outcome, Route } from "./types.js";

/** Withdraws an Acquire and makes sure that no duplicate of it ever has an effect. */
export function cancelAcquire(
  state: State,
  fx: Effects,
  request: CancelAcquire,
  caller: Caller,
  nowMs: number,
): Outcome {
  const { target } = request;
  if (target.kind === "session") {
    if (caller.session === null) {
      return { kind: "refused", reason: "INVALID", message: "session_acquire is for sessions" };
    }
    const effect = caller.session.unacked.get(target.seq) ?? acknowledgedHold(caller.session, target.seq);
    if (!mayBeAcquire(effect)) {
      return { kind: "refused", reason: "INVALID", message: `command ${target.seq} is not an Acquire` };
    }
    const what = withdraw(state, fx, effect, nowMs);
    storeOutcome(state, caller.session, target.seq, { kind: "cancelled" });
    return { kind: "cancelled", what };
  }
  const { principal } = caller;
  const lease = liveLease(state, target.leaseId);
  if (lease !== undefined && !mayUse(principal, lease.principal)) return denied("lease");
  const key = requestKey(target.leaseId, principal.name, target.requestId);
  const known = state.requests.get(key);
  if (known === undefined) {
    const refusal = refuseRequestId(state);
    if (refusal !== null) return refusal;
  }
  const what = withdraw(state, fx, known, nowMs);
  if (known?.kind !== "request" || known.end !== "cancelled") rememberRequest(state, fx, key, "cancelled", 0, nowMs);
  return { kind: "cancelled", what };
}

/** The client may have the answer already, and withdraw all the same. */
function acknowledgedHold(session: Session, seq: number): Hold | undefined {
  for (const hold of session.holds) if (hold.seq === seq) return hold;
  return undefined;
}

type Effect = Lease | Hold | Ticket | SessionOutcome | PastRequest | undefined;

/** Unless something else is known to have come under that number. */
function mayBeAcquire(effect: Effect): boolean {
  switch (effect?.kind) {
    case "lease":
    case "released":
    case "downgraded":
    case "metadataSet":
    case "transferred":
      return false;
    default:
      return true;
  }
}

function withdraw(state: State, fx: Effects, effect: Effect, nowMs: number): "nothing" | "ticket" | "grant" {
  if (effect?.kind === "ticket") {
    removeTicket(state, fx, effect, cancelledRequest, nowMs);
    return "ticket";
  }
  if (effect?.kind === "hold" && effect.lease.dead === null) {
    for (const hold of [...(effect.set?.holds ?? [effect])]) endHold(state, fx, hold, "cancelled", nowMs);
    return "grant";
  }
  return "nothing";
}

/**
 * The call of a unary Acquire is gone. While it waited: the ticket is detached. After a grant that could not be
 * written: the hold is taken back, at once when nobody can ask for it again, else unless somebody does within
 * `resumeMs`. Not while another call that was told of the same grant may have arrived.
 */
export function callGone(state: State, fx: Effects, route: Route, token: number | null, nowMs: number): void {
  const ticket = state.callTickets.get(route);
  if (ticket !== undefined) {
    if (ticket.requestId !== "") detachTicket(state, ticket, nowMs);
    else removeTicket(state, fx, ticket, null, nowMs);
  }
  if (token === null) return;
  for (const hold of grantedTogether(state, token)) {
    if (hold.lease.dead !== null || --hold.told > 0) continue;
    if (hold.requestId === "") endHold(state, fx, hold, "undelivered", nowMs);
    else {
      hold.unfetchedUntilMs = nowMs + state.limits.resumeMs;
      schedule(state, hold);
    }
  }
}

/** The holds that the Acquire was granted whose first token this is, as far as they have not ended. */
function grantedTogether(state: State, firstToken: number): Hold[] {
  const hold = state.holds.get(firstToken);
  if (hold !== undefined) return hold.set === null ? [hold] : [...hold.set.holds];
  for (let token = firstToken + 1; token < firstToken + state.limits.locksPerAcquireMax; token++) {
    const { set = null } = state.holds.get(token) ?? {};
    if (set?.firstToken === firstToken) return [...set.holds];
  }
  return [];
}
