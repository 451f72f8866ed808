/** Why a lease, a hold or a ticket may end in a step, told from the command alone. Everything else is a violation. */
import type { Attach, Command, Request } from "../../../src/server/core/types.js";
import { callIdentity, type HoldSnap, type LeaseSnap, sessionIdentity, type TicketSnap } from "./snapshot.js";

/** What a step was, and what had been promised before it. */
export interface StepContext {
  readonly command: Command;
  readonly nowMs: number;
  readonly resumeMs: number;
  /** The timestamp of the grant whose call is gone; the holds of an AcquireAll share it. */
  readonly gone: number | undefined;
  /** Ids of the tickets that were refused because they closed a knot. */
  readonly deadlocked: ReadonlySet<string>;
  /** Until when a lease may not expire. */
  readonly promised: ReadonlyMap<string, number>;
  /** Since when a ticket is detached, by serial. */
  readonly detachedSince: ReadonlyMap<number, number>;
  /** Since when every call that was told of a token is known to be gone. */
  readonly undeliveredSince: ReadonlyMap<number, number>;
}

/** The requests of a command, with the session that sent them. */
export function requestsOf(
  command: Command,
): readonly { request: Request; sessionId: string; seq: number; principal: string }[] {
  if (command.kind !== "call" && command.kind !== "frame") return [];
  const principal = command.principal?.name ?? "";
  if (command.kind === "call") return [{ request: command.request, sessionId: "", seq: 0, principal }];
  const { sessionId } = command;
  return command.requests.flatMap(({ seq, request }) =>
    request.kind === "refused" ? [] : [{ request, sessionId, seq, principal }],
  );
}

/** The identity of the Acquire that a CancelAcquire names. */
export function cancelTarget(request: Request, sessionId: string, principal: string): string {
  if (request.kind !== "cancelAcquire") return "";
  const { target } = request;
  return target.kind === "session"
    ? sessionIdentity(sessionId, target.seq)
    : callIdentity(target.leaseId, principal, target.requestId);
}

export function mayLeaseEnd(step: StepContext, lease: LeaseSnap): boolean {
  if (lease.dead) return true;
  const { command, promised, nowMs } = step;
  if (command.kind === "expire") return (promised.get(lease.id) ?? Number.NEGATIVE_INFINITY) <= nowMs;
  if (command.kind === "attach") return settles(command, lease.session) && command.abandoned.includes(lease.seq);
  return requestsOf(command).some(({ request, sessionId, principal }) => {
    if (request.kind !== "revokeLease" || !isFor(principal, lease)) return false;
    const target = request.lease;
    if (target.kind === "lease") return target.leaseId === lease.id;
    return lease.session === sessionId && lease.seq === target.seq;
  });
}

/** What belongs to one principal is not for another. */
export const isFor = (principal: string, lease: LeaseSnap): boolean =>
  principal === "" || lease.principal === "" || lease.principal === principal;

const settles = (command: Attach, sessionId: string): boolean => sessionId !== "" && command.sessionId === sessionId;

function isCancelled(command: Command, identity: string, lease: LeaseSnap): boolean {
  if (identity === "") return false;
  return requestsOf(command).some(({ request, sessionId, principal }) => {
    return cancelTarget(request, sessionId, principal) === identity && isFor(principal, lease);
  });
}

export function mayHoldEnd(step: StepContext, hold: HoldSnap, lease: LeaseSnap): boolean {
  if (mayLeaseEnd(step, lease)) return true;
  const { command, nowMs, resumeMs } = step;
  switch (command.kind) {
    case "expire":
      if (hold.maxHoldUntilMs <= nowMs || hold.revokingUntilMs <= nowMs) return true;
      return (step.undeliveredSince.get(hold.token) ?? Number.POSITIVE_INFINITY) + resumeMs <= nowMs;
    case "attach":
      if (!settles(command, hold.session)) return false;
      // What cannot be delivered as a whole is not delivered.
      return !command.claims.includes(hold.token) && !(command.outstanding.includes(hold.seq) && hold.whole);
    case "callGone":
      return hold.identity === "" && hold.timestamp === step.gone;
    case "detach":
      return false;
    default:
      return isReleased(command, hold, lease) || isCancelled(command, hold.identity, lease);
  }
}

function isReleased(command: Command, hold: HoldSnap, lease: LeaseSnap): boolean {
  return requestsOf(command).some(({ request, principal }) => {
    if (request.kind === "forceRelease") {
      return request.now && request.name === hold.lock && (request.token === 0 || request.token === hold.token);
    }
    if (request.kind !== "release" && request.kind !== "transfer") return false;
    if (!isFor(principal, lease)) return false;
    return request.name === hold.lock && request.token === hold.token;
  });
}

export function mayTicketEnd(step: StepContext, ticket: TicketSnap, lease: LeaseSnap): boolean {
  if (mayLeaseEnd(step, lease)) return true;
  if (step.deadlocked.has(`T${ticket.serial}`)) return ticket.contenderId !== "" || ticket.heldTokens.length > 0;
  const { command, nowMs, resumeMs } = step;
  const since = step.detachedSince.get(ticket.serial);
  switch (command.kind) {
    case "expire":
      return since === undefined ? ticket.waitUntilMs <= nowMs : since + resumeMs <= nowMs;
    case "attach":
      return settles(command, ticket.session) && !command.outstanding.includes(ticket.seq);
    case "callGone":
      return command.route === ticket.route && ticket.identity === "";
    case "detach":
      return false;
    default:
      return isCancelled(command, ticket.identity, lease) || isOverdue(command, ticket, nowMs);
  }
}

/** A poll that comes after the wait was over ends the ticket. */
function isOverdue(command: Command, ticket: TicketSnap, nowMs: number): boolean {
  if (ticket.waitUntilMs > nowMs || ticket.identity === "") return false;
  return requestsOf(command).some(({ request, sessionId, principal }) => {
    if (request.kind !== "acquire" || sessionId !== "") return false;
    return acquireIdentity(request, "", 0, principal) === ticket.identity;
  });
}

export function acquireIdentity(request: Request, sessionId: string, seq: number, principal: string): string {
  if (request.kind !== "acquire") return "";
  if (sessionId !== "") return sessionIdentity(sessionId, seq);
  return callIdentity(request.holder.kind === "lease" ? request.holder.leaseId : "", principal, request.requestId);
}
