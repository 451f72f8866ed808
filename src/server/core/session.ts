/**
 * Sessions: attached, resumed, detached. The protocol is told in `session.proto`; `session-log.ts` has what makes a
 * command that is sent twice take effect once.
 */
import { endHold, isWhole, tellHolder } from "./holds.js";
import { revoke } from "./lease-end.js";
import { denied, mayUse } from "./principals.js";
import { dropSessionIfOver, markDirty } from "./session-log.js";
import type { Hold, Session, State } from "./state.js";
import { detachTicket, removeTicket } from "./tickets.js";
import { type Attach, anybody, type Effects, type Outcome, type Refusal } from "./types.js";

export function attach(state: State, fx: Effects, command: Attach, nowMs: number): Outcome {
  const refusal = refuseOrigin(state, fx, command);
  if (refusal !== null) return refusal;
  return command.sessionId === "" ? attachNew(state, fx, command) : resume(state, fx, command, nowMs);
}

/** A client that has seen more than this store ever granted proves that the store has lost its memory. */
function refuseOrigin(state: State, fx: Effects, command: Attach): Refusal | null {
  if (command.clusterId !== "" && command.clusterId !== state.clusterId) {
    const message = `the client comes from cluster ${command.clusterId}, this is ${state.clusterId}`;
    return { kind: "refused", reason: "CLUSTER_MISMATCH", message };
  }
  if (command.clusterId !== "" && command.highestToken > state.token) {
    const message =
      `a client has seen token ${command.highestToken}, but this store has granted only up to ${state.token}: ` +
      "it has lost data, and grants nothing";
    if (state.halted === "") {
      state.halted = message;
      fx.events.push({ kind: "halted", why: message });
    }
    return { kind: "refused", reason: "STORE_DOWN", message };
  }
  return null;
}

function attachNew(state: State, fx: Effects, command: Attach): Outcome {
  if (state.sessions.size >= state.limits.sessionsMax) {
    return { kind: "refused", reason: "LIMIT", message: `the server has its ${state.limits.sessionsMax} sessions` };
  }
  const session = newSession(command.newSessionId, command.principal?.name ?? "", command.epoch);
  session.route = command.route;
  state.sessions.set(session.id, session);
  markDirty(state, session);
  fx.events.push({ kind: "sessionAttached", result: "new" });
  return { kind: "welcome", sessionId: session.id, epoch: session.epoch, resumed: false, lost: [] };
}

export function newSession(id: string, principal: string, epoch: number): Session {
  return {
    id,
    principal,
    epoch,
    route: null,
    ackedBelow: 0,
    unacked: new Map(),
    leases: new Map(),
    holds: new Set(),
    tickets: new Map(),
    contenders: null,
    dirty: false,
  };
}

function resume(state: State, fx: Effects, command: Attach, nowMs: number): Outcome {
  const session = state.sessions.get(command.sessionId);
  if (session === undefined) {
    fx.events.push({ kind: "sessionAttached", result: "unknown" });
    return { kind: "refused", reason: "UNKNOWN_SESSION", message: "no such session: all its leases are dead" };
  }
  const principal = command.principal ?? anybody;
  if (!mayUse(principal, session.principal)) return denied("session");
  if (command.epoch <= session.epoch) {
    fx.events.push({ kind: "sessionAttached", result: "stale" });
    const message = `epoch ${session.epoch} of this session has attached already`;
    return { kind: "refused", reason: "SESSION_REPLACED", message };
  }
  if (session.route !== null) fx.replies.push({ kind: "replaced", route: session.route });
  // So that all its leases are the principal's, or nobody's, whoever renews them.
  if (session.principal === "") session.principal = principal.name;
  session.epoch = command.epoch;
  session.route = command.route;
  markDirty(state, session);
  // Tickets are attached when their commands come again, not now: a wait that ended in between would be answered, and
  // then begin anew with the command.
  for (const ticket of session.tickets.values()) detachTicket(state, ticket, nowMs);
  for (const seq of command.abandoned) revoke(state, fx, session.leases.get(seq), true, nowMs);
  const lost = settleHeld(state, fx, session, command, nowMs);
  fx.events.push({ kind: "sessionAttached", result: "resumed" });
  return { kind: "welcome", sessionId: session.id, epoch: session.epoch, resumed: true, lost };
}

/**
 * Settles what this session holds and waits for: claimed is kept, outstanding will be answered when its command comes
 * again, and what is neither went to nobody. Each hold of an AcquireAll is settled by itself. Returns the claims that are
 * not held. The client is told anew of those that are being taken away.
 */
function settleHeld(state: State, fx: Effects, session: Session, command: Attach, nowMs: number): number[] {
  const claims = new Set(command.claims);
  const outstanding = new Set(command.outstanding);
  const lost = command.claims.filter((token) => {
    const hold = state.holds.get(token);
    return hold === undefined || !session.holds.has(hold) || hold.lease.dead !== null;
  });
  for (const hold of session.holds) {
    if (hold.lease.dead !== null) continue;
    const claimed = claims.has(hold.token);
    if (!claimed && !isOutstanding(session, hold, outstanding)) endHold(state, fx, hold, "undelivered", nowMs);
    else if (claimed && hold.revoking !== null) tellHolder(fx, hold, "forced", hold.revoking, true);
  }
  for (const ticket of session.tickets.values()) {
    if (!outstanding.has(ticket.seq)) removeTicket(state, fx, ticket, null, nowMs);
  }
  for (const [seq, effect] of session.unacked) {
    if (!outstanding.has(seq) && effect.kind !== "ticket") session.unacked.delete(seq);
  }
  return lost;
}

/** The client does not know of the grant yet, but will ask for it, and can still be told of it. */
function isOutstanding(session: Session, hold: Hold, outstanding: ReadonlySet<number>): boolean {
  if (!outstanding.has(hold.seq) || !isWhole(hold)) return false;
  const effect = session.unacked.get(hold.seq);
  return effect === hold || (effect?.kind === "hold" && effect.set !== null && effect.set === hold.set);
}

/** The stream of the session broke: its waiters keep their places for a while. */
export function detach(state: State, fx: Effects, session: Session, nowMs: number): void {
  session.route = null;
  for (const ticket of session.tickets.values()) detachTicket(state, ticket, nowMs);
  dropSessionIfOver(state, fx, session);
}
