import { randomBytes } from "node:crypto";
import type { Journal, JournalStats, Mutations, Recovery } from "./journal.js";

/** What outlives one `MemoryJournal`: hand the same object to the next one, and it "restarts" with these entries. */
export class MemoryBacking {
  readonly clusterId = randomBytes(16).toString("hex");
  readonly entries = new Map<string, string>();
  /** Whether a journal has it open; a store has one writer. */
  inUse = false;
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
      if (value === null) this.#backing.entries.delete(key);
      else this.#backing.entries.set(key, value);
    }
    this.#appending = undefined;
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
  }
}
