/**
 * Holds the reference model against the core, step by step. How the two are compared, and why so, is told at the top of
 * `model/model.ts`.
 */
import type { Command, CoreEvent, CoreLimits, Counts, Reply, Route } from "../../../src/server/core/types.js";
import { CLUSTER_ID } from "../limits.js";
import { knotsOf } from "../model/knots.js";
import { type Meaning, meaningOfEvent, meaningOfReply, type Said } from "../model/meaning.js";
import { lockNames, type Predicted, stepModel } from "../model/model.js";
import { emptyModel, type ModelFloors, type ModelState, restart, type SavedModel, save } from "../model/state.js";
import { ensure } from "./violation.js";

/** What the core has said and what has happened, in one step or, driven to rest, in several. */
export interface CoreOutput {
  readonly replies: readonly Reply[];
  readonly events: readonly CoreEvent[];
}

export class Agreement {
  #state: ModelState;
  readonly #routes = new Map<Route, number>();

  /** `exact`: the core works in large slices; else it is compared when it has come to rest. */
  constructor(
    limits: CoreLimits,
    private readonly exact: boolean,
  ) {
    this.#state = emptyModel(limits, CLUSTER_ID).state;
  }

  save(nowMs: number): SavedModel {
    return save(this.#state, nowMs);
  }

  restart(saved: SavedModel, nowMs: number, floors: ModelFloors): void {
    this.#state = restart(saved, nowMs, floors);
    this.#routes.clear();
  }

  static empty(limits: CoreLimits): SavedModel {
    return emptyModel(limits, CLUSTER_ID);
  }

  /** `latestMs`: the latest time of any step. */
  step(command: Command, nowMs: number, latestMs: number, core: CoreOutput, counts: Counts): void {
    const did = { exact: this.exact, events: core.events, replies: core.replies.map(meaningOfReply) };
    const commands: [Command, number][] = [[command, nowMs]];
    if (!this.exact && command.kind !== "expire") commands.push([{ kind: "expire" }, nowMs]);
    const predicted: { replies: Said[]; events: Meaning[] } = { replies: [], events: [] };
    for (const [each, atMs] of commands) {
      const { replies, events }: Predicted = stepModel(this.#state, each, atMs, latestMs, did);
      predicted.replies.push(...replies);
      predicted.events.push(...events);
    }
    this.#compareEvents(core.events, predicted.events);
    this.#compareReplies(core.replies, predicted.replies);
    this.#compareCounts(counts, latestMs);
    if (this.exact) return;
    this.#state.clock.now = counts.timestamp;
    const knots = knotsOf(this.#state).starts.map(({ serial }) => `T${serial}`);
    ensure(knots.length === 0, () => `a deadlock was not noticed: ${knots.join(", ")} cannot proceed`);
  }

  #compareEvents(core: readonly CoreEvent[], model: readonly Meaning[]): void {
    const is = core.flatMap((event) => meaningOfEvent(event) ?? []).map((event) => this.#text(event));
    const should = model.map((event) => this.#text(event));
    if (!this.exact) for (const list of [is, should]) list.sort();
    compare("events", is, should);
  }

  #compareReplies(core: readonly Reply[], model: readonly Said[]): void {
    const text = ({ route, what }: Said) => `to ${this.#nameOf(route)}: ${this.#text(what)}`;
    const is = core.map((reply) => text(meaningOfReply(reply))).sort();
    const should = model.map(text).sort();
    compare("replies", is, should);
  }

  #text(meaning: Meaning): string {
    if (this.exact) return JSON.stringify(meaning);
    return JSON.stringify(meaning, (key, value) => (passing.includes(key) ? undefined : value));
  }

  #compareCounts(counts: Counts, latestMs: number): void {
    const { leases, sessions, holds, tickets } = this.#state;
    const model = {
      leases: leases.length,
      holds: holds.length,
      waiters: tickets.length,
      sessions: sessions.length,
      lastToken: this.#state.token,
      timestamp: this.exact ? this.#state.clock.now : counts.timestamp,
    };
    const [fewest, most] = [latestMs, Number.NEGATIVE_INFINITY].map((ms) => lockNames(this.#state, ms).length);
    const locks = counts.locks >= (fewest ?? 0) && counts.locks <= (most ?? 0);
    ensure(locks, () => `the core counts ${counts.locks} locks, the model ${fewest} to ${most}`);
    for (const [what, count] of Object.entries(model)) {
      const is = counts[what as keyof typeof model];
      ensure(is === count, () => `the core counts ${is} (${what}), the model ${count}`);
    }
  }

  #nameOf(route: Route): string {
    const known = this.#routes.get(route);
    if (known !== undefined) return `${route.kind} ${known}`;
    this.#routes.set(route, this.#routes.size + 1);
    return `${route.kind} ${this.#routes.size}`;
  }
}

/** Driven to rest, clearing away and granting may have taken turns: then these are the core's business. */
const passing = [
  ...["timestamp", "first", "last", "clockAheadBy", "knot"],
  ...["holders", "holdersTotal", "waiters", "reserved", "position"],
];

function compare(what: string, is: readonly string[], should: readonly string[]): void {
  const index = is.findIndex((text, i) => text !== should[i]);
  if (index < 0 && is.length === should.length) return;
  const onlyIs = is.filter((text) => !should.includes(text));
  const onlyShould = should.filter((text) => !is.includes(text));
  ensure(false, () => {
    const lines = [...onlyIs.map((text) => `  core:  ${text}`), ...onlyShould.map((text) => `  model: ${text}`)];
    const order = lines.length > 0 ? lines : [...is.map((t) => `  core:  ${t}`), ...should.map((t) => `  model: ${t}`)];
    return `the core and the model disagree about ${what}:\n${order.join("\n")}`;
  });
}
