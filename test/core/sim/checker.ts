/**
 * Judges every step of the core by its own bookkeeping: what was promised, who is attached, who was told what.
 *
 * It looks at the state before and after a step, and at the replies: when they are made and when they are released.
 */
import type { State } from "../../../src/server/core/state.js";
import type { Command, CoreEvent, CoreLimits, Reply, Route } from "../../../src/server/core/types.js";
import { Knots } from "../model/knots.js";
import { EventChecker } from "./events.js";
import { acquireIdentity, isFor, mayHoldEnd, mayLeaseEnd, mayTicketEnd, type StepContext } from "./explain.js";
import { ReleaseChecker } from "./released.js";
import { emptySnapshot, type LeaseSnap, type Snapshot, snapshot, type TicketSnap } from "./snapshot.js";
import { ensure } from "./violation.js";

/** By how much the simulation lets expiry lag: its longest leap of time, and some. */
const EXPIRY_LAG_MS = 2_000;

export class Checker {
  readonly #releases = new ReleaseChecker();
  readonly #events: EventChecker;
  #before: Snapshot = emptySnapshot();
  /** The last token and timestamp handed out, told or not. */
  #token = 0;
  #timestamp = 0;
  #latestMs = Number.NEGATIVE_INFINITY;
  readonly #promised = new Map<string, number>();
  /** Until when the last report of progress is good, by lease; none: it asks for none. */
  readonly #progressed = new Map<string, number>();
  readonly #detachedSince = new Map<number, number>();
  readonly #undeliveredSince = new Map<number, number>();
  /** The calls that were told of a token and are not known to be gone. */
  readonly #toldOf = new Map<number, Set<Route>>();
  /** The timestamps of grants, by their first tokens. */
  readonly #timestampOf = new Map<number, number>();
  /** The tokens of Acquires that can be repeated. */
  readonly #tokenOf = new Map<string, number>();
  /** Calls that are over: answered or gone. */
  #over = new Set<Route>();
  /** The session of each stream that is attached. */
  readonly #streams = new Map<Route, string>();
  /** Served time at the last sign of life of a lease. */
  readonly #contact = new Map<string, { readonly servedMs: number; readonly starts: number }>();
  /** How often the core has been started. */
  #starts = 0;
  #servedBeforeMs = 0;
  #startedMs = 0;

  constructor(private readonly limits: CoreLimits) {
    this.#events = new EventChecker(limits);
  }

  #servedMs(nowMs: number): number {
    return this.#servedBeforeMs + nowMs - this.#startedMs;
  }

  before(_state: Readonly<State>, command: Command, nowMs: number): void {
    this.#latestMs = Math.max(this.#latestMs, nowMs);
    this.#releases.stepping(command);
    if (command.kind !== "callGone") return;
    this.#over.add(command.route);
    if (command.token === null) return;
    const told = this.#toldOf.get(command.token);
    if (!told?.delete(command.route) || told.size > 0) return;
    const gone = this.#timestampOf.get(command.token);
    for (const { token, timestamp } of this.#before.holds.values()) {
      if (timestamp === gone) this.#undeliveredSince.set(token, this.#latestMs); // with the rest of its AcquireAll
    }
  }

  after(
    state: Readonly<State>,
    command: Command,
    replies: readonly Reply[],
    events: readonly CoreEvent[],
    nowMs: number,
  ): void {
    const before = this.#before;
    const after = snapshot(state);
    this.#before = after;
    const { resumeMs } = this.limits;
    const deadlocked = new Set(events.flatMap((e) => (e.kind === "deadlock" ? [e.knot.at(-1)?.ticketId ?? ""] : [])));
    const gone = command.kind === "callGone" ? this.#timestampOf.get(command.token ?? 0) : undefined;
    const step: StepContext = { command, nowMs, resumeMs, gone, deadlocked, ...this.#facts };
    let moved = "";
    if (command.kind === "detach" && this.#detached(command.sessionId, state)) moved = command.sessionId;
    if (command.kind === "attach" && state.sessions.get(command.sessionId)?.route === command.route) {
      moved = command.sessionId;
    }
    const told = this.#checkRoutes(replies);
    this.#checkGrants(state, before, after, told);
    this.#events.after(events, command, before, after, this.#latestMs);
    this.#checkEnds(step, before, after);
    this.#checkRenewals(command, replies, before);
    if (command.kind === "attach") this.#checkSettled(state, command, replies);
    this.#releases.checkCancelled(after);
    this.#follow(moved, before, after);
  }

  get #facts() {
    return { detachedSince: this.#detachedSince, undeliveredSince: this.#undeliveredSince, promised: this.#promised };
  }

  /** Replies go to those who are there, calls get one each. Returns the tokens that somebody was told. */
  #checkRoutes(replies: readonly Reply[]): Set<number> {
    const told = new Set<number>();
    for (const reply of replies) {
      const { route } = reply;
      if (reply.kind === "outcome" && reply.outcome.kind === "welcome") this.#welcomed(reply.outcome.sessionId, route);
      const refused = reply.kind === "outcome" && reply.seq === 0 && reply.outcome.kind === "refused";
      if (route.kind === "stream") {
        const welcome = this.#streams.has(route) || reply.kind === "replaced" || refused;
        ensure(welcome, () => `a reply to a stream that is not attached: ${text(reply)}`);
      } else {
        ensure(!this.#over.has(route), () => `a reply to a call that is over: ${text(reply)}`);
        this.#over.add(route);
      }
      if (reply.kind !== "outcome" || reply.outcome.kind !== "grant") continue;
      for (const { token } of reply.outcome.grants) told.add(token);
      const token = reply.outcome.grants[0]?.token ?? 0;
      this.#timestampOf.set(token, reply.outcome.timestamp);
      if (route.kind === "stream") continue;
      for (const grant of reply.outcome.grants) this.#undeliveredSince.delete(grant.token);
      const calls = this.#toldOf.get(token);
      if (calls !== undefined) calls.add(route);
      // Of a token from before a restart it is not known who was told.
      else if (token > this.#token) this.#toldOf.set(token, new Set([route]));
    }
    return told;
  }

  #welcomed(sessionId: string, route: Route): void {
    for (const [old, id] of this.#streams) if (id === sessionId) this.#streams.delete(old);
    this.#streams.set(route, sessionId);
  }

  #detached(sessionId: string, state: Readonly<State>): boolean {
    if (state.sessions.get(sessionId)?.route) return false; // it was not its stream that broke
    for (const [old, id] of this.#streams) if (id === sessionId) return this.#streams.delete(old);
    return false;
  }

  /** Tokens rise in the order of the grants, each is told to somebody, and nobody is overtaken. */
  #checkGrants(state: Readonly<State>, before: Snapshot, after: Snapshot, told: ReadonlySet<number>): void {
    const fresh = [...after.holds.values()].filter(({ token }) => !before.holds.has(token));
    fresh.sort((a, b) => a.token - b.token);
    let identities = new Set<string>();
    for (const hold of fresh) {
      const { token, timestamp, identity, lock } = hold;
      // The holds of one AcquireAll have their timestamp together.
      const together = timestamp === this.#timestamp && identities.has(`${hold.leaseId} ${identity}`);
      if (!together) identities = new Set();
      ensure(token > this.#token, () => `token ${token} was granted after ${this.#token}`);
      const later = timestamp > this.#timestamp || together;
      ensure(later, () => `timestamp ${timestamp} was given out after ${this.#timestamp}`);
      ensure(told.has(token), () => `token ${token} was granted and nobody was told`);
      const earlier = this.#tokenOf.get(identity);
      ensure(earlier === undefined || together, () => `${identity} was granted ${earlier} and then ${token}`);
      if (identity !== "" && !together) this.#tokenOf.set(identity, token);
      identities.add(`${hold.leaseId} ${identity}`);
      // It may die later in the same step.
      ensure(!before.leases.get(hold.leaseId)?.dead, () => `${lock} was granted to a dead lease`);
      this.#token = token;
      this.#timestamp = timestamp;
    }
    ensure(state.token >= this.#token, () => `the last token went back to ${state.token}`);
    this.#token = state.token;
    this.#timestamp = Math.max(this.#timestamp, state.clock.now);
  }

  #checkEnds(step: StepContext, before: Snapshot, after: Snapshot): void {
    for (const hold of before.holds.values()) {
      if (after.holds.has(hold.token)) continue;
      const lease = before.leases.get(hold.leaseId) as LeaseSnap;
      ensure(mayHoldEnd(step, hold, lease), () => `token ${hold.token} of ${hold.lock} ended for no reason`);
    }
    const granted = new Set<string>();
    for (const { leaseId, identity, token } of after.holds.values()) {
      if (!before.holds.has(token)) granted.add(`${leaseId} ${identity}`);
    }
    for (const ticket of before.tickets.values()) {
      if (after.tickets.has(ticket.serial)) continue;
      if (granted.has(`${ticket.leaseId} ${ticket.identity}`)) continue;
      const lease = before.leases.get(ticket.leaseId) as LeaseSnap;
      const why = () => `ticket T${ticket.serial} ended for no reason`;
      ensure(mayTicketEnd(step, ticket, lease), why);
    }
    for (const lease of before.leases.values()) {
      const now = after.leases.get(lease.id);
      if (lease.dead) ensure(now?.dead !== false, () => `lease ${lease.id} came back from the dead`);
      else if (now === undefined || now.dead) {
        const over = lease.own && now === undefined; // with its grant, or its ticket, judged above
        ensure(over || mayLeaseEnd(step, lease), () => `lease ${lease.id} ended before its time`);
      }
    }
  }

  /** Renewals of living leases are confirmed and move the deadline; those of dead ones are refused. */
  #checkRenewals(command: Command, replies: readonly Reply[], before: Snapshot): void {
    if (command.kind === "call" && command.request.kind === "renewLease") {
      const lease = before.leases.get(command.request.leaseId);
      const principal = command.principal?.name ?? "";
      const alive = lease !== undefined && !lease.dead && isFor(principal, lease);
      const confirmed = replies.some((r) => r.kind === "outcome" && r.outcome.kind === "renewed");
      ensure(confirmed === alive, () => `a ${alive ? "living" : "dead"} lease was ${confirmed ? "" : "not "}renewed`);
      if (alive) this.#promise(lease, command.request.progress);
    }
    if (command.kind === "call" && command.request.kind === "acquire") {
      // A poll renews.
      const principal = command.principal?.name ?? "";
      const identity = acquireIdentity(command.request, "", 0, principal);
      for (const entry of [...before.holds.values(), ...before.tickets.values()]) {
        const lease = before.leases.get(entry.leaseId) as LeaseSnap;
        if (identity !== "" && entry.identity === identity && !lease.dead && isFor(principal, lease))
          this.#promise(lease);
      }
    }
    if (command.kind !== "frame" || !replies.some((r) => r.kind === "processed")) return; // discarded
    const renewed = new Set(replies.flatMap((r) => (r.kind === "renewal" ? [r.leaseSeq] : [])));
    for (const lease of before.leases.values()) {
      if (lease.session !== command.sessionId) continue;
      const { seq, dead } = lease;
      const progress = command.progress.includes(seq);
      const asked = !dead && (command.renew || progress);
      ensure(renewed.has(seq) === asked, () => `lease ${seq} of ${lease.session} renewed: ${renewed.has(seq)}`);
      if (asked) this.#promise(lease, progress);
    }
  }

  /** Renewed, and with `progress` reported to work. */
  #promise(lease: LeaseSnap, progress = false): void {
    const { id, ttlMs, progressEveryMs } = lease;
    if (progressEveryMs > 0 && progress) this.#progressed.set(id, this.#latestMs + progressEveryMs);
    const progressed = this.#progressed.get(id) ?? Number.POSITIVE_INFINITY;
    // After a restart nothing is known of the last report: then nothing is expected of it.
    const unknown = progressEveryMs > 0 && !this.#progressed.has(id);
    if (!unknown) this.#promised.set(id, Math.min(this.#latestMs + ttlMs, progressed));
    this.#contact.set(id, { servedMs: this.#servedMs(this.#latestMs), starts: this.#starts });
  }

  /** After a resume nothing of the session is left that belongs to nobody. */
  #checkSettled(state: Readonly<State>, command: Command & { kind: "attach" }, replies: readonly Reply[]): void {
    const welcome = replies.find((r) => r.route === command.route && r.kind === "outcome");
    if (welcome?.kind !== "outcome" || welcome.outcome.kind !== "welcome") return;
    const session = state.sessions.get(welcome.outcome.sessionId);
    ensure(session?.route === command.route, () => "a welcome, but the stream is not attached");
    for (const { token, seq, lease } of session?.holds ?? []) {
      if (lease.dead !== null) continue;
      const wanted = command.claims.includes(token) || command.outstanding.includes(seq);
      ensure(wanted, () => `token ${token} was neither claimed nor awaited, and is still held`);
    }
    for (const token of command.claims) {
      const hold = state.holds.get(token);
      const held = hold !== undefined && hold.lease.dead === null && session?.holds.has(hold) === true;
      const lost = welcome.outcome.lost.includes(token);
      ensure(
        held !== lost,
        () => `token ${token} is ${held ? "held" : "not held"} and told to be ${lost ? "lost" : "held"}`,
      );
    }
  }

  /** `moved`: the session whose stream has just come or gone. */
  #follow(moved: string, before: Snapshot, after: Snapshot): void {
    for (const { serial, route, session } of after.tickets.values()) {
      if (route !== null) this.#detachedSince.delete(serial);
      else if (!this.#detachedSince.has(serial)) this.#detachedSince.set(serial, this.#latestMs);
      // The time begins anew with every stream of the session.
      else if (session !== "" && session === moved) this.#detachedSince.set(serial, this.#latestMs);
    }
    for (const lease of after.leases.values()) if (!before.leases.has(lease.id)) this.#promise(lease, true);
    for (const token of before.holds.keys()) if (!after.holds.has(token)) this.#undeliveredSince.delete(token);
    for (const serial of before.tickets.keys()) if (!after.tickets.has(serial)) this.#detachedSince.delete(serial);
  }

  /** Everything that was due is done, and no lease outlives a silent client by more than one TTL. */
  allExpired(state: Readonly<State>, asOfMs: number): void {
    const { resumeMs } = this.limits;
    const servedMs = this.#servedMs(asOfMs);
    for (const lease of state.leases.values()) {
      ensure(lease.dead === null && lease.deadlineMs > asOfMs, () => `lease ${lease.id} is overdue`);
      const contact = this.#contact.get(lease.id) ?? { servedMs, starts: this.#starts };
      // Each incarnation may have been late once.
      const lateMs = EXPIRY_LAG_MS * (1 + this.#starts - contact.starts);
      const silentMs = servedMs - contact.servedMs - lateMs;
      ensure(silentMs <= 2 * lease.ttlMs, () => `lease ${lease.id} of ${lease.ttlMs} ms has been kept for ${silentMs}`);
    }
    for (const [serial, since] of this.#detachedSince) {
      ensure(since + resumeMs > asOfMs, () => `ticket T${serial} is detached for too long`);
    }
    for (const [token, since] of this.#undeliveredSince) {
      if (!state.holds.has(token)) continue;
      ensure(since + resumeMs > asOfMs, () => `token ${token} could not be delivered and is still held`);
    }
    for (const { token, maxHoldUntilMs, revokingUntilMs } of state.holds.values()) {
      ensure(maxHoldUntilMs > asOfMs, () => `token ${token} is held beyond its maximum`);
      ensure(revokingUntilMs > asOfMs, () => `token ${token} was taken away, and is still held`);
    }
    this.#checkNoKnot();
  }

  /** With a search that is not bounded, no deadlock is left. */
  #checkNoKnot(): void {
    if (this.limits.deadlockSearchMax < 1_000) return;
    const holds = [...this.#before.holds.values()].map((hold) => ({ ...hold, name: hold.lock }));
    const tickets = [...this.#before.tickets.values()].sort((a, b) => a.serial - b.serial);
    const claims = ({ heldTokens, contenderId, session, leaseId }: TicketSnap) =>
      holds.filter((hold) => {
        if (heldTokens.includes(hold.token)) return true;
        if (contenderId === "" || hold.contenderId !== contenderId) return false;
        return session === "" ? hold.leaseId === leaseId : hold.session === session;
      });
    const stuck = new Knots(tickets, holds, claims, this.limits.holdersPerLockMax).starts;
    const names = () => stuck.map(({ serial }) => `T${serial}`).join(", ");
    ensure(stuck.length === 0, () => `a deadlock was not noticed: ${names()} cannot proceed`);
  }

  /** Replies leave the server. */
  released(replies: readonly Reply[], timestamp: number, journal: ReadonlyMap<string, string>): void {
    this.#releases.released(replies, timestamp, journal);
  }

  /** What nobody was told may be handed out again. */
  processDied(): void {
    this.#token = this.#releases.token;
    this.#timestamp = this.#releases.timestamp;
  }

  recovered(state: Readonly<State>, nowMs: number, servedBeforeMs: number): void {
    const { token, clock } = state;
    ensure(token >= this.#token, () => `token ${this.#token} had been handed out, the recovered core is at ${token}`);
    const told = this.#timestamp;
    ensure(clock.now >= told, () => `timestamp ${told} had been handed out, the recovered clock is at ${clock.now}`);
    this.#latestMs = nowMs;
    this.#startedMs = nowMs;
    this.#starts++;
    this.#servedBeforeMs = servedBeforeMs;
    this.#token = token;
    this.#timestamp = clock.now;
    this.#before = snapshot(state);
    this.#events.recovered(this.#before, state);
    for (const map of [this.#promised, this.#progressed, this.#detachedSince, this.#undeliveredSince, this.#toldOf])
      map.clear();
    this.#over = new Set();
    this.#streams.clear();
    for (const serial of this.#before.tickets.keys()) this.#detachedSince.set(serial, nowMs);
    this.#tokenOf.clear();
    for (const [identity, granted] of this.#releases.tokenOf) this.#tokenOf.set(identity, granted);
    this.#releases.recovered();
    this.#releases.checkCancelled(this.#before);
  }
}

const text = (reply: Reply): string => JSON.stringify({ ...reply, route: reply.route.kind });
