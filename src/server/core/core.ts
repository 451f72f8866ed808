/**
 * The state machine: commands in, effects out. It imports nothing outside this folder, reads no clock and draws no
 * random number; the simulator in `test/core` runs this very code.
 */
import type { Caller } from "./acquire.js";
import { callGone } from "./cancel.js";
import { execute, executeOnce, observe } from "./execute.js";
import { expire } from "./expiry.js";
import { liveLease, remainingMs, renewLease } from "./leases.js";
import { quietRemainingMs } from "./quiet.js";
import { putHeader, putSession } from "./records.js";
import { type Floors, type RecoverInit, recover } from "./recover.js";
import { attach, detach } from "./session.js";
import { acknowledge, acknowledgeEach } from "./session-log.js";
import { settle } from "./settle.js";
import type { Lease, Session, State } from "./state.js";
import { type Attach, anybody, type Call, type Command, type Counts, type Effects, type Frame } from "./types.js";
import { counts } from "./views.js";

export const emptyEffects = (): Effects => ({ mutations: [], replies: [], events: [] });

export class Core {
  readonly #state: State;
  /** The latest time of any step. */
  #latestMs: number;

  private constructor(state: State, startedAtMs: number) {
    this.#state = state;
    this.#latestMs = startedAtMs;
  }

  /**
   * Rebuilds the core from the journal's entries. `fx` receives the first mutations of the new incarnation, which must be
   * durable before the first command is answered, and its first events. Throws when the entries contradict each other.
   */
  static recover(entries: Map<string, string>, init: RecoverInit, fx: Effects): Core {
    const core = new Core(recover(entries, init, fx), init.nowMs);
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
    const state = this.#state;
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
        const session = state.sessions.get(command.sessionId);
        if (session?.epoch === command.epoch && session.route !== null) detach(state, fx, session, nowMs);
        break;
      }
      case "callGone":
        callGone(state, fx, command.route, command.token, nowMs);
        break;
      case "expire":
        expire(state, fx, nowMs, this.#latestMs);
        return state.batch; // has settled what it did
    }
    this.#settle(fx, nowMs);
    return state.batch;
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
    putHeader(state, fx, nowMs);
    state.batch++;
    return true;
  }

  /** The number of the batch that is being built. */
  get batch(): number {
    return this.#state.batch;
  }

  /** When the next `expire` command is due; null: nothing is. */
  get nextDueMs(): number | null {
    const { collecting, unsettled, suspects, deadlines } = this.#state;
    if (collecting.size + unsettled.size + suspects.size > 0) return 0;
    return deadlines.peek()?.dueMs ?? null;
  }

  get timestamp(): number {
    return this.#state.clock.now;
  }

  get counts(): Counts {
    return counts(this.#state, this.#latestMs);
  }

  /** For how long nothing is granted because the store was restored; 0: locks are granted. */
  quietMs(nowMs: number): number {
    return quietRemainingMs(this.#state, nowMs);
  }

  /** The live state, for tests that check its structure after every step. Not to be changed. */
  inspect(): Readonly<State> {
    return this.#state;
  }

  /** What a successor must stay above, should the outcome of the last append be unknown. */
  get floors(): Floors {
    return { token: this.#state.token, timestamp: this.#state.clock.ceiling, serial: this.#state.serial };
  }

  #settle(fx: Effects, nowMs: number): void {
    settle(this.#state, fx, nowMs, this.#state.limits.expirySliceMax);
  }

  #call({ request, route, principal = anybody, observed }: Call, nowMs: number, fx: Effects): number {
    const state = this.#state;
    const clockAheadBy = request.kind === "tick" ? 0 : observe(state, fx, observed, nowMs);
    const caller: Caller = { route, principal, session: null, seq: 0 };
    const outcome = execute(state, fx, request, caller, nowMs);
    // A renewal settles nothing: what that brings would leave with its answer, ahead of the batch.
    if (request.kind !== "renewLease") this.#settle(fx, nowMs);
    if (outcome !== null) fx.replies.push({ kind: "outcome", route, seq: 0, outcome, clockAheadBy });
    const renewed = request.kind === "renewLease" ? liveLease(state, request.leaseId) : undefined;
    return renewed?.batch ?? state.batch;
  }

  #attach(command: Attach, nowMs: number, fx: Effects): void {
    const clockAheadBy = observe(this.#state, fx, command.observed, nowMs);
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
    const { principal = anybody } = command;
    acknowledge(session, command.ackedBelow);
    acknowledgeEach(session, command.acked);
    const clockAheadBy = observe(state, fx, command.observed, nowMs);
    const dependsOn = this.#renew(command, session, nowMs, fx);
    for (const { seq, request } of command.requests) {
      const caller: Caller = { route, principal, session, seq };
      const outcome = executeOnce(state, fx, request, caller, session, nowMs);
      this.#settle(fx, nowMs);
      if (outcome !== null) fx.replies.push({ kind: "outcome", route, seq, outcome, clockAheadBy: 0 });
    }
    fx.replies.push({ kind: "processed", route, frame: command.frame, clockAheadBy });
    return command.requests.length > 0 ? state.batch : dependsOn;
  }

  /** Renews what a frame renews. Returns the last batch that the answers depend on. */
  #renew({ frame, renew, progress }: Frame, session: Session, nowMs: number, fx: Effects): number {
    if (!renew && progress.length === 0) return 0;
    let dependsOn = 0;
    const progressed = new Set(progress);
    const renewOne = (lease: Lease): void => {
      if (lease.dead !== null || session.route === null) return;
      renewLease(this.#state, fx, lease, progressed.has(lease.seq), nowMs);
      dependsOn = Math.max(dependsOn, lease.batch);
      fx.replies.push({
        kind: "renewal",
        route: session.route,
        frame,
        leaseSeq: lease.seq,
        remainingMs: remainingMs(lease, nowMs),
      });
    };
    if (renew) for (const lease of session.leases.values()) renewOne(lease);
    else {
      for (const seq of progressed) {
        const lease = session.leases.get(seq);
        if (lease !== undefined) renewOne(lease);
      }
    }
    return dependsOn;
  }
}
