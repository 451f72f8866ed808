/** A server with nothing but locks, holds and tickets: what the hub sees of the real one, with batches made by hand. */
import type {
  Command,
  CoreEvent,
  HoldFacts,
  LockView,
  Outcome,
  Reply,
  WaiterView,
} from "../../src/server/core/types.js";
import { type WatchLimits, watchLimitDefaults } from "../../src/server/rpc/limits.js";
import type { CommandSink, LiveRoute, RouteFailure } from "../../src/server/sequencer/routes.js";
import { WatchHub } from "../../src/server/watch/hub.js";

export interface LockState {
  readonly tokens: Set<number>;
  readonly tickets: Set<string>;
}
export type State = Map<string, LockState>;

export const emptyLock = (): LockState => ({ tokens: new Set(), tickets: new Set() });

export const stateOf = ({ holders, waiters }: LockView): LockState => ({
  tokens: new Set(holders.map(({ token }) => token)),
  tickets: new Set(waiters.map(({ ticketId }) => ticketId)),
});

/** What can be compared: the locks that exist, in order. */
export function plain(state: State): Record<string, { tokens: number[]; tickets: string[] }> {
  const entries = [...state].filter(([, lock]) => lock.tokens.size + lock.tickets.size > 0);
  const sorted = entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(
    sorted.map(([name, { tokens, tickets }]) => [name, { tokens: [...tokens].sort(), tickets: [...tickets].sort() }]),
  );
}

export const noHold: HoldFacts = {
  token: 0,
  timestamp: 0,
  owner: "o",
  metadata: "",
  mode: "exclusive",
  permits: 0,
  permitLimit: 0,
  slots: [],
  leaseDisplayId: "D",
  contenderId: "",
};

export const noWaiter: WaiterView = {
  ticketId: "",
  position: 1,
  owner: "w",
  metadata: "",
  waitedMs: 0,
  attached: true,
  mode: "exclusive",
  permits: 0,
  permitLimit: 0,
  locks: 1,
  contenderId: "",
  blockedBy: null,
};

/** How long a turn takes: timers that are no longer fire in each. */
const TURN_MS = 5;

/** Turns of an event loop that turns when the test says so. */
export class Turns {
  private waiting: (() => void)[] = [];
  private intervals = new Set<() => void>();
  private short = new Set<() => void>();

  afterTurn(f: () => void): void {
    this.waiting.push(f);
  }
  every(ms: number, f: () => void): () => void {
    const intervals = ms <= TURN_MS ? this.short : this.intervals;
    intervals.add(f);
    return () => intervals.delete(f);
  }
  /** Returns whether anything waited for it. */
  turn(): boolean {
    const now = [...this.waiting, ...this.short];
    this.waiting = [];
    for (const f of now) f();
    return now.length > 0;
  }
  /** All timers fire. */
  beat(): void {
    for (const f of [...this.intervals]) f();
  }
  get timers(): number {
    return this.intervals.size;
  }
}

export class Store implements CommandSink {
  readonly turns = new Turns();
  readonly hub: WatchHub;
  lagged = 0;
  timestamp = 1_000;
  state: State = new Map();
  /** Locks on one page, if fewer than asked. */
  pageMax = Number.POSITIVE_INFINITY;
  /** Not null: every command is refused. */
  refusal: RouteFailure | null = null;
  /** Commands that were taken. */
  readonly commands: Command[] = [];
  metadata = "";
  private token = 0;
  private ticket = 0;
  private durable: State = new Map();
  private replies: Reply[] = [];
  private events: CoreEvent[] = [];

  constructor(limits: Partial<WatchLimits> = {}) {
    this.hub = new WatchHub({
      sink: this,
      limits: { ...watchLimitDefaults, ...limits },
      turns: this.turns,
      wallMs: () => 5,
      onLagged: () => this.lagged++,
    });
    this.hub.restart(this.timestamp);
  }

  submit(command: Command): RouteFailure | null {
    if (this.refusal !== null) return this.refusal;
    this.commands.push(command);
    if (command.kind !== "call") throw new Error(`the hub submitted a ${command.kind}`);
    const { request, route } = command;
    let outcome: Outcome;
    if (request.kind === "listLocks") outcome = this.list(request.prefix, request.after, request.limit);
    else if (request.kind === "status") outcome = { kind: "status", counts: {} as never };
    else throw new Error(`the hub asked for ${request.kind}`);
    this.replies.push({ kind: "outcome", route, seq: 0, outcome, clockAheadBy: 0 });
    return null;
  }

  private list(prefix: string, after: string, asked: number): Outcome {
    const limit = Math.min(asked, this.pageMax);
    const names = [...this.state.keys()].filter((name) => name.startsWith(prefix) && name > after).sort();
    const page = names.slice(0, limit);
    const next = page.length < limit ? "" : (page.at(-1) as string);
    return { kind: "locks", locks: page.map((name) => this.view(name)), next, timestamp: this.timestamp };
  }

  private view(name: string): LockView {
    const { tokens, tickets } = this.lock(name);
    return {
      name,
      holders: [...tokens].map((token) => ({
        ...this.hold(token),
        heldMs: 1,
        leaseRemainingMs: 2,
        maxHoldRemainingMs: 3,
        revoking: false,
      })),
      holdersTotal: tokens.size,
      waiters: [...tickets].map((ticketId) => ({ ...noWaiter, ticketId })),
      waitersTotal: tickets.size,
      reserved: false,
      delayRemainingMs: 0,
    };
  }

  private hold(token: number): HoldFacts {
    return { ...noHold, token, timestamp: this.timestamp, metadata: this.metadata };
  }

  lock(name: string): LockState {
    let lock = this.state.get(name);
    if (lock === undefined) {
      lock = emptyLock();
      this.state.set(name, lock);
    }
    return lock;
  }

  // ------------------------------------------------------------------------------------------ changes

  grant(name: string, ticketId = "", transferredFrom = 0, timestamp = ++this.timestamp): number {
    const lock = this.lock(name);
    const token = ++this.token;
    lock.tokens.add(token);
    lock.tickets.delete(ticketId);
    const hold = this.hold(token);
    const facts = { token, mode: "exclusive", waitedMs: 0, ticketId, transferredFrom, hold } as const;
    this.events.push({ kind: "granted", name, timestamp, ...facts });
    return token;
  }

  grantAll(names: readonly string[]): void {
    this.timestamp++;
    for (const name of names) this.grant(name, "", 0, this.timestamp);
  }

  end(name: string, token: number, end: "released" | "transferred" = "released"): void {
    this.lock(name).tokens.delete(token);
    const timestamp = end === "released" ? ++this.timestamp : this.timestamp + 1;
    this.events.push({ kind: "holdEnded", name, timestamp, token, mode: "exclusive", end, heldMs: 0, message: "" });
    this.prune(name);
  }

  queue(name: string): string {
    const ticketId = `T${++this.ticket}`;
    this.lock(name).tickets.add(ticketId);
    const waiter = { ...noWaiter, ticketId, metadata: this.metadata };
    this.events.push({ kind: "queued", name, timestamp: ++this.timestamp, waiter });
    return ticketId;
  }

  dequeue(name: string, ticketId: string): void {
    this.lock(name).tickets.delete(ticketId);
    this.events.push({ kind: "dequeued", name, timestamp: ++this.timestamp, waiter: { ...noWaiter, ticketId } });
    this.prune(name);
  }

  transfer(name: string, token: number, ticketId: string): void {
    this.end(name, token, "transferred");
    this.grant(name, ticketId, token);
  }

  /** Something of which watchers are not told. */
  other(event: CoreEvent): void {
    this.events.push(event);
  }

  /** A timestamp that somebody else took. */
  tick(count: number): void {
    this.timestamp += count;
  }

  private prune(name: string): void {
    const lock = this.lock(name);
    if (lock.tokens.size + lock.tickets.size === 0) this.state.delete(name);
  }

  // ------------------------------------------------------------------------------------------ batches

  /** The batch is durable: its replies, then its events. */
  commit(): void {
    const { replies, events } = this;
    this.replies = [];
    this.events = [];
    this.durable = copy(this.state);
    for (const reply of replies) {
      const route = reply.route as LiveRoute;
      route.deliver(reply, this.timestamp);
      route.flush();
    }
    for (const event of events) this.hub.event(event);
    this.hub.tellTo(this.timestamp);
  }

  /** Turns and commits until nothing goes on any more. */
  settle(): void {
    for (let i = 0; i < 100_000; i++) {
      const turned = this.turns.turn();
      if (!turned && this.replies.length + this.events.length === 0) return;
      this.commit();
    }
    throw new Error("the hub never comes to rest");
  }

  /** The batch is lost, and the state recovered from what was durable. */
  restart(): void {
    this.hub.closeAll({ reason: "STORE_DOWN", message: "failed", retryAfterMs: 1 });
    for (const reply of this.replies) {
      (reply.route as LiveRoute).fail({ reason: "OUTCOME_UNKNOWN", message: "failed", retryAfterMs: 1 });
    }
    this.replies = [];
    this.events = [];
    this.state = copy(this.durable);
    this.timestamp += 1_000;
    this.hub.restart(this.timestamp);
  }
}

function copy(state: State): State {
  return new Map(
    [...state].map(([name, { tokens, tickets }]) => [name, { tokens: new Set(tokens), tickets: new Set(tickets) }]),
  );
}
