/**
 * A history as the checkers want it: operations with the interval in which they took effect, and what is known of each
 * hold.
 *
 * A hold begins on the server between the call and the return of its acquire. It still lasts at the call of every later
 * operation that shows it: a look that found it held, a downgrade, a transfer or a release that succeeded. The last such
 * moment is `seenNs`. In between it lasts without a gap, since a token is granted once. So a hold is proven from the
 * return of its acquire to `seenNs`; nothing is known of when it ended, but that it was not before.
 *
 * What is unknown or was never answered may have happened or not, and proves nothing.
 *
 * With a skew, every interval is that much wider at both ends: then no order is concluded across processes that may be
 * an error of their clocks.
 */
import type { HistoryEvent, HistoryGrant, HistoryLock, HistoryMode } from "@leasehold/client";

export type Outcome = "ok" | "fail" | "unknown" | "unfinished";

export interface Operation {
  readonly process: string;
  readonly id: number;
  readonly op: HistoryEvent["op"];
  /** The lock or resource; several, with commas. */
  readonly subject: string;
  /** Where its call, or its only event, is: the history and the line. */
  readonly source: string;
  readonly line: number;
  invokeNs: number;
  /** Infinity: it never returned. */
  returnNs: number;
  outcome: Outcome;
  /** The token that it names or was granted, the timestamp that it got: the first of several. */
  value: number;
  readonly locks: readonly HistoryLock[];
}

export interface Hold {
  readonly lock: string;
  readonly token: number;
  /** 0: not recorded. */
  readonly timestamp: number;
  readonly mode: HistoryMode;
  readonly permits: number;
  readonly limit: number;
  readonly slots: readonly number[];
  readonly acquire: Operation;
  /** Until when it lasted at least. */
  seenNs: number;
  /** What showed that. */
  seenBy: Operation;
  /** From when on an exclusive hold may have been a shared one. */
  sharedFromNs: number;
  /** The operation that ended it, if one was confirmed. */
  endedBy: Operation | null;
}

/** Success with a hold that cannot be. */
export interface Misuse {
  readonly operation: Operation;
  /** Null: nobody was granted that token. */
  readonly hold: Hold | null;
  readonly why: "not granted" | "somebody else's" | "ended";
}

export interface Timestamps {
  readonly first: number;
  readonly last: number;
  readonly operation: Operation;
  /** False: the process made it itself. */
  readonly ofServer: boolean;
}

/** A history that cannot be read. */
export class UnreadableHistory extends Error {
  override readonly name = "UnreadableHistory";
}

/** How much of one kind of misuse is kept. */
const MISUSES_MAX = 1_000;

export class History {
  readonly skewNs: number;
  readonly processes = new Map<string, string>();
  readonly locks = new Map<string, Hold[]>();
  readonly timestamps: Timestamps[] = [];
  /** Writes that were accepted, by resource. */
  readonly writes = new Map<string, Operation[]>();
  /** What each observer was told, in order. */
  readonly observers = new Map<string, Operation[]>();
  readonly misuses: Misuse[] = [];
  /** Two grants with one token. */
  readonly twins: (readonly [Hold, Hold])[] = [];
  /** How many operations of each kind had which outcome. */
  readonly counts = new Map<string, Record<Outcome, number>>();
  events = 0;
  /** Lines that were cut off at the end of a file. */
  torn = 0;
  startNs = Number.POSITIVE_INFINITY;
  endNs = Number.NEGATIVE_INFINITY;
  readonly #holds = new Map<number, Hold>();
  readonly #open = new Map<string, Operation>();
  /** Operations that succeeded with a token whose grant has not been read yet. */
  #strays: Operation[] = [];

  constructor(skewNs = 0) {
    this.skewNs = skewNs;
  }

  get holds(): Iterable<Hold> {
    return this.#holds.values();
  }

  get grants(): number {
    return this.#holds.size;
  }

  /** Takes the next event. Returns what is wrong with it, if anything is. */
  add(event: HistoryEvent, source: string, line: number): string | undefined {
    this.events++;
    this.startNs = Math.min(this.startNs, event.ns);
    this.endNs = Math.max(this.endNs, event.ns);
    if (event.op === "refresh" || event.op === "tick" || event.op === "observe") {
      this.#look(event, this.#operation(event, source, line));
      return undefined;
    }
    const key = `${event.id} ${event.process}`;
    const open = this.#open.get(key);
    if (event.type === "invoke") {
      if (open) return `calls operation ${event.id} of this process a second time`;
      this.#open.set(key, this.#operation(event, source, line));
      return undefined;
    }
    if (!open || open.op !== event.op) return `is the result of a call of ${event.op} that is not there`;
    this.#open.delete(key);
    return this.#result(open, event);
  }

  /** Call it when all has been read. */
  finish(): void {
    for (const operation of this.#open.values()) {
      this.#count(operation);
      if (operation.op === "downgrade") this.#mayBeShared(operation);
    }
    this.#open.clear();
    const strays = this.#strays;
    this.#strays = [];
    for (const operation of strays) {
      const hold = this.#holds.get(operation.value);
      if (hold) this.#showed(operation, hold);
      else this.#misuse(operation, null, "not granted");
    }
  }

  #operation(event: HistoryEvent, source: string, line: number): Operation {
    let process = this.processes.get(event.process);
    if (process === undefined) {
      process = event.process;
      this.processes.set(process, process);
    }
    return {
      process,
      id: event.id,
      op: event.op,
      subject: subjectOf(event),
      source,
      line,
      invokeNs: event.ns - this.skewNs,
      returnNs: event.type === "invoke" ? Number.POSITIVE_INFINITY : event.ns + this.skewNs,
      outcome: event.type === "invoke" ? "unfinished" : event.type,
      value: "token" in event ? event.token : "timestamp" in event ? event.timestamp : 0,
      locks: event.op === "acquire" && event.type === "invoke" ? event.locks : NO_LOCKS,
    };
  }

  #look(event: HistoryEvent, operation: Operation): void {
    this.#count(operation);
    if (operation.outcome !== "ok") return;
    if (event.op === "refresh") this.#shows(operation);
    else if (event.op === "observe") listIn(this.observers, `${event.id} ${event.process}`).push(operation);
    else this.#stamp(operation, operation.value, operation.value, false);
  }

  #result(operation: Operation, event: HistoryEvent): string | undefined {
    operation.returnNs = event.ns + this.skewNs;
    operation.outcome = event.type as Outcome;
    this.#count(operation);
    if (operation.returnNs < operation.invokeNs) return "is the result of an operation that was called later";
    if (event.op === "downgrade" && event.type !== "fail") this.#mayBeShared(operation);
    if (event.type !== "ok") return undefined;
    if (event.op === "acquire") return this.#granted(operation, event.grants);
    if (event.op === "range") {
      if (event.last < event.first) return "has a range that ends before it begins";
      this.#stamp(operation, event.first, event.last, true);
    } else if (event.op === "write") listIn(this.writes, operation.subject).push(operation);
    else this.#shows(operation);
    return undefined;
  }

  #granted(acquire: Operation, grants: readonly HistoryGrant[]): string | undefined {
    const { locks } = acquire;
    if (grants.length !== locks.length) return `has ${grants.length} grants for ${locks.length} locks`;
    acquire.value = grants[0]?.token ?? 0;
    let stamped = 0;
    grants.forEach((grant, i) => {
      const { name, mode, permits = 1, limit = Number.POSITIVE_INFINITY } = locks[i] as HistoryLock;
      const { token, timestamp = 0, slots = NO_SLOTS } = grant;
      const lock = this.#lock(name);
      const known = { token, timestamp, mode, permits, limit, slots, acquire, seenBy: acquire, endedBy: null };
      const seenNs = acquire.invokeNs;
      const hold: Hold = { lock: lock.name, ...known, seenNs, sharedFromNs: Number.POSITIVE_INFINITY };
      const twin = this.#holds.get(token);
      if (twin) this.twins.push([twin, hold]);
      else this.#holds.set(token, hold);
      lock.holds.push(hold);
      if (timestamp > 0 && timestamp !== stamped) this.#stamp(acquire, timestamp, timestamp, true);
      stamped = timestamp;
    });
    return undefined;
  }

  #lock(name: string): { readonly name: string; readonly holds: Hold[] } {
    const holds = listIn(this.locks, name);
    return { name: holds[0]?.lock ?? name, holds };
  }

  #stamp(operation: Operation, first: number, last: number, ofServer: boolean): void {
    if (operation.value === 0) operation.value = first;
    this.timestamps.push({ first, last, operation, ofServer });
  }

  #shows(operation: Operation): void {
    const hold = this.#holds.get(operation.value);
    if (hold) this.#showed(operation, hold);
    else this.#strays.push(operation);
  }

  /** A success that shows a hold. */
  #showed(operation: Operation, hold: Hold): void {
    if (hold.acquire.process !== operation.process || hold.lock !== operation.subject) {
      this.#misuse(operation, hold, "somebody else's");
      return;
    }
    if (hold.endedBy !== null && operation.invokeNs + this.skewNs > hold.endedBy.returnNs - this.skewNs) {
      this.#misuse(operation, hold, "ended");
      return;
    }
    if (operation.invokeNs >= hold.seenNs) {
      hold.seenNs = operation.invokeNs;
      hold.seenBy = operation;
    }
    if (operation.op === "release" || operation.op === "transfer") {
      if (hold.endedBy !== null) this.#misuse(operation, hold, "ended");
      else hold.endedBy = operation;
    }
  }

  #mayBeShared(downgrade: Operation): void {
    const hold = this.#holds.get(downgrade.value);
    if (hold) hold.sharedFromNs = Math.min(hold.sharedFromNs, downgrade.invokeNs);
  }

  #misuse(operation: Operation, hold: Hold | null, why: Misuse["why"]): void {
    if (this.misuses.length < MISUSES_MAX) this.misuses.push({ operation, hold, why });
  }

  #count(operation: Operation): void {
    let counts = this.counts.get(operation.op);
    if (!counts) {
      counts = { ok: 0, fail: 0, unknown: 0, unfinished: 0 };
      this.counts.set(operation.op, counts);
    }
    counts[operation.outcome]++;
  }
}

const NO_LOCKS: readonly HistoryLock[] = [];
const NO_SLOTS: readonly number[] = [];

function subjectOf(event: HistoryEvent): string {
  if ("name" in event) return event.name;
  if ("resource" in event) return event.resource;
  return event.op === "acquire" && event.type === "invoke" ? event.locks.map(({ name }) => name).join(", ") : "";
}

function listIn<T>(lists: Map<string, T[]>, key: string): T[] {
  let list = lists.get(key);
  if (!list) {
    list = [];
    lists.set(key, list);
  }
  return list;
}
