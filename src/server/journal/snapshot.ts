/**
 * All entries of a LevelDB store as they were at one moment.
 *
 * LevelDB keeps what a snapshot sees: the checkpointed entries, `meta`, and the log records behind it. The records are
 * read first and folded into one map, which is no larger than the log may be; then the checkpointed entries go by, each
 * replaced by what the log says of it, and what only the log knows comes last. Nothing else is held in memory, and the
 * live state is not touched. Everything is verified as it is at a start: a backup of a damaged store is refused, not made.
 */
import { ENTRY_PREFIX, LOG_PREFIX, META_KEY, type Meta, unseal } from "./checkpoint.js";
import { type LevelDb, levelMessage } from "./directory.js";
import { type Entry, JournalCorruptError, type JournalSnapshot } from "./journal.js";
import { decodeRecord } from "./record.js";
import { assertNextRecord } from "./recovery.js";

/** Rows and bytes of one read: about a millisecond's work. */
const READ_ROWS = 400;
const READ_BYTES = 128 * 1024;

type LevelDbSnapshot = ReturnType<LevelDb["snapshot"]>;

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

export class LevelSnapshot implements JournalSnapshot {
  readonly #db: LevelDb;
  readonly #snapshot: LevelDbSnapshot;
  readonly #meta: Meta;
  /** What the log says of an entry, `null` for a delete. */
  readonly #log = new Map<string, string | null>();
  #seq: number;
  #closed = false;

  private constructor(db: LevelDb, snapshot: LevelDbSnapshot, meta: Meta) {
    this.#db = db;
    this.#snapshot = snapshot;
    this.#meta = meta;
    this.#seq = meta.seq;
  }

  /** Rejects with `JournalCorruptError`, or when the database is closed meanwhile. */
  static async take(db: LevelDb): Promise<LevelSnapshot> {
    const snapshot = db.snapshot();
    try {
      const sealed = await db.get(META_KEY, { snapshot });
      if (sealed === undefined) throw new JournalCorruptError(`${db.location} has lost its entry "${META_KEY}"`);
      const taken = new LevelSnapshot(db, snapshot, JSON.parse(unseal(META_KEY, sealed).value) as Meta);
      await taken.#fold();
      return taken;
    } catch (error) {
      await snapshot.close();
      throw error;
    }
  }

  get clusterId(): string {
    return this.#meta.clusterId;
  }

  get seq(): number {
    return this.#seq;
  }

  async *slices(): AsyncGenerator<readonly Entry[]> {
    let [count, digest] = [0, 0];
    for await (const rows of this.#read(ENTRY_PREFIX)) {
      const slice: Entry[] = [];
      for (const [stored, bytes] of rows) {
        const { value, checksum } = unseal(stored, bytes.toString("utf8"));
        count++;
        digest = (digest + checksum) >>> 0;
        const key = stored.slice(ENTRY_PREFIX.length);
        const logged = this.#log.get(key);
        if (logged !== undefined) this.#log.delete(key);
        if (logged !== null) slice.push([key, logged ?? value]);
      }
      if (slice.length > 0) yield slice;
    }
    if (count !== this.#meta.count || digest !== this.#meta.digest) {
      const text = `the ${count} checkpointed entries are not the ${this.#meta.count} that were written up to`;
      throw new JournalCorruptError(`${text} record ${this.#meta.seq}: their digest is wrong`);
    }
    yield* this.#rest();
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#snapshot.close();
  }

  /** Entries that no checkpoint has taken in yet. */
  async *#rest(): AsyncGenerator<readonly Entry[]> {
    let slice: Entry[] = [];
    for (const [key, value] of this.#log) {
      if (value !== null) slice.push([key, value]);
      if (slice.length < READ_ROWS) continue;
      yield slice;
      slice = [];
      await turn();
      this.#assertOpen();
    }
    if (slice.length > 0) yield slice;
  }

  async #fold(): Promise<void> {
    let { chain } = this.#meta;
    for await (const rows of this.#read(LOG_PREFIX)) {
      for (const [key, bytes] of rows) {
        assertNextRecord(key, this.#seq);
        const record = decodeRecord(bytes, ++this.#seq, chain);
        chain = record.chain;
        for (let i = 0; i < record.mutations.length; i += 2) {
          this.#log.set(record.mutations[i] as string, record.mutations[i + 1] as string | null);
        }
      }
    }
  }

  /** All rows under a prefix, some at a time. */
  async *#read(prefix: string): AsyncGenerator<[string, Buffer][]> {
    const iterator = this.#db.iterator<string, Buffer>({
      snapshot: this.#snapshot,
      gte: prefix,
      lt: `${prefix}\u{10ffff}`,
      valueEncoding: "buffer",
      highWaterMarkBytes: READ_BYTES,
      // What is read once would only push out of LevelDB's cache what it needs.
      fillCache: false,
    });
    try {
      for (;;) {
        const rows = await iterator.nextv(READ_ROWS);
        if (rows.length === 0) return;
        yield rows;
        await turn();
      }
    } catch (error) {
      if (error instanceof JournalCorruptError) throw error;
      this.#assertOpen();
      throw new JournalCorruptError(`LevelDB cannot read ${this.#db.location}: ${levelMessage(error)}`, {
        cause: error,
      });
    } finally {
      await iterator.close();
    }
  }

  #assertOpen(): void {
    if (this.#closed || this.#db.status !== "open") throw new Error("the snapshot is closed");
  }
}
