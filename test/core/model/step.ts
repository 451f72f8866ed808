/** One step of the model: what it says, what happens to locks, and the one rule of granting. */
import type { HoldEnd, LockItem, Route } from "../../../src/server/core/types.js";
import { fitsBeside, freeSlots } from "./compatible.js";
import { type Hints, labelOf } from "./hints.js";
import { knotsOf } from "./knots.js";
import type { Meaning, Said } from "./meaning.js";
import {
  deadlineMs,
  type ModelEffect,
  type ModelGrant,
  type ModelHold,
  type ModelLease,
  type ModelPast,
  type ModelSession,
  type ModelState,
  type ModelTicket,
  untilThen,
} from "./state.js";

type Origin = Pick<ModelTicket, "leaseId" | "sessionId" | "seq" | "key" | "all" | "contenderId" | "lockDelayMs">;

export const unknownLease: Meaning = { kind: "refused", reason: "UNKNOWN_LEASE" };
export const refused = (reason: string): Meaning => ({ kind: "refused", reason });
export const ticketId = (ticket: ModelTicket): string => `T${ticket.serial}`;

export class Step {
  readonly replies: Said[] = [];
  readonly events: Meaning[] = [];
  #touched: string[] = [];

  constructor(
    readonly state: ModelState,
    readonly nowMs: number,
    /** What the core has done: it decides what is left open. */
    readonly hints: Hints,
  ) {}

  // ------------------------------------------------------------------------------------------ saying

  say(route: Route | null, what: Meaning): void {
    if (route !== null) this.replies.push({ route, what });
  }

  answer(route: Route | null, seq: number, outcome: Meaning, clockAheadBy = 0): void {
    this.say(route, { kind: "outcome", seq, outcome, clockAheadBy });
  }

  happen(kind: string, name: string, timestamp: number, rest: Record<string, unknown>): void {
    this.events.push({ kind, name, timestamp, ...rest });
    this.hints.done(kind, labelOf(kind, { name, ...rest }));
  }

  // ------------------------------------------------------------------------------------------ looking

  lease(id: string): ModelLease | undefined {
    return this.state.leases.find((lease) => lease.id === id);
  }

  session(id: string): ModelSession | undefined {
    return this.state.sessions.find((session) => session.id === id);
  }

  hold(token: number): ModelHold | undefined {
    return this.state.holds.find((hold) => hold.token === token);
  }

  holdsOf(name: string): ModelHold[] {
    return this.state.holds.filter((hold) => hold.name === name);
  }

  queueOf(name: string): ModelTicket[] {
    return this.state.tickets.filter(({ items }) => items.some((item) => item.name === name));
  }

  delayMs(name: string): number {
    return untilThen(this.state.delays.find((delay) => delay.name === name)?.untilMs ?? 0, this.nowMs);
  }

  /** Beside the holds that there are, but for those in `without`. */
  fits(item: LockItem, without: readonly ModelHold[] = []): boolean {
    const holds = this.holdsOf(item.name).filter((hold) => !without.includes(hold));
    return this.delayMs(item.name) === 0 && fitsBeside(item, holds, this.state.limits.holdersPerLockMax);
  }

  // ------------------------------------------------------------------------------------------ holds

  grant(origin: Origin, items: readonly LockItem[], maxHoldMs: number, queued: ModelTicket | null, from = 0): Meaning {
    const { state, nowMs } = this;
    const timestamp = state.clock.take();
    const tokens = items.map(() => ++state.token);
    const { leaseId, sessionId, seq, key, all, contenderId, lockDelayMs } = origin;
    const asked = { leaseId, sessionId, seq, key, all, contenderId, lockDelayMs };
    const names = items.map(({ name }) => name);
    const grant: ModelGrant = { ...asked, names, tokens, timestamp, told: 1, fetchUntilMs: Number.POSITIVE_INFINITY };
    items.forEach((item, index) => {
      const { name, mode, permits, permitLimit } = item;
      const slots = freeSlots(
        item,
        this.holdsOf(name).flatMap((hold) => hold.slots),
      );
      const token = tokens[index] as number;
      const maxHoldUntilMs = maxHoldMs === 0 ? Number.POSITIVE_INFINITY : nowMs + maxHoldMs;
      state.holds.push({ token, name, mode, permits, permitLimit, slots, grant, maxHoldUntilMs, revoking: null });
      const whence = { ticketId: queued === null ? "" : ticketId(queued), transferredFrom: from };
      this.happen("granted", name, timestamp, { token, mode, ...whence, slots });
    });
    this.remember(sessionId, seq, { kind: "grant", token: tokens[0] as number });
    return this.grantOutcome(grant, queued?.askedMs ?? nowMs);
  }

  /**
   * What whoever asks is told of a grant; once one of its holds is over, or is being taken away: that. Its client counts
   * from the send of the request that is answered, so the maximum hold is told as from `askedMs`.
   */
  grantOutcome(grant: ModelGrant, askedMs: number): Meaning {
    const holds = this.state.holds.filter((hold) => hold.grant === grant);
    const lease = this.lease(grant.leaseId);
    if (lease === undefined || holds.length < grant.tokens.length) return refused("STALE_TOKEN");
    if (holds.some(({ revoking }) => revoking !== null)) return refused("STALE_TOKEN");
    return {
      kind: "grant",
      grants: holds.map(({ name, token, slots }) => ({ name, token, slots })),
      all: grant.all,
      timestamp: grant.timestamp,
      leaseId: lease.id,
      leaseTtlMs: lease.ttlMs,
      leaseRemainingMs: this.#promise(lease, grant),
      maxHoldRemainingMs: maxHoldLeft(holds[0] as ModelHold, askedMs),
    };
  }

  /**
   * The answer to a unary Acquire does not tell what is being taken away. So while a unary grant of the lease is, it
   * promises no more than had been promised before.
   */
  #promise(lease: ModelLease, grant: ModelGrant): number {
    const taken = this.state.holds.filter((hold) => hold.grant.leaseId === lease.id && hold.grant.seq === 0);
    const ends = grant.seq > 0 ? [] : taken.flatMap(({ revoking }) => (revoking === null ? [] : [revoking.untilMs]));
    return untilThen(Math.min(deadlineMs(lease), ...ends), this.nowMs);
  }

  endHold(hold: ModelHold, end: HoldEnd, delayed: boolean, message = ""): void {
    const { state } = this;
    const { name, token, mode, grant } = hold;
    state.holds = state.holds.filter((other) => other !== hold);
    if (end !== "transferred") {
      this.happen("holdEnded", name, state.clock.take(), { token, mode, end, message });
    }
    if (delayed && grant.lockDelayMs > 0) this.#delay(name, grant.lockDelayMs);
    this.touch(name);
    this.#forgetEffect(grant, token);
    if (grant.key !== "") this.past(grant.key, "ended");
    const rest = state.holds.some((other) => other.grant === grant);
    if (!rest && this.lease(grant.leaseId)?.own) this.dropLease(grant.leaseId);
  }

  #forgetEffect({ sessionId, seq, tokens }: ModelGrant, token: number): void {
    const effect = this.session(sessionId)?.unacked.get(seq);
    if (effect?.kind === "grant" && effect.token === tokens[0]) this.remember(sessionId, seq, { kind: "ended", token });
  }

  #delay(name: string, delayMs: number): void {
    const untilMs = this.nowMs + delayMs;
    const running = this.state.delays.find((delay) => delay.name === name);
    if (running !== undefined && running.untilMs >= untilMs) return;
    this.state.delays = [...this.state.delays.filter((delay) => delay !== running), { name, untilMs }];
  }

  tellHoldEnd(hold: ModelHold, reason: "forced" | "max_hold", confirm: boolean, message: string): void {
    const route = this.session(hold.grant.sessionId)?.route ?? null;
    this.say(route, { kind: "holdEnd", token: hold.token, reason, confirm, message });
  }

  /** Takes out a lease that nothing hangs on, without a word. */
  dropLease(id: string): void {
    const { state } = this;
    const lease = this.lease(id);
    if (lease === undefined) return;
    state.leases = state.leases.filter((other) => other !== lease);
    const session = this.session(lease.sessionId);
    if (session === undefined) return;
    const effect = session.unacked.get(lease.seq);
    if (effect?.kind === "lease" && effect.leaseId === id) session.unacked.set(lease.seq, { kind: "ended", token: 0 });
    this.dropSessionIfOver(session);
  }

  dropSessionIfOver(session: ModelSession): void {
    if (session.route !== null || this.state.leases.some(({ sessionId }) => sessionId === session.id)) return;
    this.state.sessions = this.state.sessions.filter((other) => other !== session);
  }

  remember(sessionId: string, seq: number, effect: ModelEffect): void {
    const session = this.session(sessionId);
    if (session !== undefined && seq >= session.ackedBelow) session.unacked.set(seq, effect);
  }

  past(key: string, end: ModelPast["end"]): void {
    if (key === "") return;
    const forgetMs = this.nowMs + this.state.limits.requestRememberedMs;
    this.state.pasts = [...this.state.pasts.filter((past) => past.key !== key), { key, end, forgetMs }];
  }

  // ------------------------------------------------------------------------------------------ tickets

  /** Takes a ticket out of its queues without a grant. */
  dequeue(ticket: ModelTicket): void {
    this.#leave(ticket);
    for (const { name } of ticket.items) {
      this.happen("dequeued", name, this.state.clock.take(), { ticketId: ticketId(ticket) });
    }
    this.session(ticket.sessionId)?.unacked.delete(ticket.seq);
    if (this.lease(ticket.leaseId)?.own) this.dropLease(ticket.leaseId);
  }

  #leave(ticket: ModelTicket): void {
    this.state.tickets = this.state.tickets.filter((other) => other !== ticket);
    for (const { name } of ticket.items) this.touch(name);
  }

  /** From the queue to the holds. Its caller is told. */
  grantTicket(ticket: ModelTicket, from = 0): Meaning {
    this.#leave(ticket);
    const outcome = this.grant(ticket, ticket.items, ticket.maxHoldMs, ticket, from);
    this.answer(ticket.route, ticket.seq, outcome);
    return outcome;
  }

  detach(ticket: ModelTicket): void {
    ticket.route = null;
    ticket.detachedMs = this.nowMs;
  }

  attach(ticket: ModelTicket, route: Route, pollUntilMs: number): void {
    ticket.route = route;
    ticket.askedMs = this.nowMs;
    ticket.pollUntilMs = pollUntilMs;
    for (const { name } of ticket.items) this.touch(name);
  }

  isFirst(ticket: ModelTicket): boolean {
    return ticket.items.every(({ name }) => this.queueOf(name)[0] === ticket);
  }

  #isGrantable(ticket: ModelTicket): boolean {
    if (ticket.route === null || this.state.halted || !this.isFirst(ticket) || this.#leaves(ticket)) return false;
    return ticket.items.every((item) => this.fits(item));
  }

  /** In small slices its wait may be over before the core comes to grant it. */
  #leaves(ticket: ModelTicket): boolean {
    const granted = this.#grantRank(ticket) < Number.POSITIVE_INFINITY;
    return !this.hints.exact && !granted && this.hints.rank(["dequeued"], placesOf(ticket)) < Number.POSITIVE_INFINITY;
  }

  // ------------------------------------------------------------------------------------------ at the end of a request

  /** The request has changed something about this lock. */
  touch(name: string): void {
    if (!this.#touched.includes(name)) this.#touched.push(name);
  }

  /** Grants what can be granted, and refuses who closes a knot, until there is nothing more of either. */
  settle(): void {
    for (;;) {
      const next = this.#nextGrant();
      const refusal = this.#nextRefusal();
      if (next === undefined && refusal === undefined) break;
      if (refusal === undefined || (next !== undefined && this.#grantRank(next) <= refusal.rank)) {
        this.grantTicket(next as ModelTicket);
      } else refusal.act();
    }
    this.#touched = [];
  }

  /** At the locks that were touched: with a delay that has run out another may be free, until it comes up or is looked at. */
  #nextGrant(): ModelTicket | undefined {
    const grantable = this.state.tickets.filter((ticket) => this.#isTouched(ticket) && this.#isGrantable(ticket));
    return inOrder(grantable.map((ticket) => ({ ticket, rank: this.#grantRank(ticket) })))[0]?.ticket;
  }

  #isTouched({ items }: ModelTicket): boolean {
    return items.some(({ name }) => this.#touched.includes(name));
  }

  #grantRank(ticket: ModelTicket): number {
    return this.hints.rank(["grantedTo"], [ticketId(ticket)]);
  }

  /**
   * The youngest of a knot. The core looks for knots when something has changed that may make one, the model always: so
   * one that the core overlooks is noticed at once. Of several knots it depends on where one
   * begins to look who is refused first; and in small slices a wait may end otherwise before the core comes to look.
   */
  #nextRefusal(): { rank: number; act: () => void } | undefined {
    const knots = knotsOf(this.state);
    const refusals = knots.starts.map((start) => {
      const circle = knots.circleFrom(start);
      const victim = circle.at(-1) as ModelTicket;
      const act = () => {
        this.past(victim.key, "deadlock");
        this.answer(victim.route, victim.seq, this.knotOutcome(knots, circle));
        this.dequeue(victim);
      };
      return { rank: this.hints.rank(["dequeued"], placesOf(victim)), victim: ticketId(victim), act };
    });
    return inOrder(refusals).find(({ victim }) => this.hints.exact || this.hints.wasRefused(victim));
  }

  knotOutcome(knots: ReturnType<typeof knotsOf>, circle: readonly ModelTicket[]): Meaning {
    const knot = circle.map((ticket) => ({
      ticketId: ticketId(ticket),
      waitsFor: ticket.items.map(({ name }) => name),
      holds: knots.wantedHolds(ticket, circle),
    }));
    return { kind: "refused", reason: "DEADLOCK", knot };
  }

  // ------------------------------------------------------------------------------------------ the death of a lease

  endLease(lease: ModelLease, reason: "expired" | "revoked"): void {
    const { state } = this;
    this.say(this.session(lease.sessionId)?.route ?? null, { kind: "leaseEnd", leaseSeq: lease.seq, reason });
    const { id } = lease;
    const holds = state.holds
      .filter(({ grant }) => grant.leaseId === id)
      .map((hold) => {
        const end = () => this.endHold(hold, reason, reason === "expired");
        return { rank: this.hints.rank(["holdEnded"], [`${hold.token} ${reason}`]), end };
      });
    const tickets = state.tickets
      .filter(({ leaseId }) => leaseId === id)
      .map((ticket) => {
        const end = () => {
          this.answer(ticket.route, ticket.seq, unknownLease);
          this.dequeue(ticket);
        };
        return { rank: this.hints.rank(["dequeued"], placesOf(ticket)), end };
      });
    for (const { end } of inOrder([...holds, ...tickets])) end();
    this.dropLease(lease.id);
  }
}

/** By rank, and what is alike in the order in which it is. */
export const inOrder = <T extends { readonly rank: number }>(items: readonly T[]): T[] =>
  [...items].sort((a, b) => (a.rank === b.rank ? 0 : a.rank < b.rank ? -1 : 1));

/** The labels of what its leaving would be. */
export const placesOf = (ticket: ModelTicket): string[] =>
  ticket.items.map(({ name }) => `${ticketId(ticket)} ${name}`);

function maxHoldLeft({ maxHoldUntilMs }: ModelHold, sinceMs: number): number {
  return maxHoldUntilMs === Number.POSITIVE_INFINITY ? 0 : untilThen(maxHoldUntilMs, sinceMs);
}
