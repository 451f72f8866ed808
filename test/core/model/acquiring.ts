/** Acquire, its polls, and its withdrawal. */
import type { Acquire, CancelAcquire, LockItem, Principal, Route } from "../../../src/server/core/types.js";
import { knotsOf } from "./knots.js";
import { newLease, renew } from "./leases.js";
import type { Meaning } from "./meaning.js";
import { denied, isWithin, mayUse } from "./owning.js";
import {
  deadlineMs,
  type ModelEffect,
  type ModelHold,
  type ModelLease,
  type ModelPast,
  type ModelSession,
  type ModelTicket,
  untilThen,
} from "./state.js";
import { inOrder, refused, type Step, ticketId, unknownLease } from "./step.js";

/** Who asks. */
export interface Asker {
  readonly route: Route;
  readonly principal: Principal;
  /** Null and 0: a unary call. */
  readonly session: ModelSession | null;
  readonly seq: number;
}

/** Within the lease that it names, or else within what its principal asks for. */
const requestKey = (leaseId: string, { name }: Principal, requestId: string): string =>
  requestId === "" ? "" : JSON.stringify([leaseId, leaseId === "" ? name : "", requestId]);

const leaseIdOf = ({ holder }: Acquire): string => (holder.kind === "lease" ? holder.leaseId : "");

/** Whether a lease of that id is there and is not for whoever asks. */
const isOthers = (step: Step, leaseId: string, { principal }: Asker): boolean =>
  !mayUse(principal, step.lease(leaseId)?.principal ?? "");

/** Null: the answer comes later. */
export function acquire(step: Step, request: Acquire, asker: Asker): Meaning | null {
  const { state, nowMs } = step;
  const { principal } = asker;
  if (isOthers(step, leaseIdOf(request), asker)) return denied;
  const key = asker.session === null ? requestKey(leaseIdOf(request), principal, request.requestId) : "";
  if (key !== "") {
    const again = acquireAgain(step, key, request, asker);
    if (again !== undefined) return again;
  }
  if (state.halted) return refused("STORE_DOWN");
  const named = holderOf(step, request, asker);
  if (named !== null && "kind" in named) return named;
  if (!ownsNamed(step, request, asker, named)) return refused("INVALID");
  const missing = request.items.find((item) => step.queueOf(item.name).length > 0 || !step.fits(item));
  if (missing !== undefined && request.waitMs === 0) return busy(step, missing.name, request.all, null);
  const wanted = request.items.length;
  if (!isWithin(state, principal, { locks: wanted, waiters: missing === undefined ? 0 : wanted }))
    return refused("LIMIT");
  if (named === null && !isWithin(state, principal, { leases: 1 })) return refused("LIMIT");
  const lease = named ?? ownLease(step, request, principal);
  const { all, contenderId, lockDelayMs, maxHoldMs, waitMs, items } = request;
  const heldTokens = request.heldTokens.filter((token) => step.hold(token) !== undefined);
  const sessionId = asker.session?.id ?? "";
  const origin = { leaseId: lease.id, sessionId, seq: asker.seq, key, all, contenderId, lockDelayMs };
  if (missing === undefined) return step.grant(origin, items, maxHoldMs, null);
  const waits = { waitMs, waitUntilMs: nowMs + waitMs, maxHoldMs, heldTokens };
  const pollUntilMs = pollUntil(request, asker, lease, nowMs);
  const polls = { route: asker.route, askedMs: nowMs, pollUntilMs, detachedMs: 0 };
  return enqueue(step, { ...origin, serial: ++state.serial, items, ...waits, ...polls });
}

function enqueue(step: Step, ticket: ModelTicket): Meaning | null {
  const { state } = step;
  state.tickets.push(ticket);
  const knots = knotsOf(state);
  const circle = knots.claims(ticket) ? knots.circleFrom(ticket) : [];
  if (circle.includes(ticket)) {
    const outcome = step.knotOutcome(knots, circle);
    state.tickets.pop();
    for (const { name } of ticket.items) step.touch(name);
    return outcome;
  }
  for (const { name } of ticket.items) {
    step.happen("queued", name, state.clock.take(), { ticketId: ticketId(ticket) });
  }
  step.remember(ticket.sessionId, ticket.seq, { kind: "ticket", serial: ticket.serial });
  return null;
}

/** A call is held open for `pollMs`, but so that its lease is renewed in time by the next one. */
function pollUntil(request: Acquire, asker: Asker, lease: ModelLease, nowMs: number): number {
  if (asker.session !== null) return Number.POSITIVE_INFINITY;
  return nowMs + Math.min(request.pollMs, lease.ttlMs / 3);
}

/** The lease that it names, null for one of its own, or why not. */
function holderOf(step: Step, { holder }: Acquire, { session }: Asker): ModelLease | Meaning | null {
  if (holder.kind === "session") {
    const lease = step.state.leases.find(({ sessionId, seq }) => sessionId === session?.id && seq === holder.seq);
    return lease ?? unknownLease;
  }
  if (session !== null) return refused("INVALID");
  if (holder.kind === "own") return null;
  const lease = step.lease(holder.leaseId);
  if (lease === undefined) return unknownLease;
  return lease.own ? refused("INVALID") : lease;
}

function ownLease(step: Step, { holder }: Acquire, principal: Principal): ModelLease {
  if (holder.kind !== "own") throw new Error("not an Acquire with a lease of its own");
  return newLease(step, {
    id: holder.leaseId,
    ttlMs: holder.ttlMs,
    progressEveryMs: 0,
    sessionId: "",
    seq: 0,
    own: true,
    principal: principal.name,
  });
}

/** Whether the tokens that it keeps, of those that still hold something, are its own. */
function ownsNamed(step: Step, request: Acquire, { session }: Asker, lease: ModelLease | null): boolean {
  return request.heldTokens.every((token) => {
    const grant = step.hold(token)?.grant;
    if (grant === undefined) return true;
    return session !== null ? grant.sessionId === session.id && grant.seq > 0 : grant.leaseId === lease?.id;
  });
}

/** The same request id once more: a poll, or a duplicate. Undefined: it is new. */
function acquireAgain(step: Step, key: string, request: Acquire, asker: Asker): Meaning | null | undefined {
  const { state, nowMs } = step;
  const past = state.pasts.find((other) => other.key === key);
  const ticket = state.tickets.find((other) => other.key === key);
  const grant = state.holds.find((hold) => hold.grant.key === key)?.grant;
  // Of an AcquireAll some may have ended and others not: that is told below.
  if (past !== undefined && (past.end !== "ended" || grant === undefined)) return pastOutcome(step, past, request);
  const entry = ticket ?? grant;
  if (entry === undefined) return undefined;
  const names = ticket?.items.map(({ name }) => name) ?? grant?.names ?? [];
  if (names.join("\n") !== request.items.map(({ name }) => name).join("\n")) return refused("INVALID");
  const lease = step.lease(entry.leaseId) as ModelLease;
  renew(step, lease, false);
  if (grant !== undefined) {
    const outcome = step.grantOutcome(grant, nowMs);
    if (outcome.kind === "grant") {
      grant.fetchUntilMs = Number.POSITIVE_INFINITY;
      grant.told++;
    }
    return outcome;
  }
  const waits = ticket as ModelTicket;
  step.answer(waits.route, 0, waiting(step, waits)); // a newer call takes over
  if (waits.waitUntilMs <= nowMs) {
    step.detach(waits);
    return timeOut(step, waits);
  }
  step.attach(waits, asker.route, pollUntil(request, asker, lease, nowMs));
  return null;
}

function pastOutcome(step: Step, { end }: ModelPast, request: Acquire): Meaning {
  if (end === "cancelled") return refused("CANCELLED_REQUEST");
  if (end === "deadlock") return refused("DEADLOCK");
  if (end === "ended") return refused("STALE_TOKEN");
  return timedOut(step, request.items, request.all, null);
}

/** `leaving`: does not count among those who wait. */
function busy(step: Step, name: string, all: boolean, leaving: ModelTicket | null): Meaning {
  const holds = step.holdsOf(name);
  return {
    kind: "busy",
    name,
    all,
    holders: holds.slice(0, 10).map(({ token }) => token),
    holdersTotal: holds.length,
    waiters: step.queueOf(name).filter((ticket) => ticket !== leaving).length,
    reserved: isReserved(step, name),
    delayRemainingMs: step.delayMs(name),
    timedOut: false,
  };
}

/** Free for the first in the queue, and kept for it. */
export function isReserved(step: Step, name: string): boolean {
  const item = step.queueOf(name)[0]?.items.find((other) => other.name === name);
  return item !== undefined && step.fits(item);
}

/** About the first of its locks that is not free for it. */
function timedOut(step: Step, items: readonly LockItem[], all: boolean, leaving: ModelTicket | null): Meaning {
  const isFree = (item: LockItem) => step.queueOf(item.name)[0] === (leaving ?? undefined) && step.fits(item);
  const { name } = (items.find((item) => !isFree(item)) ?? items[0]) as LockItem;
  return { ...busy(step, name, all, leaving), timedOut: true };
}

/** The wait is over. Returns what its caller is told, and has told it if it was attached. */
export function timeOut(step: Step, ticket: ModelTicket): Meaning {
  const outcome = timedOut(step, ticket.items, ticket.all, ticket);
  step.answer(ticket.route, ticket.seq, outcome);
  step.dequeue(ticket);
  step.past(ticket.key, "timedOut");
  return outcome;
}

export function waiting(step: Step, ticket: ModelTicket): Meaning {
  const places = ticket.items.map(({ name }) => step.queueOf(name).indexOf(ticket) + 1);
  const lease = step.lease(ticket.leaseId) as ModelLease;
  return {
    kind: "waiting",
    all: ticket.all,
    ticketId: ticketId(ticket),
    position: places.find((place) => place > 1) ?? 1,
    pollWithinMs: Math.min(step.state.limits.resumeMs, untilThen(deadlineMs(lease), step.nowMs)),
  };
}

const ofAcquire: readonly ModelEffect["kind"][] = ["ticket", "grant", "cancelled", "ended"];

export function cancel(step: Step, { target }: CancelAcquire, asker: Asker): Meaning {
  const { state } = step;
  const { session } = asker;
  if (target.kind === "session") {
    if (session === null) return refused("INVALID");
    const effect: ModelEffect | undefined = session.unacked.get(target.seq);
    if (effect !== undefined && !ofAcquire.includes(effect.kind)) return refused("INVALID");
    const mine = { sessionId: session.id, seq: target.seq };
    const what = withdraw(step, (origin) => origin.sessionId === mine.sessionId && origin.seq === mine.seq);
    step.remember(session.id, target.seq, { kind: "cancelled" });
    return { kind: "cancelled", what };
  }
  if (isOthers(step, target.leaseId, asker)) return denied;
  const key = requestKey(target.leaseId, asker.principal, target.requestId);
  const what = withdraw(step, (origin) => origin.key === key);
  if (state.pasts.find((past) => past.key === key)?.end !== "cancelled") step.past(key, "cancelled");
  return { kind: "cancelled", what };
}

type Names = (origin: { readonly sessionId: string; readonly seq: number; readonly key: string }) => boolean;

function withdraw(step: Step, names: Names): "nothing" | "ticket" | "grant" {
  const ticket = step.state.tickets.find(names);
  if (ticket !== undefined) {
    step.answer(ticket.route, ticket.seq, refused("CANCELLED_REQUEST"));
    step.dequeue(ticket);
    return "ticket";
  }
  const holds = step.state.holds.filter(({ grant }) => names(grant));
  for (const hold of holds) step.endHold(hold, "cancelled", false);
  return holds.length > 0 ? "grant" : "nothing";
}

/** The call of a unary Acquire is gone, before (null) or after it was granted a token. */
export function callGone(step: Step, route: Route, token: number | null): void {
  const { state, nowMs } = step;
  const ticket = state.tickets.find((other) => other.route === route);
  if (ticket !== undefined) {
    if (ticket.key !== "") step.detach(ticket);
    else step.dequeue(ticket);
  }
  const grant = state.holds.find((hold) => hold.grant.tokens.includes(token ?? 0))?.grant;
  if (grant === undefined || --grant.told > 0) return;
  if (grant.key !== "") grant.fetchUntilMs = nowMs + state.limits.resumeMs;
  else endAll(step, (hold) => hold.grant === grant);
}

/** Nobody could be told of these. */
function endAll(step: Step, which: (hold: ModelHold) => boolean): void {
  const holds = step.state.holds.filter(which).map((hold) => {
    const end = () => step.endHold(hold, "undelivered", false);
    return { rank: step.hints.rank(["holdEnded"], [`${hold.token} undelivered`]), end };
  });
  for (const { end } of inOrder(holds)) end();
}
