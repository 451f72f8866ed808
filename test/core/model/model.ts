/**
 * A second implementation of `docs/semantics.md`, plain and slow, to hold against the core.
 *
 * It has no queues, no indexes, no deadlines in a heap and no caches: leases, tickets and holds are arrays, every question
 * is answered by looking through them, and the death of a lease takes away at once whatever hangs on it. It gets the same
 * commands at the same times, and says what everybody has to be told and what happens to every lock, numbers and
 * timestamps included.
 *
 * **How the two are compared.** The core works in slices: what a lease leaves behind, what is due and what can be granted
 * is worked off a bounded piece at a time, and the model cannot know when each piece comes. So there are three kinds of
 * runs (see the simulator):
 *
 * - With large slices every step of the core must say exactly what the model says, and leave as many leases, locks, holds
 *   and tickets.
 * - With small slices, each step is followed by as many `expire` commands as the core needs to come to rest, and the model
 *   makes the same step followed by one. What was said in all, and the holds and tokens, must agree; timestamps need not,
 *   since clearing away and granting may take turns.
 * - With small slices that are left to come when they come, in between other commands, crashes and restarts, only the
 *   checkers judge.
 *
 * **What is left open.** The semantics say what happens, not always in which order: of two things that are due either may
 * come first, and what one request has freed may be granted in any order. There the model looks at what the
 * core has done and does the same if it is allowed (`hints`). After a restart numbers go on where the core lets them;
 * that they rise is the checkers' business.
 */
import { anybody, type Call, type Command, type Frame, type Request } from "../../../src/server/core/types.js";
import { type Asker, acquire, callGone, cancel, isReserved, timeOut, waiting } from "./acquiring.js";
import { attach, detach } from "./attaching.js";
import { type CoreDid, Hints } from "./hints.js";
import { downgrade, endByTime, forceRelease, release, setMetadata, transfer } from "./holding.js";
import { newLease, renew, viewLease } from "./leases.js";
import { isThere, type Meaning, type Said } from "./meaning.js";
import { denied, isWithin, mayUse } from "./owning.js";
import {
  deadlineMs,
  type ModelEffect,
  type ModelHold,
  type ModelLease,
  type ModelState,
  type ModelTicket,
  untilThen,
} from "./state.js";
import { inOrder, placesOf, refused, Step, ticketId, unknownLease } from "./step.js";

export interface Predicted {
  readonly replies: readonly Said[];
  readonly events: readonly Meaning[];
}

export function stepModel(
  state: ModelState,
  command: Command,
  nowMs: number,
  latestMs: number,
  did: CoreDid,
): Predicted {
  const step = new Step(state, command.kind === "expire" ? latestMs : nowMs, new Hints(did));
  switch (command.kind) {
    case "call":
      call(step, command);
      break;
    case "frame":
      frame(step, command);
      break;
    case "attach": {
      const clockAheadBy = observe(step, command.observed);
      const outcome = attach(step, command);
      step.answer(command.route, 0, outcome, clockAheadBy);
      break;
    }
    case "detach":
      detach(step, command.sessionId, command.epoch);
      break;
    case "callGone":
      callGone(step, command.route, command.token);
      break;
    case "expire":
      expire(step, nowMs);
      break;
  }
  step.settle();
  return step;
}

function observe(step: Step, observed: number): number {
  return observed === 0 ? 0 : step.state.clock.observe(observed, step.nowMs);
}

function call(step: Step, { request, route, principal = anybody, observed }: Call): void {
  const clockAheadBy = request.kind === "tick" ? 0 : observe(step, observed);
  const outcome = execute(step, request, { route, principal, session: null, seq: 0 });
  if (outcome !== null) step.answer(route, 0, outcome, clockAheadBy);
}

function frame(step: Step, command: Frame): void {
  const session = step.session(command.sessionId);
  if (session === undefined || session.route === null || session.epoch !== command.epoch) return;
  const { route, unacked } = session;
  const { principal = anybody } = command;
  for (const [seq, effect] of unacked) {
    const acked = seq < command.ackedBelow || command.acked.includes(seq);
    if (acked && effect.kind !== "ticket") unacked.delete(seq);
  }
  session.ackedBelow = Math.max(session.ackedBelow, command.ackedBelow);
  const clockAheadBy = observe(step, command.observed);
  for (const lease of step.state.leases.filter(({ sessionId }) => sessionId === session.id)) {
    const progress = command.progress.includes(lease.seq);
    if (!command.renew && !progress) continue;
    renew(step, lease, progress);
    const remainingMs = untilThen(deadlineMs(lease), step.nowMs);
    step.say(route, { kind: "renewal", frame: command.frame, leaseSeq: lease.seq, remainingMs });
  }
  for (const { seq, request } of command.requests) {
    const asker: Asker = { route, principal, session, seq };
    const outcome = request.kind === "refused" ? refused(request.reason) : executeOnce(step, request, asker);
    if (outcome !== null) step.answer(route, seq, outcome);
    step.settle();
  }
  step.say(route, { kind: "processed", frame: command.frame, clockAheadBy });
}

/** Executes a command of a session, or says once more what came of it. */
function executeOnce(step: Step, request: Request, asker: Asker): Meaning | null {
  const session = asker.session as NonNullable<Asker["session"]>;
  if (asker.seq < session.ackedBelow) return null; // a late duplicate
  const effect = session.unacked.get(asker.seq);
  return effect === undefined ? execute(step, request, asker) : repeat(step, request, effect, asker);
}

function repeat(step: Step, request: Request, effect: ModelEffect, asker: Asker): Meaning | null {
  switch (effect.kind) {
    case "lease": {
      const lease = step.lease(effect.leaseId);
      return lease === undefined ? unknownLease : viewLease(step, lease);
    }
    case "ticket": {
      const ticket = step.state.tickets.find(({ serial }) => serial === effect.serial);
      if (ticket !== undefined && ticket.route !== asker.route) {
        if (request.kind === "acquire") ticket.waitUntilMs = Math.min(ticket.waitUntilMs, step.nowMs + request.waitMs);
        step.attach(ticket, asker.route, Number.POSITIVE_INFINITY);
      }
      return null; // it waits; the answer will come
    }
    case "grant": {
      const hold = step.state.holds.find(({ grant }) => grant.tokens[0] === effect.token);
      return hold === undefined ? refused("STALE_TOKEN") : step.grantOutcome(hold.grant, step.nowMs);
    }
    case "released":
    case "downgraded":
    case "metadataSet":
      return { kind: effect.kind };
    case "transferred":
      return { kind: "transferred", token: effect.token };
    case "cancelled":
      return refused("CANCELLED_REQUEST");
    case "ended":
      return effect.token === 0 ? unknownLease : refused("STALE_TOKEN");
  }
}

function execute(step: Step, request: Request, asker: Asker): Meaning | null {
  const { state, nowMs } = step;
  switch (request.kind) {
    case "acquire":
      return acquire(step, request, asker);
    case "cancelAcquire":
      return cancel(step, request, asker);
    case "release":
      return release(step, request, asker);
    case "transfer":
      return transfer(step, request, asker);
    case "downgrade":
      return downgrade(step, request, asker);
    case "setMetadata":
      return setMetadata(step, request, asker);
    case "forceRelease":
      return forceRelease(step, request);
    case "createLease": {
      const { leaseId, ttlMs, progressEveryMs } = request;
      const sessionId = asker.session?.id ?? "";
      const { principal, seq } = asker;
      if (!isWithin(state, principal, { leases: 1 })) return refused("LIMIT");
      const of = { sessionId, seq, own: false, principal: principal.name };
      const lease = newLease(step, { id: leaseId, ttlMs, progressEveryMs, ...of });
      step.remember(sessionId, asker.seq, { kind: "lease", leaseId });
      return viewLease(step, lease);
    }
    case "renewLease":
      if (!mayUse(asker.principal, step.lease(request.leaseId)?.principal ?? "")) return denied;
      return renewed(step, step.lease(request.leaseId), request.progress);
    case "revokeLease": {
      const { lease: target } = request;
      const lease = state.leases.find(({ id, sessionId, seq }) =>
        target.kind === "lease" ? id === target.leaseId : sessionId === asker.session?.id && seq === target.seq,
      );
      if (lease !== undefined && !mayUse(asker.principal, lease.principal)) return denied;
      if (lease !== undefined) step.endLease(lease, request.expired ? "expired" : "revoked");
      return { kind: "revoked", revoked: lease !== undefined };
    }
    case "getLease": {
      const lease = step.lease(request.leaseId);
      if (lease === undefined) return unknownLease;
      return mayUse(asker.principal, lease.principal) ? viewLease(step, lease) : denied;
    }
    case "listLeases": {
      const leases = state.leases.slice(0, request.limit).map((lease) => {
        return { leaseId: lease.id, remainingMs: untilThen(deadlineMs(lease), nowMs) };
      });
      return { kind: "leases", leases };
    }
    case "validate": {
      const hold = step.hold(request.token);
      return { kind: "validated", held: hold?.name === request.name && hold.revoking === null };
    }
    case "describeLock":
      return viewLock(step, request.name, request.waitersMax);
    case "listLocks":
      return listLocks(step, request.prefix, request.after, request.limit);
    case "tick": {
      if (observe(step, request.observed) > 0) return refused("CLOCK_JUMP");
      const first = state.clock.now + 1;
      state.clock.now += request.count;
      return { kind: "ticks", first, last: state.clock.now };
    }
    case "topLocks":
      return { kind: "top" };
    case "status":
      return { kind: "status" };
  }
}

function renewed(step: Step, lease: ModelLease | undefined, progress: boolean): Meaning {
  if (lease === undefined) return unknownLease;
  renew(step, lease, progress);
  const holds = step.state.holds.filter(({ grant, revoking }) => {
    return grant.leaseId === lease.id && grant.seq === 0 && revoking !== null;
  });
  const revoking = holds.map((hold) => `${hold.token} ${hold.revoking?.message}`).sort();
  return { kind: "renewed", ttlMs: lease.ttlMs, remainingMs: untilThen(deadlineMs(lease), step.nowMs), revoking };
}

function viewLock(step: Step, name: string, waitersMax: number): Meaning {
  const holds = step.holdsOf(name);
  const queue = step.queueOf(name);
  return {
    kind: "lock",
    name,
    holders: holds.map(({ token, mode, revoking, slots }) => ({ token, mode, revoking: revoking !== null, slots })),
    holdersTotal: holds.length,
    waiters: queue.slice(0, waitersMax).map((ticket, index) => ({
      ticketId: ticketId(ticket),
      position: index + 1,
      attached: ticket.route !== null,
      locks: ticket.items.length,
    })),
    waitersTotal: queue.length,
    reserved: isReserved(step, name),
    delayRemainingMs: step.delayMs(name),
  };
}

/** The names of all locks that exist, sorted; a delay that has run out may not have come up yet. */
export function lockNames(state: ModelState, runOutMs: number): string[] {
  const waited = state.tickets.flatMap(({ items }) => items);
  const delays = state.delays.filter(({ untilMs }) => untilMs > runOutMs);
  return [...new Set([...state.holds, ...waited, ...delays].map(({ name }) => name))].sort();
}

function listLocks(step: Step, prefix: string, after: string, limit: number): Meaning {
  const all = lockNames(step.state, Number.NEGATIVE_INFINITY);
  const page = all.filter((name) => name.startsWith(prefix) && name > after).slice(0, limit);
  const locks = page.map((name) => ({
    name,
    holdersTotal: step.holdsOf(name).length,
    waitersTotal: step.queueOf(name).length,
    reserved: isReserved(step, name),
    delayRemainingMs: step.delayMs(name),
  }));
  return { kind: "locks", locks: locks.filter(isThere) };
}

// ---------------------------------------------------------------------------------------------- what is due

interface Due {
  readonly dueMs: number;
  /** How soon the core did it. */
  readonly rank: number;
  readonly act: () => void;
}

/** Works off what was due at `asOfMs`, in the order in which the core did. */
function expire(step: Step, asOfMs: number): void {
  for (;;) {
    const due = dueItems(step, asOfMs).filter(({ dueMs }) => dueMs <= asOfMs);
    const first = inOrder(due.sort((a, b) => a.dueMs - b.dueMs))[0];
    if (first === undefined) return;
    first.act();
    step.settle();
  }
}

function dueItems(step: Step, asOfMs: number): Due[] {
  const { state } = step;
  const due: Due[] = [];
  for (const lease of state.leases) {
    const { id } = lease;
    const ends = state.holds.filter(({ grant }) => grant.leaseId === id).map(({ token }) => `${token} expired`);
    const places = state.tickets.filter(({ leaseId }) => leaseId === id).flatMap(placesOf);
    const rank = Math.min(step.hints.rank(["holdEnded"], ends), step.hints.rank(["dequeued"], places));
    due.push({ dueMs: deadlineMs(lease), rank, act: () => step.endLease(lease, "expired") });
  }
  for (const hold of state.holds) due.push(...dueOfHold(step, hold));
  for (const ticket of state.tickets) due.push(dueOfTicket(step, ticket, asOfMs));
  for (const delay of state.delays) {
    const { name, untilMs } = delay;
    const act = () => {
      state.delays = state.delays.filter((other) => other !== delay);
      step.touch(name);
    };
    due.push({ dueMs: untilMs, rank: step.hints.rank(["grantedTo"], step.queueOf(name).map(ticketId)), act });
  }
  for (const past of state.pasts) {
    const act = () => {
      state.pasts = state.pasts.filter((other) => other !== past);
    };
    due.push({ dueMs: past.forgetMs, rank: 0, act });
  }
  return due;
}

function dueOfHold(step: Step, hold: ModelHold): Due[] {
  const { grant, maxHoldUntilMs, revoking, token } = hold;
  const rank = (end: string) => step.hints.rank(["holdEnded"], [`${token} ${end}`]);
  const takeBack = () => step.endHold(hold, "undelivered", false);
  const due: Due[] = [
    { dueMs: grant.fetchUntilMs, rank: rank("undelivered"), act: takeBack },
    { dueMs: maxHoldUntilMs, rank: rank("max_hold"), act: () => endByTime(step, hold, "max_hold") },
  ];
  if (revoking === null) return due;
  return [...due, { dueMs: revoking.untilMs, rank: rank("forced"), act: () => endByTime(step, hold, "forced") }];
}

function dueOfTicket(step: Step, ticket: ModelTicket, asOfMs: number): Due {
  const { hints } = step;
  // Due for itself and with its lease: the core shows which came first.
  const died = hints.diedWithLease(ticketId(ticket)) ? 0.5 : -0.5;
  const rank = hints.rank(["dequeued"], placesOf(ticket)) + died;
  const { route, waitUntilMs, pollUntilMs, detachedMs, seq } = ticket;
  if (route === null) {
    return { dueMs: detachedMs + step.state.limits.resumeMs, rank, act: () => step.dequeue(ticket) };
  }
  if (waitUntilMs <= asOfMs) {
    return { dueMs: Math.min(waitUntilMs, pollUntilMs), rank, act: () => void timeOut(step, ticket) };
  }
  const outcome = waiting(step, ticket);
  // Told to go on waiting, it is not granted any more in this step: then that comes when it is what the core has told.
  const told = hints.told(route, seq);
  const now = hints.exact ? told.includes(JSON.stringify(outcome)) : told.some((text) => text.includes('"waiting"'));
  const act = () => {
    step.answer(route, 0, outcome);
    step.detach(ticket);
  };
  return { dueMs: pollUntilMs, rank: now ? -1 : Number.POSITIVE_INFINITY, act };
}
