/**
 * The embedded store: a LevelDB in a directory of its own.
 *
 * Every append is one synced write of one record under `log/<seq>`. Once a checkpoint step is due it travels in the
 * very write of an append, so it costs no second sync and no append queues behind it; while nothing is appended, steps
 * are written alone. There is never more than one write under way: after a failed write LevelDB goes on to take others
 * that a crash then loses, so none may be queued behind it.
 *
 * After one failure (measured: a full disk is enough) LevelDB acknowledges synced writes that are gone after a crash,
 * until it is closed and opened again. Hence one failed write ends the journal: the reserve of disk space is freed, and
 * every further append is refused.
 *
 * The checkpoint is described in `checkpoint.ts`, records in `record.ts`, what LevelDB's own recovery would hide in
 * `leveldb-files.ts` and `head.ts`.
 */
import { randomBytes } from "node:crypto";
import {
  assertReadable,
  CheckpointedEntries,
  Checkpointer,
  type CheckpointLimits,
  logKey,
  META_KEY,
  type Meta,
} from "./checkpoint.js";
import {
  assertUnlocked,
  assertVacant,
  claimDirectory,
  type LevelDb,
  openLevelDb,
  translateFileError,
} from "./directory.js";
import { createHead, Head, type HeadState, readHead, syncDirectory } from "./head.js";
import {
  type Journal,
  JournalCorruptError,
  type JournalObserver,
  JournalRefusedError,
  type JournalSnapshot,
  type JournalStats,
  type Mutations,
  type Recovery,
} from "./journal.js";
import { verifyLevelDb } from "./leveldb-files.js";
import { chainStart, type EncodedRecord, RecordEncoder } from "./record.js";
import { readMeta, readStore } from "./recovery.js";
import { Reserve } from "./reserve.js";
import { assertNotRestoring, beginRestore } from "./restoring.js";
import { LevelSnapshot } from "./snapshot.js";

/** The places at which `onStep` is called, in the order of one write. */
export type WriteStep = "collect" | "write" | "issued" | "durable" | "done";

export interface LevelJournalOptions {
  /**
   * The store is being restored: its directory must be vacant, the new store gets this identity, and until
   * `finishRestore` it is opened in no other way.
   */
  readonly restore?: { readonly clusterId: string };
  /** Disk space kept back, in bytes; 0 keeps none. Must hold two write buffers, or a full disk cannot be reopened. */
  readonly reserveBytes?: number;
  /** LevelDB's write buffer, in bytes. */
  readonly writeBufferBytes?: number;
  readonly checkpoint?: Partial<CheckpointLimits>;
  readonly observer?: JournalObserver;
  /** For tests: called around every write. What it throws counts as a failure of the store. */
  readonly onStep?: (step: WriteStep, checkpoint: boolean) => void;
}

const MIB = 1024 * 1024;
const DEFAULT_LIMITS: CheckpointLimits = {
  stepBytes: 256 * 1024,
  segmentLogBytes: 4 * MIB,
  segmentRecords: 500,
  logBytesMax: 64 * MIB,
  logRecordsMax: 20_000,
  ageMs: 1000,
};
const SYNC = { sync: true } as const;
const RECORD = { sync: true, valueEncoding: "view" } as const;

interface NewRecord extends EncodedRecord {
  readonly mutations: Mutations;
}

/** What an open store works with. */
interface Opened {
  readonly db: LevelDb;
  readonly head: Head;
  readonly checkpointer: Checkpointer;
}

export class LevelJournal implements Journal {
  readonly store = "level";
  readonly #directory: string;
  readonly #limits: CheckpointLimits;
  readonly #options: LevelJournalOptions;
  readonly #encoder = new RecordEncoder();
  #state: "new" | "opening" | "open" | "failed" | "closed" = "new";
  #opened: Opened | undefined;
  #reserve: Reserve | undefined;
  /** What `close` undoes, in reverse order. */
  readonly #closers: (() => unknown)[] = [];
  #closing: Promise<void> | undefined;
  #appending = false;
  /** The write under way; never rejects. */
  #writing: Promise<void> | undefined;
  #idleTimer: NodeJS.Timeout | undefined;
  #writtenAtMs = 0;
  /** A write has failed, so the last durable record is not known. */
  #unsure = false;
  /** The last durable record and its checksum. */
  #seq = 0;
  #chain = 0;
  #writtenBytes = 0;

  constructor(directory: string, options: LevelJournalOptions = {}) {
    this.#directory = directory;
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.checkpoint };
  }

  /** Throws `JournalCorruptError`, `JournalRefusedError`, or what the file system said. */
  async open(): Promise<Recovery> {
    if (this.#state !== "new") throw new Error("a journal is opened once");
    this.#state = "opening";
    try {
      const { path, release } = await claimDirectory(this.#directory);
      this.#closers.push(release);
      const recovery = await this.#recover(path);
      this.#state = "open";
      this.#armIdleTimer();
      return recovery;
    } catch (error) {
      this.#options.observer?.error?.("open", error);
      await this.close();
      throw translateFileError(this.#directory, error);
    }
  }

  async append(mutations: Mutations): Promise<void> {
    this.#assertOpen();
    if (this.#appending) throw new Error("an append is in flight; a journal takes one at a time");
    this.#appending = true;
    try {
      while (this.#writing !== undefined) await this.#writing;
      while (this.#assertOpen().checkpointer.overdue) await this.#write();
      const record = this.#encoder.encode(this.#seq + 1, mutations, this.#chain);
      await this.#write({ ...record, mutations });
    } finally {
      this.#appending = false;
    }
  }

  async snapshot(): Promise<JournalSnapshot> {
    const { db } = this.#assertOpen();
    return LevelSnapshot.take(db);
  }

  stats(): JournalStats {
    return {
      writtenBytes: this.#writtenBytes,
      logBytes: this.#opened?.checkpointer.lagBytes ?? 0,
      checkpointLagRecords: this.#opened?.checkpointer.lagRecords ?? 0,
    };
  }

  /** Writes one checkpoint step now, if there is anything to fold. The journal does so by itself in time. */
  async checkpoint(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
    if (this.#assertOpen().checkpointer.lagRecords > 0) await this.#write();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #recover(path: string): Promise<Recovery> {
    const { restore } = this.#options;
    if (restore === undefined) await assertNotRestoring(path);
    else await beginRestore(path);
    let state = await readHead(path);
    if (state === undefined) {
      if (restore === undefined) await assertVacant(path);
      state = await createHead(path, restore?.clusterId ?? randomBytes(16).toString("hex"));
    }
    const { clusterId } = state;
    const head = await Head.open(path, state);
    this.#closers.push(() => head.close());
    const reserve = new Reserve(path, this.#options.reserveBytes ?? 16 * MIB);
    this.#reserve = reserve;
    this.#closers.push(() => reserve.idle());
    const db = await this.#openVerified(path, state, reserve);
    this.#closers.push(() => db.close());

    const checkpointed = new CheckpointedEntries();
    const checkpointer = new Checkpointer(clusterId, checkpointed, this.#limits);
    const meta = (await readMeta(db)) ?? (await createMeta(db, state, checkpointer));
    assertReadable(meta.format, `"${META_KEY}" in ${path}`);
    if (meta.clusterId !== clusterId) {
      throw new JournalCorruptError(`HEAD in ${path} names store ${clusterId}, LevelDB holds store ${meta.clusterId}`);
    }
    ({ seq: this.#seq, chain: this.#chain } = meta);
    const nowMs = performance.now();
    const entries = await readStore(db, meta, checkpointed, (seq, chain, mutations, bytes) => {
      this.#seq = seq;
      this.#chain = chain;
      checkpointer.note(seq, chain, mutations, bytes, nowMs);
    });
    if (this.#seq < state.seq) {
      const text = `the log ends at record ${this.#seq}, but record ${state.seq} has been durable (HEAD says so)`;
      throw new JournalCorruptError(`${path} has lost its end: ${text}`);
    }
    await syncDirectory(path);
    await head.flush(this.#seq);
    reserve.ensure(nowMs);
    this.#opened = { db, head, checkpointer };
    return { clusterId, entries, replayedRecords: this.#seq - meta.seq };
  }

  /** LevelDB, opened after its files have been verified; on a full disk with the help of the reserve. */
  async #openVerified(path: string, state: HeadState, reserve: Reserve): Promise<LevelDb> {
    await assertUnlocked(path);
    try {
      await verifyLevelDb(path, state.live);
    } catch (error) {
      // Files that another process is writing look damaged. It may have started after the look at the lock.
      await assertUnlocked(path);
      throw error;
    }
    const options = { create: !state.live, writeBufferBytes: this.#options.writeBufferBytes ?? 8 * MIB };
    try {
      return await openLevelDb(path, options);
    } catch (error) {
      if (!(error instanceof JournalRefusedError) || error.reason !== "disk_full") throw error;
      await reserve.release();
      return await openLevelDb(path, options);
    }
  }

  #assertOpen(): Opened {
    if (this.#state === "failed") throw new Error("the journal has failed; close it and open a new one");
    if (this.#state !== "open" || this.#opened === undefined) throw new Error(`the journal is not open`);
    return this.#opened;
  }

  /** One write: a record, with the checkpoint step that is due; or a step alone. */
  async #write(record?: NewRecord): Promise<void> {
    const opened = this.#assertOpen();
    let settled = () => {};
    this.#writing = new Promise((resolve) => {
      settled = resolve;
    });
    try {
      await this.#writeGuarded(opened, record);
    } catch (error) {
      const operation = record === undefined ? "checkpoint" : "append";
      if (this.#state === "open") this.#state = "failed";
      this.#unsure = true;
      this.#options.observer?.error?.(operation, error);
      await this.#reserve?.release();
      throw new Error(`${operation} failed, its outcome is unknown: ${(error as Error).message}`, { cause: error });
    } finally {
      this.#writing = undefined;
      settled();
    }
  }

  async #writeGuarded({ db, head, checkpointer }: Opened, record: NewRecord | undefined): Promise<void> {
    const { onStep, observer } = this.#options;
    const startMs = performance.now();
    const fold = record === undefined || checkpointer.due(startMs);
    const key = logKey(this.#seq + 1);
    let bytes = record?.bytes.length ?? 0;
    let write: Promise<void>;
    onStep?.("collect", fold);
    if (record !== undefined && !fold) {
      onStep?.("write", fold);
      write = db.put<string, Uint8Array>(key, record.bytes, RECORD);
    } else {
      const batch = db.batch();
      bytes += checkpointer.step(batch);
      if (record !== undefined) batch.put<string, Uint8Array>(key, record.bytes, RECORD);
      onStep?.("write", fold);
      write = batch.write(SYNC);
    }
    onStep?.("issued", fold);
    await write;
    onStep?.("durable", fold);
    this.#writtenBytes += bytes;
    this.#writtenAtMs = performance.now();
    if (record !== undefined) {
      this.#seq++;
      this.#chain = record.chain;
      checkpointer.note(this.#seq, record.chain, record.mutations, record.bytes.length, this.#writtenAtMs);
      head.advance(this.#seq);
      this.#armIdleTimer();
    }
    if (fold) observer?.checkpoint?.((this.#writtenAtMs - startMs) / 1000);
    onStep?.("done", fold);
  }

  #armIdleTimer(): void {
    if (this.#idleTimer !== undefined || this.#state !== "open" || this.#opened?.checkpointer.lagRecords === 0) return;
    this.#idleTimer = setTimeout(() => {
      this.#idleTimer = undefined;
      // A failure has been reported to the observer, and every append is refused from now on.
      this.#foldWhileIdle().then(
        () => this.#armIdleTimer(),
        () => {},
      );
    }, this.#limits.ageMs).unref();
  }

  /** Steps go alone only while nothing is appended. */
  async #foldWhileIdle(): Promise<void> {
    const nowMs = performance.now();
    this.#reserve?.ensure(nowMs);
    if (nowMs - this.#writtenAtMs < this.#limits.ageMs) return;
    while (this.#state === "open" && !this.#appending && this.#writing === undefined) {
      if (this.#opened?.checkpointer.lagRecords === 0) return;
      await this.#write();
    }
  }

  async #close(): Promise<void> {
    const recovered = this.#opened;
    this.#state = "closed";
    clearTimeout(this.#idleTimer);
    while (this.#writing !== undefined) await this.#writing;
    // A journal that has failed, or was not recovered, does not know what is durable.
    if (recovered !== undefined && !this.#unsure) this.#closers.push(() => recovered.head.flush(this.#seq));
    for (const closer of this.#closers.reverse()) {
      try {
        await closer();
      } catch (error) {
        this.#options.observer?.error?.("close", error);
      }
    }
  }
}

/** The first entry of a new store. */
async function createMeta(db: LevelDb, state: HeadState, checkpointer: Checkpointer): Promise<Meta> {
  if (state.live) throw new JournalCorruptError(`${db.location} has lost its entry "${META_KEY}"`);
  await db.put(META_KEY, checkpointer.meta(0, chainStart(state.clusterId)), SYNC);
  const meta = await readMeta(db);
  if (meta === undefined) throw new Error("the entry that was just written is not there");
  return meta;
}
