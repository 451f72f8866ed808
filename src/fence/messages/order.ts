/**
 * The order of messages within a key, as one consumer sees it. No transport, no storage, no clock.
 *
 * A message has a token and a sequence. For each key there is the floor, the highest token that was seen, and the next
 * sequence of that producer:
 *
 *     token below the floor          stale: somebody has been granted the lock since
 *     at the floor, below the next   a duplicate: a producer that lost a confirm, or a broker that lost an ack
 *     at the floor, the next         its turn, and then that of what was held behind it
 *     at the floor, beyond the next  held back, in bounds, until the missing ones come
 *     above the floor                a newer producer: it becomes the floor, and begins at 1 (or with a marker, 0)
 *
 * Without the hold-back, order is lost whenever a broker puts a message back in the queue:
 *
 *     "created" is delivered, its handler fails, and it goes back
 *     "updated" is delivered and handled            <- there is nothing to update yet
 *     "created" is delivered again
 *
 * A gap may never fill: its producer died before it had published, or gave up. After `gapMs` it is reported, and then
 * passed over ("skip") or waited for on ("stop"). When a newer producer shows up, an older one's gap is final: what
 * comes of it from then on is stale. What was held behind that gap came in time, and is handled before the newer one's
 * messages.
 *
 * Messages of those who share a lock have no order among themselves. They are checked against the floor, and that is
 * all.
 */
import type { Stamp } from "./stamp.js";

/** What is held and handed out: a message with its stamp. */
export interface Item {
  readonly stamp: Stamp;
}

/** Sequences of a key that have not come. */
export interface Gap {
  readonly key: string;
  readonly token: number;
  /** The first and the last sequence that are missing. */
  readonly from: number;
  readonly to: number;
  /**
   * - `late`: they have not come within `gapMs`
   * - `newer producer`: they can only be stale from now on
   * - `full`: there is no room to wait for them any longer
   * - `told`: an administrator has said so
   */
  readonly why: "late" | "newer producer" | "full" | "told";
  /** Whether the order goes on behind it. If not, the key stands still. */
  readonly skipped: boolean;
}

export interface OrderOptions {
  /** What to do about a gap that does not fill. */
  readonly onGap: "skip" | "stop";
  /** How long to wait for what is missing. */
  readonly gapMs: number;
  /** How many messages may wait for missing ones, in all keys together and in one key. */
  readonly heldMax: number;
  readonly heldPerKeyMax: number;
  /** How many keys may be known at a time. */
  readonly keysMax: number;
}

/** What became of a message that was offered. `full`: there is no room for it. */
export type Offered = "queued" | "held" | "duplicate" | "stale" | "full";

interface Held<T> {
  readonly item: T;
  readonly atMs: number;
}

/** The messages of one producer: of one token. */
class Stream<T extends Item> {
  /** In order and without a gap, not handed out yet. */
  readonly queue: T[] = [];
  /** Behind a gap; in the order in which they came. */
  readonly held = new Map<number, Held<T>>();
  /** A newer producer has come: nothing is accepted any more. */
  closed = false;
  /** The gap before this sequence has been reported. */
  reported = 0;

  constructor(
    readonly token: number,
    /** The sequence that may be queued next. */
    public next: number,
    /** Something of it was seen, or is on record: a marker has come too late to mean anything. */
    public begun: boolean,
  ) {}

  /** Queues what is in order now. */
  advance(): void {
    for (let first = this.held.get(this.next); first; first = this.held.get(this.next)) {
      this.held.delete(this.next);
      this.queue.push(first.item);
      this.next += 1;
    }
  }

  /** The lowest sequence that is held. Call it only if there is one. */
  lowestHeld(): number {
    let lowest = Number.POSITIVE_INFINITY;
    for (const sequence of this.held.keys()) lowest = Math.min(lowest, sequence);
    return lowest;
  }
}

class Key<T extends Item> {
  /** Oldest first. All but the last one are closed; the last one's token is the floor. */
  readonly streams: Stream<T>[];
  /** Of those who share the lock. */
  readonly loose: T[] = [];
  /** Handed out, and not done. */
  busy = false;
  /** How many of its messages wait for missing ones. */
  waiting = 0;

  constructor(
    readonly name: string,
    first: Stream<T>,
  ) {
    this.streams = [first];
  }

  get newest(): Stream<T> {
    return this.streams[this.streams.length - 1] as Stream<T>;
  }

  /** The one whose turn it is: the oldest that is not over. */
  get head(): Stream<T> {
    while (this.streams.length > 1) {
      const [first] = this.streams as [Stream<T>];
      if (first.queue.length > 0 || first.held.size > 0) return first;
      this.streams.shift();
    }
    return this.newest;
  }

  /** The first one with a gap. Nothing behind it can be handled. */
  get gapped(): Stream<T> | undefined {
    return this.streams.find((stream) => stream.held.size > 0);
  }

  get idle(): boolean {
    const { head } = this;
    return !this.busy && this.loose.length === 0 && head.queue.length === 0 && head.held.size === 0;
  }

  /** What has not been handed out. */
  items(): T[] {
    const ordered = this.streams.flatMap(({ queue, held }) => [
      ...queue,
      ...[...held.values()].map(({ item }) => item),
    ]);
    return [...this.loose, ...ordered];
  }

  countWaiting(): number {
    let count = 0;
    let blocked = false;
    for (const stream of this.streams) {
      count += stream.held.size + (blocked ? stream.queue.length : 0);
      blocked ||= stream.held.size > 0;
    }
    return count;
  }
}

export class Order<T extends Item> {
  readonly #options: OrderOptions;
  readonly #report: (gap: Gap) => void;
  /** The one that was used last is the last. */
  readonly #keys = new Map<string, Key<T>>();
  /** Those in which messages wait for missing ones. */
  readonly #waitingKeys = new Set<Key<T>>();
  #waiting = 0;

  /** `report` is told of every gap. After one that was skipped its key may have something to `take`. */
  constructor(options: OrderOptions, report: (gap: Gap) => void) {
    this.#options = options;
    this.#report = report;
  }

  /** How many messages wait for missing ones. */
  get waiting(): number {
    return this.#waiting;
  }

  /** How many keys are known. */
  get size(): number {
    return this.#keys.size;
  }

  /** Whether the key's state is in memory. If not: `learn` it before `offer`. */
  knows(key: string): boolean {
    return this.#keys.has(key);
  }

  /** The highest token that was seen; undefined: the key is not known. */
  floor(key: string): number | undefined {
    return this.#keys.get(key)?.newest.token;
  }

  /**
   * Takes over what is on record of a key; undefined: nothing. Forgets another key for it if there is no more room, one
   * of which nothing waits: all of it is on record. False: there is none.
   */
  learn(key: string, mark: { readonly token: number; readonly sequence: number } | undefined): boolean {
    if (this.#keys.size >= this.#options.keysMax && !this.#evict()) return false;
    const stream = new Stream<T>(mark?.token ?? 0, (mark?.sequence ?? 0) + 1, mark !== undefined);
    this.#keys.set(key, new Key(key, stream));
    return true;
  }

  #evict(): boolean {
    for (const key of this.#keys.values()) {
      if (!key.idle) continue;
      this.#keys.delete(key.name);
      return true;
    }
    return false;
  }

  /** Takes a message in. Its key must be known. */
  offer(item: T, nowMs: number): Offered {
    const { stamp } = item;
    const key = this.#get(stamp.key);
    this.#keys.delete(key.name);
    this.#keys.set(key.name, key);
    if (stamp.token < key.newest.token) return "stale";
    if (stamp.shared) {
      key.loose.push(item);
      return "queued";
    }
    if (stamp.token > key.newest.token) this.#raise(key, stamp.token);
    return this.#enter(key, item, nowMs);
  }

  #get(name: string): Key<T> {
    const key = this.#keys.get(name);
    if (key) return key;
    throw new Error(`the key ${JSON.stringify(name)} was not learnt`); // a bug of the caller's
  }

  /** A newer producer: what is missing of the older ones will not come. */
  #raise(key: Key<T>, token: number): void {
    const older = key.newest;
    older.closed = true;
    if (older.held.size > 0 && key.gapped === older) {
      this.#judge(key, "newer producer", this.#options.onGap === "skip");
    }
    key.streams.push(new Stream(token, 1, false));
  }

  #enter(key: Key<T>, item: T, nowMs: number): Offered {
    const { sequence } = item.stamp;
    const stream = key.newest;
    if (sequence < stream.next && !(sequence === 0 && !stream.begun)) return "duplicate";
    if (stream.held.has(sequence)) return "duplicate";
    const { gapped = stream } = key;
    const waits = sequence > stream.next || gapped !== stream;
    if (waits && this.#options.onGap === "stop" && this.#over(key, 1)) return "full";
    stream.begun = true;
    if (sequence > stream.next) {
      stream.held.set(sequence, { item, atMs: nowMs });
    } else {
      stream.queue.push(item);
      if (sequence > 0) stream.next += 1;
      stream.advance();
    }
    this.#count(key);
    this.#makeRoom(key);
    return waits ? "held" : "queued";
  }

  /** Whether too many messages would wait, with so many more in this key. */
  #over(key: Key<T>, more: number): boolean {
    const { heldMax, heldPerKeyMax } = this.#options;
    return key.waiting + more > heldPerKeyMax || this.#waiting + more > heldMax;
  }

  /** Passes over gaps until no more messages wait than may. */
  #makeRoom(key: Key<T>): void {
    while (this.#over(key, 0)) {
      const full = key.waiting > this.#options.heldPerKeyMax ? key : (this.#oldestWaiting() as Key<T>);
      this.#judge(full, "full", true);
      this.#count(full);
    }
  }

  #oldestWaiting(): Key<T> | undefined {
    let oldest: Key<T> | undefined;
    for (const key of this.#waitingKeys) {
      if (!oldest || this.#sinceMs(key) < this.#sinceMs(oldest)) oldest = key;
    }
    return oldest;
  }

  /** Since when its gap has been open: since the first message behind it came. */
  #sinceMs(key: Key<T>): number {
    for (const { atMs } of key.gapped?.held.values() ?? []) return atMs;
    return Number.POSITIVE_INFINITY;
  }

  /** Reports the first gap of a key (all of that stream if no more is to come) and, with `skip`, goes on behind it. */
  #judge(key: Key<T>, why: Gap["why"], skip: boolean): void {
    const stream = key.gapped as Stream<T>;
    do {
      const to = stream.lowestHeld() - 1;
      if (skip || stream.reported < stream.next) {
        this.#report({ key: key.name, token: stream.token, from: stream.next, to, why, skipped: skip });
        stream.reported = stream.next;
      }
      if (!skip) return;
      stream.next = to + 1;
      stream.advance();
    } while (stream.closed && stream.held.size > 0);
  }

  #count(key: Key<T>): void {
    const before = key.waiting;
    key.waiting = key.countWaiting();
    this.#waiting += key.waiting - before;
    if (key.waiting > 0) this.#waitingKeys.add(key);
    else this.#waitingKeys.delete(key);
  }

  /** The next message of the key to be handled; undefined: none, or one is being handled. `done` must follow. */
  take(name: string): T | undefined {
    const key = this.#keys.get(name);
    if (!key || key.busy) return undefined;
    const item = key.loose.shift() ?? key.head.queue.shift();
    key.busy = item !== undefined;
    return item;
  }

  /** What `take` gave is dealt with. */
  done(name: string): void {
    const key = this.#keys.get(name);
    if (key) key.busy = false;
  }

  /** When `overdue` should be called next; undefined: nothing is being waited for. */
  dueMs(): number | undefined {
    let earliest = Number.POSITIVE_INFINITY;
    for (const key of this.#waitingKeys) {
      const { gapped } = key;
      if (gapped && gapped.reported < gapped.next)
        earliest = Math.min(earliest, this.#sinceMs(key) + this.#options.gapMs);
    }
    return Number.isFinite(earliest) ? earliest : undefined;
  }

  /** Deals with the gaps that have been open for too long. */
  overdue(nowMs: number): void {
    const skip = this.#options.onGap === "skip";
    for (const key of [...this.#waitingKeys]) {
      const late = () => this.#sinceMs(key) + this.#options.gapMs <= nowMs;
      if (!late()) continue;
      do this.#judge(key, "late", skip);
      while (skip && late());
      this.#count(key);
    }
  }

  /** Goes on behind the gap at which a key stands. False: it stands at none. */
  skip(name: string): boolean {
    const key = this.#keys.get(name);
    if (!key?.gapped) return false;
    this.#judge(key, "told", true);
    this.#count(key);
    return true;
  }

  /** Forgets what is known of a key, and gives back what has not been handed out of it. */
  forget(name: string): T[] {
    const key = this.#keys.get(name);
    if (!key) return [];
    this.#keys.delete(name);
    this.#waitingKeys.delete(key);
    this.#waiting -= key.waiting;
    return key.items();
  }

  /** Forgets all keys, or those with a message that matches, and gives back what has not been handed out of them. */
  clear(matches?: (item: T) => boolean): T[] {
    const names = [...this.#keys.values()]
      .filter((key) => !matches || key.items().some(matches))
      .map(({ name }) => name);
    return names.flatMap((name) => this.forget(name));
  }
}
