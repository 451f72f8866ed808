/**
 * The state machine: commands in, effects out. It imports nothing outside this folder, reads no clock and draws no
 * random number; the simulator in `test/core` runs this very code.
 */
import { acquire, type Caller, callGone, cancelAcquire, revoke } from "./acquire.js";
import { expire } from "./expiry.js";
import { createLease, liveLease, renewLease, unknownLease, viewLease } from "./leases.js";
import { attachTicket, endHold, grantOutcome, promote } from "./locks.js";
import { putHeader, putSession } from "./records.js";
import { type Floors, type RecoverInit, recover } from "./recover.js";
import { attach, detach } from "./session.js";
import { acknowledge, acknowledgeEach, storeOutcome } from "./session-log.js";
import type { Session, State } from "./state.js";
import type { Attach, Call, Command, Counts, Effects, Frame, Outcome, Release, Request, Tick } from "./types.js";
import { counts, describeLock, listLeases, listLocks } from "./views.js";

export const emptyEffects = (): Effects => ({ mutations: [], replies: [], events: [] });

export class Core {
  readonly #state: State;
  readonly #startedAtMs: number;
  readonly #servedBeforeMs: number;
  /** The latest time of any step. */
  #latestMs: number;

  private constructor(state: State, startedAtMs: number, servedBeforeMs: number) {
    this.#state = state;
    this.#startedAtMs = startedAtMs;
    this.#servedBeforeMs = servedBeforeMs;
    this.#latestMs = startedAtMs;
  }

  /**
   * Rebuilds the core from the journal's entries. `fx` receives the first mutations of the new incarnation: they must
   * be durable before the first command is answered. Throws when the entries contradict each other.
   */
  static recover(entries: Map<string, string>, init: RecoverInit, fx: Effects): Core {
    const { state, servedBeforeMs } = recover(entries, init, fx);
    const core = new Core(state, init.nowMs, servedBeforeMs);
    core.seal(init.nowMs, fx, true);
    return core;
  }

  /**
   * Executes one command; what follows is added to `fx`. Returns the number of the batch that must be durable before
   * the replies of this step may leave: the one being built, or an earlier one for a mere renewal.
   *
   * Time does not run backwards, but for an `expire` `nowMs` is the moment up to which it works off what is due, and that
   * may lie before the steps that came first.
   */
  step(command: Command, nowMs: number, fx: Effects): number {
    this.#latestMs = Math.max(this.#latestMs, nowMs);
    switch (command.kind) {
      case "call":
        return this.#call(command, nowMs, fx);
      case "frame":
        return this.#frame(command, nowMs, fx);
      case "attach":
        this.#attach(command, nowMs, fx);
        break;
      case "detach": {
        const session = this.#state.sessions.get(command.sessionId);
        if (session?.epoch === command.epoch && session.route !== null) detach(this.#state, fx, session, nowMs);
        break;
      }
      case "callGone":
        callGone(this.#state, fx, command.route, command.token, nowMs);
        break;
      case "expire":
        expire(this.#state, fx, nowMs, this.#latestMs);
        break;
    }
    return this.#state.batch;
  }

  /**
   * Closes the batch: completes `fx.mutations` and returns whether there is anything to make durable. With `force` there
   * always is: a batch without changes then records how much time has been served.
   */
  seal(nowMs: number, fx: Effects, force: boolean): boolean {
    const state = this.#state;
    for (const session of state.dirtySessions) {
      session.dirty = false;
      putSession(fx, session);
    }
    state.dirtySessions.clear();
    const raised = state.clock.raiseCeiling();
    if (!force && !raised && fx.mutations.length === 0) return false;
    putHeader(state, fx, Math.floor(this.#servedBeforeMs + nowMs - this.#startedAtMs));
    state.batch++;
    return true;
  }

  /** The number of the batch that is being built. */
  get batch(): number {
    return this.#state.batch;
  }

  /** When the next `expire` command is due; null: nothing is. */
  get nextDueMs(): number | null {
    if (this.#state.collecting.size > 0) return 0;
    return this.#state.deadlines.peek()?.dueMs ?? null;
  }

  get timestamp(): number {
    return this.#state.clock.now;
  }

  get counts(): Counts {
    return counts(this.#state);
  }

  /** The live state, for tests that check its structure after every step. Not to be changed. */
  inspect(): Readonly<State> {
    return this.#state;
  }

  /** What a successor must stay above, should the outcome of the last append be unknown. */
  get floors(): Floors {
    return { token: this.#state.token, timestamp: this.#state.clock.ceiling, serial: this.#state.serial };
  }

  #call(command: Call, nowMs: number, fx: Effects): number {
    const { request, route } = command;
    const clockAheadBy = request.kind === "tick" ? 0 : this.#observe(command.observed, nowMs, fx);
    const caller: Caller = { route, session: null, seq: 0 };
    const outcome = this.#execute(request, caller, nowMs, fx);
    if (outcome !== null) fx.replies.push({ kind: "outcome", route, seq: 0, outcome, clockAheadBy });
    const renewed = request.kind === "renewLease" ? liveLease(this.#state, request.leaseId) : undefined;
    return renewed?.batch ?? this.#state.batch;
  }

  #attach(command: Attach, nowMs: number, fx: Effects): void {
    const clockAheadBy = this.#observe(command.observed, nowMs, fx);
    // The welcome comes before whatever settling the session makes known on its stream.
    const at = fx.replies.length;
    const outcome = attach(this.#state, fx, command, nowMs);
    fx.replies.splice(at, 0, { kind: "outcome", route: command.route, seq: 0, outcome, clockAheadBy });
  }

  #frame(command: Frame, nowMs: number, fx: Effects): number {
    const state = this.#state;
    const session = state.sessions.get(command.sessionId);
    if (session === undefined || session.route === null || session.epoch !== command.epoch) return state.batch;
    const { route } = session;
    acknowledge(session, command.ackedBelow);
    acknowledgeEach(session, command.acked);
    const clockAheadBy = this.#observe(command.observed, nowMs, fx);
    let dependsOn = 0;
    if (command.renew) {
      for (const lease of session.leases.values()) {
        if (lease.dead !== null) continue;
        renewLease(state, fx, lease, nowMs);
        dependsOn = Math.max(dependsOn, lease.batch);
        fx.replies.push({
          kind: "renewal",
          route,
          frame: command.frame,
          leaseSeq: lease.seq,
          remainingMs: lease.ttlMs,
        });
      }
    }
    for (const { seq, request } of command.requests) {
      const caller: Caller = { route, session, seq };
      const outcome = request.kind === "refused" ? request : this.#executeOnce(request, caller, session, nowMs, fx);
      if (outcome !== null) fx.replies.push({ kind: "outcome", route, seq, outcome, clockAheadBy: 0 });
    }
    fx.replies.push({ kind: "processed", route, frame: command.frame, clockAheadBy });
    return command.requests.length > 0 ? state.batch : dependsOn;
  }

  /** Executes a command of a session, or answers once more what it did when it came for the first time. */
  #executeOnce(request: Request, caller: Caller, session: Session, nowMs: number, fx: Effects): Outcome | null {
    const { seq } = caller;
    if (seq < session.ackedBelow) return null; // a late duplicate: its answer has arrived long ago
    const effect = session.unacked.get(seq);
    if (effect === undefined) {
      const { commandsPerSessionMax } = this.#state.limits;
      // What ends something gets through when the session is full of waiters for what it holds itself.
      const most = endsSomething(request) ? 2 * commandsPerSessionMax : commandsPerSessionMax;
      if (session.unacked.size >= most) {
        const message = `the session has its ${commandsPerSessionMax} unanswered or unacknowledged commands`;
        return { kind: "refused", reason: "LIMIT", message };
      }
      return this.#execute(request, caller, nowMs, fx);
    }
    switch (effect.kind) {
      case "lease":
        return effect.dead === null ? { kind: "lease", lease: viewLease(effect, nowMs) } : unknownLease;
      case "hold":
        return effect.lease.dead === null ? grantOutcome(effect, nowMs) : unknownLease;
      case "ticket":
        if (effect.route !== caller.route) {
          attachTicket(this.#state, effect, caller.route, Number.POSITIVE_INFINITY);
          promote(this.#state, fx, effect.lock, nowMs);
        }
        return null; // it waits; the answer will come
      case "released":
        return { kind: "released" };
      case "cancelled":
        return { kind: "refused", reason: "CANCELLED_REQUEST", message: "this Acquire was cancelled" };
      case "ended":
        if (effect.token === 0) return unknownLease;
        return { kind: "refused", reason: "STALE_TOKEN", message: `token ${effect.token} was granted and has ended` };
    }
  }

  #execute(request: Request, caller: Caller, nowMs: number, fx: Effects): Outcome | null {
    const state = this.#state;
    switch (request.kind) {
      case "acquire":
        return acquire(state, fx, request, caller, nowMs);
      case "release":
        return this.#release(request, caller, nowMs, fx);
      case "cancelAcquire":
        return cancelAcquire(state, fx, request, caller, nowMs);
      case "createLease": {
        const lease = createLease(state, fx, request, false, caller.session, caller.seq, nowMs);
        if (lease.kind === "refused") return lease;
        caller.session?.unacked.set(caller.seq, lease);
        return { kind: "lease", lease: viewLease(lease, nowMs) };
      }
      case "renewLease": {
        const lease = liveLease(state, request.leaseId);
        if (lease === undefined) {
          fx.events.push({ kind: "leaseRenewed", result: "unknown", slackRatio: 0 });
          return unknownLease;
        }
        renewLease(state, fx, lease, nowMs);
        return { kind: "renewed", ttlMs: lease.ttlMs, remainingMs: lease.ttlMs };
      }
      case "revokeLease": {
        const { lease } = request;
        const target = lease.kind === "lease" ? liveLease(state, lease.leaseId) : caller.session?.leases.get(lease.seq);
        return revoke(state, fx, target, nowMs);
      }
      case "getLease": {
        const lease = liveLease(state, request.leaseId);
        return lease === undefined ? unknownLease : { kind: "lease", lease: viewLease(lease, nowMs) };
      }
      case "listLeases":
        return listLeases(state, request, nowMs);
      case "validate": {
        const hold = state.locks.get(request.name)?.hold;
        return { kind: "validated", held: hold?.token === request.token && hold.lease.dead === null };
      }
      case "describeLock":
        return describeLock(state, fx, request, nowMs);
      case "listLocks":
        return listLocks(state, fx, request, nowMs);
      case "tick":
        return this.#tick(request, nowMs, fx);
      case "status":
        return { kind: "status", counts: counts(state) };
    }
  }

  #release(request: Release, caller: Caller, nowMs: number, fx: Effects): Outcome {
    const hold = this.#state.locks.get(request.name)?.hold;
    if (hold?.token !== request.token || hold.lease.dead !== null) {
      fx.events.push({ kind: "staleToken", rpc: "release" });
      const message = `token ${request.token} does not hold this lock: it was released, lost, or never granted`;
      return { kind: "refused", reason: "STALE_TOKEN", message };
    }
    if (hold.seq > 0 && hold.lease.session !== caller.session) {
      // Its holder would not know, and would go on believing.
      return { kind: "refused", reason: "INVALID", message: "this grant can only be released by its own session" };
    }
    endHold(this.#state, fx, hold, "released", nowMs);
    if (caller.session !== null) storeOutcome(this.#state, caller.session, caller.seq, { kind: "released" });
    return { kind: "released" };
  }

  #tick(request: Tick, nowMs: number, fx: Effects): Outcome {
    const ahead = this.#observe(request.observed, nowMs, fx);
    if (ahead > 0) {
      const message = `the observed timestamp is ${ahead} ahead of the server's clock, more than it may be moved at once`;
      return { kind: "refused", reason: "CLOCK_JUMP", message };
    }
    const last = this.#state.clock.take(request.count);
    return { kind: "ticks", first: last - request.count + 1, last };
  }

  #observe(observed: number, nowMs: number, fx: Effects): number {
    if (observed === 0) return 0;
    const ahead = this.#state.clock.observe(observed, nowMs);
    if (ahead > 0) fx.events.push({ kind: "clockJumpRefused" });
    return ahead;
  }
}

function endsSomething(request: Request): boolean {
  return request.kind === "release" || request.kind === "cancelAcquire" || request.kind === "revokeLease";
}
