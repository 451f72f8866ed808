/**
 * The server of the simulation: the real core behind a simulated journal.
 *
 * Replies are released when the batch that they depend on is durable. An append is in flight for a while and may fail
 * with an unknown outcome; a crash loses what is not durable, and perhaps finds the record that was in flight.
 */
import type * as CoreModule from "../../../src/server/core/core.js";
import type { Command, CoreEvent, CoreLimits, Effects, Reply } from "../../../src/server/core/types.js";
import { CLUSTER_ID } from "../limits.js";
import type { SavedModel } from "../model/state.js";
import { Agreement } from "./agreement.js";
import { Checker } from "./checker.js";
import { compareDumps, type Dump, dump } from "./dump.js";
import { checkEarlyRenewals } from "./released.js";
import { checkRest, checkStructure } from "./structure.js";
import { ensure } from "./violation.js";

export type CoreClass = typeof CoreModule.Core;
type Core = CoreModule.Core;

interface Append {
  readonly mutations: readonly (string | null)[];
  readonly held: readonly Reply[];
  readonly batch: number;
  readonly timestamp: number;
  readonly dump: Dump;
  readonly model: SavedModel;
}

/**
 * How the core's slices are: so large that every step is complete; small, and each step is driven on until the core is at
 * rest; small, and left to come when they come. See `model/model.ts`.
 */
export type Slices = "large" | "driven" | "loose";

export interface ServerHooks {
  /** A reply is durable and goes out. */
  deliver(reply: Reply): void;
  /** Something has happened in the core. */
  happened(event: CoreEvent, command: Command): void;
  /** The core is gone: all calls fail, all streams close. */
  dropped(): void;
}

const emptyEffects = (): Effects => ({ mutations: [], replies: [], events: [] });

export class SimServer {
  /** What is on the disk. */
  readonly journal = new Map<string, string>();
  core: Core | null = null;
  readonly checker: Checker;
  /** The clock of the process: starts anew, somewhere, with each of them. */
  #originMs = 0;
  #fx = emptyEffects();
  #held: Reply[] = [];
  #inFlight: Append | null = null;
  #durableBatch = 0;
  #durableTimestamp = 0;
  #durableDump: Dump | null = null;
  readonly #agreement: Agreement;
  #durableModel: SavedModel;
  #latestMs = Number.NEGATIVE_INFINITY;
  /** When something was seen to be due; the expiry comes behind the input of that moment. */
  #dueAtMs: number | null = null;

  constructor(
    private readonly Core: CoreClass,
    private readonly limits: CoreLimits,
    private readonly slices: Slices,
    private readonly worldNow: () => number,
    private readonly hooks: ServerHooks,
  ) {
    this.checker = new Checker(limits);
    this.#agreement = new Agreement(limits, slices === "large");
    this.#durableModel = Agreement.empty(limits);
  }

  get nowMs(): number {
    return this.worldNow() - this.#originMs;
  }

  get up(): boolean {
    return this.core !== null;
  }

  get appending(): boolean {
    return this.#inFlight !== null;
  }

  /** Starts a process whose clock begins at `clockMs`. */
  start(clockMs: number): void {
    this.#originMs = this.worldNow() - clockMs;
    this.#recover(undefined);
  }

  submit(command: Command): void {
    for (const each of this.slices === "driven" ? oneByOne(command) : [command]) this.#step(each, this.nowMs);
  }

  #step(command: Command, nowMs: number): void {
    const { core } = this;
    if (core === null) return;
    this.#latestMs = Math.max(this.#latestMs, nowMs);
    const mark = this.#fx.events.length;
    const replies = this.#stepCore(core, command, nowMs);
    for (let steps = 0; this.slices === "driven" && isDue(core, nowMs); steps++) {
      ensure(steps < 10_000, () => "the core does not come to rest");
      replies.push(...this.#stepCore(core, { kind: "expire" }, nowMs));
    }
    if (this.slices === "loose") return;
    const output = { replies, events: this.#fx.events.slice(mark) };
    this.#agreement.step(command, nowMs, this.#latestMs, output, core.counts);
    checkRest(core.inspect(), this.#latestMs);
  }

  #stepCore(core: Core, command: Command, nowMs: number): Reply[] {
    const fx = this.#fx;
    const mark = fx.replies.length;
    const eventMark = fx.events.length;
    this.checker.before(core.inspect(), command, nowMs);
    const dependsOn = core.step(command, nowMs, fx);
    const replies = fx.replies.slice(mark);
    const events = fx.events.slice(eventMark);
    for (const event of events) this.hooks.happened(event, command);
    this.checker.after(core.inspect(), command, replies, events, nowMs);
    checkStructure(core.inspect());
    if (dependsOn <= this.#durableBatch) {
      checkEarlyRenewals(command, replies, core.inspect(), this.journal);
      this.#release(replies, this.#durableTimestamp);
    } else this.#held.push(...replies);
    return replies;
  }

  /** Looks for what is due, or works it off: as of the moment at which it was seen to be due. */
  expire(): void {
    if (this.core === null) return;
    const nowMs = this.nowMs;
    const dueMs = this.core.nextDueMs;
    if (this.#dueAtMs === null) {
      if (dueMs !== null && dueMs <= nowMs) this.#dueAtMs = nowMs;
      return;
    }
    const asOfMs = this.#dueAtMs;
    this.#dueAtMs = null;
    this.#step({ kind: "expire" }, asOfMs);
    const nextMs = this.core.nextDueMs;
    if (nextMs === null || nextMs > asOfMs) {
      this.checker.allExpired(this.core.inspect(), asOfMs);
      checkRest(this.core.inspect(), this.#latestMs);
    }
  }

  /** For how long something has been due. */
  get overdueMs(): number {
    return this.nowMs - (this.core?.nextDueMs ?? this.nowMs);
  }

  /** Closes the batch and starts its append. */
  seal(force: boolean): void {
    const { core } = this;
    if (core === null || this.#inFlight !== null) return;
    const batch = core.batch;
    const fx = this.#fx;
    const held = this.#held;
    this.#fx = emptyEffects();
    this.#held = [];
    if (!core.seal(this.nowMs, fx, force)) {
      this.#release(held, this.#durableTimestamp);
      return;
    }
    const { timestamp } = core;
    const model = this.#agreement.save(this.nowMs);
    this.#inFlight = { mutations: fx.mutations, held, batch, timestamp, dump: dump(core.inspect(), this.nowMs), model };
  }

  finishAppend(): void {
    const append = this.#inFlight;
    if (append === null) return;
    this.#inFlight = null;
    this.#persist(append);
    this.#durableBatch = append.batch;
    this.#durableTimestamp = append.timestamp;
    this.#release(append.held, append.timestamp);
  }

  /** Recovers a copy of what is durable: the state must come back from it. */
  checkRecovery(): void {
    if (this.#durableDump === null) return;
    const init = { limits: this.limits, clusterId: CLUSTER_ID, nowMs: 0 };
    const copy = this.Core.recover(new Map(this.journal), init, emptyEffects());
    checkStructure(copy.inspect());
    compareDumps(this.#durableDump, dump(copy.inspect(), 0));
  }

  /** The append fails and nobody knows whether its record is there: the core starts over, in the same process. */
  failAppend(persisted: boolean): void {
    const append = this.#inFlight;
    if (append === null || this.core === null) return;
    const { floors } = this.core;
    this.#drop(persisted);
    this.#recover(floors);
  }

  /** `kill -9`. */
  crash(persisted: boolean): void {
    if (this.core === null) return;
    this.#drop(persisted);
    this.checker.processDied();
  }

  #drop(persisted: boolean): void {
    if (persisted && this.#inFlight !== null) this.#persist(this.#inFlight);
    this.#inFlight = null;
    this.core = null;
    this.#fx = emptyEffects();
    this.#held = [];
    this.#dueAtMs = null;
    this.hooks.dropped();
  }

  #recover(floors: Core["floors"] | undefined): void {
    const init = { limits: this.limits, clusterId: CLUSTER_ID, nowMs: this.nowMs };
    const fx = emptyEffects();
    const entries = new Map(this.journal);
    const core = this.Core.recover(entries, floors === undefined ? init : { ...init, floors }, fx);
    this.core = core;
    const state = core.inspect();
    checkStructure(state);
    const recovered = dump(state, this.nowMs);
    if (this.#durableDump !== null) compareDumps(this.#durableDump, recovered);
    const header = JSON.parse(this.journal.get("!") ?? "[0,0,0,0,0]") as number[];
    this.checker.recovered(state, this.nowMs, header[4] as number);
    this.#durableBatch = 0;
    this.#latestMs = this.nowMs;
    const { timestamp } = core;
    this.#agreement.restart(this.#durableModel, this.nowMs, { token: state.token, timestamp, serial: state.serial });
    const model = this.#agreement.save(this.nowMs);
    this.#inFlight = { mutations: fx.mutations, held: [], batch: 1, timestamp, dump: recovered, model };
  }

  #persist(append: Append): void {
    const { mutations } = append;
    for (let i = 0; i < mutations.length; i += 2) {
      const key = mutations[i] as string;
      const value = mutations[i + 1] as string | null;
      if (value === null) this.journal.delete(key);
      else this.journal.set(key, value);
    }
    this.#durableDump = append.dump;
    this.#durableModel = append.model;
  }

  /** Everybody has gone, and all that was due has been done: nothing is left. */
  checkEmpty(): void {
    if (this.core === null) return;
    const { leases, locks, holds, waiters, sessions } = this.core.counts;
    const left = { leases, locks, holds, waiters, sessions };
    const nothing = Object.values(left).every((count) => count === 0);
    ensure(nothing, () => `everybody has gone, and this is left: ${JSON.stringify(left)}`);
  }

  #release(replies: readonly Reply[], timestamp: number): void {
    this.checker.released(replies, timestamp, this.journal);
    for (const reply of replies) this.hooks.deliver(reply);
  }
}

const isDue = (core: Core, nowMs: number): boolean => core.nextDueMs !== null && core.nextDueMs <= nowMs;

/** A step grants no more than a slice; what the next request of the same frame finds would depend on that. */
function oneByOne(command: Command): Command[] {
  if (command.kind !== "frame" || command.requests.length < 2) return [command];
  const [first, ...others] = command.requests;
  const rest = others.map((request) => ({ ...command, renew: false, progress: [], requests: [request] }));
  return [{ ...command, requests: first === undefined ? [] : [first] }, ...rest];
}
