/** Which request does what. Inside a session each has one effect, however often it is sent. */
import { acquire, type Caller, cancelledRequest } from "./acquire.js";
import { cancelAcquire } from "./cancel.js";
import { forceRelease } from "./force.js";
import { downgrade, findHold, release, setMetadata, transfer } from "./handover.js";
import { ended, grantOutcome } from "./holds.js";
import { revoke } from "./lease-end.js";
import { createLease, liveLease, remainingMs, renewLease, unknownLease, viewLease } from "./leases.js";
import { denied, mayUse } from "./principals.js";
import type { Hold, Lease, Session, SessionOutcome, State, Ticket } from "./state.js";
import { reattachTicket } from "./tickets.js";
import type { CreateLease, Effects, Outcome, Refusal, RenewLease, Request, Tick } from "./types.js";
import { counts, describeLock, listLeases, listLocks, topLocks } from "./views.js";

/** Executes a request. Returns the answer, or null when it follows later through the caller's route. */
export function execute(state: State, fx: Effects, request: Request, caller: Caller, nowMs: number): Outcome | null {
  switch (request.kind) {
    case "acquire":
      return acquire(state, fx, request, caller, nowMs);
    case "release":
      return release(state, fx, request, caller, nowMs);
    case "cancelAcquire":
      return cancelAcquire(state, fx, request, caller, nowMs);
    case "transfer":
      return transfer(state, fx, request, caller, nowMs);
    case "downgrade":
      return downgrade(state, fx, request, caller);
    case "setMetadata":
      return setMetadata(state, fx, request, caller);
    case "createLease":
      return create(state, fx, request, caller, nowMs);
    case "renewLease":
      return renew(state, fx, request, caller, nowMs);
    case "revokeLease": {
      const { lease } = request;
      const target = lease.kind === "lease" ? liveLease(state, lease.leaseId) : caller.session?.leases.get(lease.seq);
      if (target !== undefined && !mayUse(caller.principal, target.principal)) return denied("lease");
      return revoke(state, fx, target, request.expired, nowMs);
    }
    case "forceRelease":
      return forceRelease(state, fx, request, nowMs);
    case "tick":
      return tick(state, fx, request, nowMs);
    default:
      return read(state, request, caller, nowMs);
  }
}

type Read = Extract<
  Request,
  { kind: "getLease" | "listLeases" | "validate" | "describeLock" | "listLocks" | "topLocks" | "status" }
>;

/** What changes nothing. */
function read(state: State, request: Read, caller: Caller, nowMs: number): Outcome {
  switch (request.kind) {
    case "getLease": {
      const lease = liveLease(state, request.leaseId);
      if (lease === undefined) return unknownLease;
      if (!mayUse(caller.principal, lease.principal)) return denied("lease");
      return { kind: "lease", lease: viewLease(lease, nowMs) };
    }
    case "listLeases":
      return listLeases(state, request, nowMs);
    case "validate": {
      const hold = findHold(state, request.name, request.token);
      return { kind: "validated", held: hold !== undefined && hold.revoking === null };
    }
    case "describeLock":
      return describeLock(state, request, nowMs);
    case "listLocks":
      return listLocks(state, request, nowMs);
    case "topLocks":
      return topLocks(state, request, nowMs);
    case "status":
      return { kind: "status", counts: counts(state, nowMs) };
  }
}

function create(state: State, fx: Effects, request: CreateLease, caller: Caller, nowMs: number): Outcome {
  const lease = createLease(state, fx, request, false, caller.principal, caller.session, caller.seq, nowMs);
  if (lease.kind === "refused") return lease;
  caller.session?.unacked.set(caller.seq, lease);
  return { kind: "lease", lease: viewLease(lease, nowMs) };
}

function renew(state: State, fx: Effects, request: RenewLease, caller: Caller, nowMs: number): Outcome {
  const { leaseId, progress } = request;
  const lease = liveLease(state, leaseId);
  if (lease === undefined) {
    fx.events.push({ kind: "leaseRenewed", result: "unknown", slackRatio: 0 });
    return unknownLease;
  }
  if (!mayUse(caller.principal, lease.principal)) return denied("lease");
  renewLease(state, fx, lease, progress, nowMs);
  const revoking = [...(lease.revoking ?? [])].map((hold) => ({ token: hold.token, message: hold.revoking ?? "" }));
  const { displayId, owner, ttlMs } = lease;
  return { kind: "renewed", displayId, owner, ttlMs, remainingMs: remainingMs(lease, nowMs), revoking };
}

function tick(state: State, fx: Effects, request: Tick, nowMs: number): Outcome {
  const ahead = observe(state, fx, request.observed, nowMs);
  if (ahead > 0) {
    const message = `the observed timestamp is ${ahead} ahead of the server's clock, more than it may be moved at once`;
    return { kind: "refused", reason: "CLOCK_JUMP", message };
  }
  const last = state.clock.take(request.count);
  return { kind: "ticks", first: last - request.count + 1, last };
}

/** Takes in what a client has observed. Returns 0, or by how much it is too far ahead. */
export function observe(state: State, fx: Effects, observed: number, nowMs: number): number {
  if (observed === 0) return 0;
  const ahead = state.clock.observe(observed, nowMs);
  if (ahead > 0) fx.events.push({ kind: "clockJumpRefused" });
  return ahead;
}

/** Executes a command of a session, or answers once more what it did when it came for the first time. */
export function executeOnce(
  state: State,
  fx: Effects,
  request: Request | Refusal,
  caller: Caller,
  session: Session,
  nowMs: number,
): Outcome | null {
  const { seq } = caller;
  const effect = session.unacked.get(seq);
  const late = seq < session.ackedBelow; // a duplicate: its answer has arrived long ago
  // What is refused on its way here may have been permitted when it came for the first time: then its effect counts.
  if (effect !== undefined) return late ? null : again(state, effect, request, caller, nowMs);
  if (request.kind === "refused") return request;
  if (late) return null;
  const { commandsPerSessionMax } = state.limits;
  // What ends something gets through when the session is full of waiters for what it holds itself.
  const most = endsSomething(request) ? 2 * commandsPerSessionMax : commandsPerSessionMax;
  if (session.unacked.size >= most) {
    const message = `the session has its ${commandsPerSessionMax} unanswered or unacknowledged commands`;
    return { kind: "refused", reason: "LIMIT", message };
  }
  return execute(state, fx, request, caller, nowMs);
}

/** The answer to a command that has had its effect. */
function again(
  state: State,
  effect: Lease | Hold | Ticket | SessionOutcome,
  request: Request | Refusal,
  caller: Caller,
  nowMs: number,
): Outcome | null {
  switch (effect.kind) {
    case "lease":
      return effect.dead === null ? { kind: "lease", lease: viewLease(effect, nowMs) } : unknownLease;
    case "hold":
      return effect.lease.dead === null ? grantOutcome(effect, nowMs) : unknownLease;
    case "ticket":
      if (effect.route !== caller.route) {
        // The client says how long it goes on waiting; since a restart nobody else knows how long it has waited.
        if (request.kind === "acquire") effect.waitUntilMs = Math.min(effect.waitUntilMs, nowMs + request.waitMs);
        reattachTicket(state, effect, caller.route, Number.POSITIVE_INFINITY, nowMs);
      }
      return null; // it waits; the answer will come
    case "transferred":
      return { kind: "transferred", token: effect.token };
    case "cancelled":
      return cancelledRequest;
    case "ended":
      return effect.token === 0 ? unknownLease : ended(effect.token);
    default:
      return effect;
  }
}

function endsSomething({ kind }: Request): boolean {
  return kind === "release" || kind === "transfer" || kind === "cancelAcquire" || kind === "revokeLease";
}
