/**
 * What a caller keeps while it waits.
 *
 * A ticket claims holds: those whose tokens its Acquire named, and those of its contender. A contender is a task that
 * names itself; the name stands for whatever was granted to it, before its wait or during it. On a session it means holds
 * of that session, on a unary call those of the lease.
 *
 * When a ticket is gone whose claims others share, and when a hold is granted to a contender that waits elsewhere, those
 * others may have become a deadlock: the hold is put among the suspects.
 */
import type { Contender, Hold, Lease, Session, State, Ticket } from "./state.js";
import type { Refusal } from "./types.js";

type Scope = Lease | Session;

export const isHeld = (state: State, token: number): boolean => state.holds.get(token)?.lease.dead === null;

/** Null, or why one of the tokens may not be named by this caller. Those that hold nothing are no matter. */
export function claimable(
  state: State,
  heldTokens: readonly number[],
  lease: Lease | null,
  session: Session | null,
): Refusal | null {
  for (const token of heldTokens) {
    const hold = state.holds.get(token);
    if (hold === undefined || hold.lease.dead !== null) continue;
    if (session === null ? hold.lease === lease : session.holds.has(hold)) continue;
    const whose = session === null ? "the lease" : "this session";
    return { kind: "refused", reason: "INVALID", message: `held_tokens: token ${token} is not a grant of ${whose}` };
  }
  return null;
}

/** Enters what the ticket claims. */
export function claimAll(state: State, ticket: Ticket): void {
  for (const token of ticket.heldTokens) {
    const hold = state.holds.get(token);
    if (hold !== undefined && hold.lease.dead === null) claim(ticket, hold);
  }
  if (ticket.contenderId === "") return;
  const contender = ensureContender(scopeOf(ticket), ticket.contenderId);
  contender.tickets.add(ticket);
  for (const hold of contender.holds) claim(ticket, hold);
}

function claim(ticket: Ticket, hold: Hold): void {
  ticket.claims ??= new Set();
  ticket.claims.add(hold);
  hold.claimers ??= new Set();
  hold.claimers.add(ticket);
}

/** The ticket is gone. */
export function dropClaims(state: State, ticket: Ticket): void {
  if (ticket.contenderId !== "") leaveContender(scopeOf(ticket), ticket.contenderId, ticket);
  if (ticket.claims === null) return;
  for (const hold of ticket.claims) {
    hold.claimers?.delete(ticket);
    if (hold.claimers !== null && hold.claimers.size > 0) state.suspects.add(hold);
  }
  ticket.claims = null;
}

/** A hold of a contender: whatever the contender waits for, it claims that hold. */
export function joinContender(state: State, hold: Hold): void {
  for (const scope of scopesOf(hold)) {
    const contender = ensureContender(scope, hold.contenderId);
    contender.holds.add(hold);
    for (const ticket of contender.tickets) {
      claim(ticket, hold);
      state.suspects.add(hold);
    }
  }
}

/** The hold has ended. */
export function dropClaimers(state: State, hold: Hold): void {
  if (hold.contenderId !== "") for (const scope of scopesOf(hold)) leaveContender(scope, hold.contenderId, hold);
  if (hold.claimers === null) return;
  for (const ticket of hold.claimers) ticket.claims?.delete(hold);
  hold.claimers = null;
  state.suspects.delete(hold);
}

const scopeOf = (ticket: Ticket): Scope =>
  ticket.seq > 0 && ticket.lease.session !== null ? ticket.lease.session : ticket.lease;

/** A unary call that names the lease means all holds of it, those of a session too. */
const scopesOf = (hold: Hold): readonly Scope[] =>
  hold.seq > 0 && hold.lease.session !== null ? [hold.lease, hold.lease.session] : [hold.lease];

function ensureContender(scope: Scope, contenderId: string): Contender {
  scope.contenders ??= new Map();
  let contender = scope.contenders.get(contenderId);
  if (contender === undefined) {
    contender = { holds: new Set(), tickets: new Set() };
    scope.contenders.set(contenderId, contender);
  }
  return contender;
}

function leaveContender(scope: Scope, contenderId: string, member: Hold | Ticket): void {
  const contender = scope.contenders?.get(contenderId);
  if (contender === undefined) return;
  if (member.kind === "hold") contender.holds.delete(member);
  else contender.tickets.delete(member);
  if (contender.holds.size + contender.tickets.size === 0) scope.contenders?.delete(contenderId);
}
