/** A watcher's client: keeps what it is told, and objects to whatever does not fit what it was told before. */
import type { RouteFailure } from "../../src/server/sequencer/routes.js";
import { isEvent, type WatchEntry } from "../../src/server/watch/entry.js";
import type { WatchHub } from "../../src/server/watch/hub.js";
import type { Subscriber, WatchOutput, WatchStart } from "../../src/server/watch/subscriber.js";
import type { WatchTarget } from "../../src/server/watch/targets.js";
import { emptyLock, type LockState, type State, stateOf } from "./store.js";

export class Reader implements WatchOutput {
  /** Every response as a line: its entries in short, and its position. */
  readonly lines: string[] = [];
  readonly entries: WatchEntry[] = [];
  failure: RouteFailure | null = null;
  state: State = new Map();
  /** Whether the state is complete. */
  synced = true;
  /** To continue from. */
  position = 0;
  /** False: `write` says that nothing more is accepted. */
  accepts = true;
  /** Writes that were made although the last one had been answered with false. */
  pushed = 0;
  private full = false;
  private subscriber: Subscriber | undefined;
  private lastTimestamp = 0;
  private lastEvent = 0;

  constructor(
    private readonly server: { readonly hub: WatchHub },
    readonly target: WatchTarget = { kind: "prefix", prefix: "" },
    /** The end of what hung on a dead lease may be told after a state in which it was absent already. */
    private readonly knowsDead = false,
  ) {}

  watch(start: Partial<WatchStart> = {}): this {
    this.failure = null;
    this.full = false;
    const watching = this.server.hub.watch(this.target, { after: 0, fromNow: false, ...start }, this);
    if ("reason" in watching) throw new Error(watching.message);
    this.subscriber = watching;
    return this;
  }

  /** Cuts the connection and comes back where it was. */
  reconnect(): void {
    this.subscriber?.close();
    this.watch({ after: this.position });
  }

  close(): void {
    this.subscriber?.close();
  }

  pause(): void {
    this.accepts = false;
  }

  resume(): void {
    this.accepts = true;
    if (!this.full) return;
    this.full = false;
    this.subscriber?.drained();
  }

  write(entries: readonly WatchEntry[], position: number): boolean {
    if (this.full) this.pushed++;
    this.lines.push(`${entries.map(short).join(" ")} @${position}`.trim());
    for (const entry of entries) this.take(entry);
    if (entries.length > 0) this.lastEvent = 0; // no event of this response may have one of the next's timestamp
    this.check(this.synced ? position >= this.lastTimestamp : position === 0, `position ${position}`);
    this.position = position;
    this.full = !this.accepts;
    return this.accepts;
  }

  end(failure: RouteFailure): void {
    this.failure = failure;
  }

  private take(entry: WatchEntry): void {
    this.entries.push(entry);
    const { timestamp } = entry;
    if (entry.kind === "reset") {
      this.state = new Map();
      this.synced = false;
      this.lastTimestamp = 0; // after a restore from elsewhere it may be lower
    }
    const rises = isEvent(entry) ? timestamp > this.lastTimestamp || timestamp === this.lastEvent : true;
    this.check(rises && timestamp >= this.lastTimestamp, `timestamp of ${short(entry)} behind ${this.lastTimestamp}`);
    this.lastTimestamp = timestamp;
    if (entry.kind === "synced") {
      this.check(!this.synced, "synced twice");
      this.synced = true;
    } else if (entry.kind === "state") {
      const { name } = entry.lock;
      this.check(!this.synced && !this.state.has(name), `a second state of ${name}`);
      this.state.set(name, stateOf(entry.lock));
    } else if (entry.kind !== "reset") {
      this.lastEvent = timestamp;
      this.apply(entry);
    }
  }

  private apply(event: Exclude<WatchEntry, { kind: "reset" | "state" | "synced" }>): void {
    const lock = this.lock(event.name);
    const what = short(event);
    switch (event.kind) {
      case "granted":
        if (event.transferredFrom > 0) this.check(lock.tokens.delete(event.transferredFrom), what);
        if (event.ticketId !== "") this.check(lock.tickets.delete(event.ticketId), what);
        this.check(!lock.tokens.has(event.token), what);
        lock.tokens.add(event.token);
        break;
      case "holdEnded":
        this.check(lock.tokens.delete(event.token) || this.knowsDead, what);
        break;
      case "queued":
        this.check(!lock.tickets.has(event.waiter.ticketId), what);
        lock.tickets.add(event.waiter.ticketId);
        break;
      case "dequeued":
        this.check(lock.tickets.delete(event.waiter.ticketId) || this.knowsDead, what);
        break;
    }
  }

  private lock(name: string): LockState {
    const lock = this.state.get(name) ?? emptyLock();
    this.state.set(name, lock);
    return lock;
  }

  private check(holds: boolean, what: string): void {
    if (!holds) throw new Error(`what the watcher is told does not fit: ${what}\n${this.lines.slice(-20).join("\n")}`);
  }
}

function short(entry: WatchEntry): string {
  switch (entry.kind) {
    case "reset":
      return `RESET(${entry.reason})`;
    case "synced":
      return "SYNCED";
    case "state":
      return `${entry.lock.name}=[${[
        ...entry.lock.holders.map(({ token }) => token),
        ...entry.lock.waiters.map(({ ticketId }) => ticketId),
      ]}]`;
    case "granted":
      return `${entry.name}+${entry.token}`;
    case "holdEnded":
      return `${entry.name}-${entry.token}`;
    case "queued":
      return `${entry.name}+${entry.waiter.ticketId}`;
    case "dequeued":
      return `${entry.name}-${entry.waiter.ticketId}`;
    default:
      return `${entry.name}~${entry.kind}`;
  }
}
