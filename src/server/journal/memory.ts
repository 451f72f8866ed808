import { randomBytes } from "node:crypto";
import type { Entry, Journal, JournalSnapshot, JournalStats, Mutations, Recovery } from "./journal.js";

/** Entries, and characters, of one slice of a snapshot. */
const SLICE_ENTRIES = 400;
const SLICE_CHARS = 128 * 1024;

/** What outlives one `MemoryJournal`: hand the same object to the next one, and it "restarts" with these entries. */
export class MemoryBacking {
  readonly clusterId: string;
  readonly entries = new Map<string, string>();
  /** Records that were appended. */
  seq = 0;
  /** Whether a journal has it open; a store has one writer. */
  inUse = false;

  /** `clusterId`: of a store that is restored. */
  constructor(clusterId = randomBytes(16).toString("hex")) {
    this.clusterId = clusterId;
  }
}

/**
 * A journal that keeps its entries in memory: for tests and throw-away use. Everything is gone when the process ends,
 * so tokens start again and leases do not survive; nothing else differs from a store on disk.
 */
export class MemoryJournal implements Journal {
  readonly store = "memory";
  readonly #backing: MemoryBacking;
  #state: "new" | "open" | "closed" = "new";
  #appending: Promise<void> | undefined;
  #writtenBytes = 0;
  /** Those that are open. */
  readonly #snapshots = new Set<MemorySnapshot>();

  constructor(backing = new MemoryBacking()) {
    this.#backing = backing;
  }

  async open(): Promise<Recovery> {
    if (this.#state !== "new") throw new Error("a journal is opened once");
    if (this.#backing.inUse) throw new Error("the memory store is in use by another journal");
    this.#backing.inUse = true;
    this.#state = "open";
    return { clusterId: this.#backing.clusterId, entries: new Map(this.#backing.entries), replayedRecords: 0 };
  }

  async append(mutations: Mutations): Promise<void> {
    if (this.#state !== "open") throw new Error(`the journal is not open (${this.#state})`);
    if (this.#appending !== undefined) throw new Error("an append is in flight; a journal takes one at a time");
    if (mutations.length % 2 !== 0) throw new Error("mutations are pairs of key and value");
    this.#appending = Promise.resolve();
    await this.#appending;
    for (let i = 0; i < mutations.length; i += 2) {
      const key = mutations[i] as string;
      const value = mutations[i + 1] as string | null;
      this.#writtenBytes += key.length + (value?.length ?? 0);
      for (const snapshot of this.#snapshots) snapshot.beforeChange(key);
      if (value === null) this.#backing.entries.delete(key);
      else this.#backing.entries.set(key, value);
    }
    this.#backing.seq++;
    this.#appending = undefined;
  }

  async snapshot(): Promise<JournalSnapshot> {
    if (this.#state !== "open") throw new Error(`the journal is not open (${this.#state})`);
    // An append in flight has been taken in by then, or not at all.
    await this.#appending;
    const snapshot = new MemorySnapshot(this.#backing, (closed) => this.#snapshots.delete(closed));
    this.#snapshots.add(snapshot);
    return snapshot;
  }

  stats(): JournalStats {
    return { writtenBytes: this.#writtenBytes, logBytes: 0, checkpointLagRecords: 0 };
  }

  async close(): Promise<void> {
    if (this.#state === "open") {
      this.#state = "closed";
      await this.#appending;
      this.#backing.inUse = false;
    }
    this.#state = "closed";
    for (const snapshot of this.#snapshots) await snapshot.close();
  }
}

/** The entries of one moment: those that have not changed since, and the former values of those that have. */
class MemorySnapshot implements JournalSnapshot {
  readonly clusterId: string;
  readonly seq: number;
  readonly #entries: ReadonlyMap<string, string>;
  readonly #onClose: (snapshot: MemorySnapshot) => void;
  /** Of keys that have changed; null: there was none. */
  readonly #before = new Map<string, string | null>();
  readonly #given = new Set<string>();
  #closed = false;

  constructor({ clusterId, entries, seq }: MemoryBacking, onClose: (snapshot: MemorySnapshot) => void) {
    this.clusterId = clusterId;
    this.seq = seq;
    this.#entries = entries;
    this.#onClose = onClose;
  }

  /** To be called before the entry changes. */
  beforeChange(key: string): void {
    if (!this.#before.has(key)) this.#before.set(key, this.#entries.get(key) ?? null);
  }

  async *slices(): AsyncGenerator<readonly Entry[]> {
    let slice: Entry[] = [];
    let chars = 0;
    for (const [key, value] of this.#all()) {
      slice.push([key, value]);
      chars += key.length + value.length;
      if (slice.length < SLICE_ENTRIES && chars < SLICE_CHARS) continue;
      yield slice;
      slice = [];
      chars = 0;
      await new Promise<void>((resolve) => setImmediate(resolve));
      if (this.#closed) throw new Error("the snapshot is closed");
    }
    if (this.#closed) throw new Error("the snapshot is closed");
    if (slice.length > 0) yield slice;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#onClose(this);
  }

  /** A map may change while it is gone through: what comes in is met, what goes out is not. */
  *#all(): Generator<Entry> {
    for (const [key, value] of this.#entries) {
      if (this.#before.has(key)) continue;
      this.#given.add(key);
      yield [key, value];
    }
    for (const [key, value] of this.#before) if (value !== null && !this.#given.has(key)) yield [key, value];
  }
}
