/**
 * The incremental checkpoint: it moves the outcome of log records into entries that are read at start, so that the log
 * stays short and a start is quick.
 *
 * Durable records are gathered, in order, into segments. A segment keeps only the last value of each key that its
 * records touched; a key that was put and deleted within the log leaves nothing at all, and most keys of a lock server
 * live that short. One *step* moves the oldest segment, in one atomic write, into
 *
 *     kv/<key>   = checksum, value      final puts; a delete only for a key that an earlier step has put
 *     log/<seq>                         deleted, for every record of the segment
 *     meta       = checksum, {format, cluster id, seq, chain, count, digest}
 *
 * so at every moment the store holds "all entries as of meta.seq, plus the records after it". Only records that are
 * durable are folded: copying the live state instead could persist the outcome of a batch whose append then fails.
 *
 * Each entry carries a checksum over key and value, and `meta` the number of entries and the sum of their checksums:
 * an entry that is changed, missing, left over or out of date is noticed at the next start.
 *
 * A step is bounded by `stepBytes` (one record is the least), the log by `logBytesMax` and `logRecordsMax`.
 */
import { crc32 } from "node:zlib";
import { JournalCorruptError, JournalRefusedError, type Mutations } from "./journal.js";
import { CHECKSUM_CHARS, checksumText } from "./record.js";

/**
 * The version of what is stored. A store with a newer one is refused, an older one is taken over: from then on it has
 * this one. Leases and sessions of format 2 belong to principals; a server that reads format 1 would let everybody use
 * them.
 */
export const STORE_FORMAT = 2;
export const META_KEY = "meta";
export const ENTRY_PREFIX = "kv/";
export const LOG_PREFIX = "log/";

/** Room for the framing, prefix and checksum around each entry of a step. */
const OPERATION_BYTES = 32;

export interface CheckpointLimits {
  /** The size of one step's write. */
  readonly stepBytes: number;
  /** A segment is closed, and so becomes due, at this much log. */
  readonly segmentLogBytes: number;
  readonly segmentRecords: number;
  /** An append waits for steps while more log than this has not been folded. */
  readonly logBytesMax: number;
  readonly logRecordsMax: number;
  /** A segment is due this long after its first record. */
  readonly ageMs: number;
}

/** Everything `meta` says. */
export interface Meta {
  readonly format: number;
  readonly clusterId: string;
  readonly seq: number;
  readonly chain: number;
  readonly count: number;
  readonly digest: number;
}

/** Throws unless this version can read the format that is stated at `where`. */
export function assertReadable(format: number, where: string): void {
  if (!Number.isInteger(format) || format < 1) {
    throw new JournalCorruptError(`${where} is damaged: "${format}" is no format of a store`);
  }
  if (format <= STORE_FORMAT) return;
  const text = `the store has format ${format}, written by a newer Leasehold; this one reads up to ${STORE_FORMAT}`;
  throw new JournalRefusedError("newer_format", `${where}: ${text}: start the newer one, or restore an older backup`);
}

/** Takes the operations of one atomic write. */
export interface Batch {
  put(key: string, value: string): unknown;
  del(key: string): unknown;
}

/** `log/` with the sequence number at a fixed width, so that byte order is number order. */
export function logKey(seq: number): string {
  return LOG_PREFIX + String(seq).padStart(16, "0");
}

function entryChecksum(key: string, value: string): number {
  return crc32(`${key}\t${value}`);
}

/** A value with a checksum over its key and itself in front. */
export function seal(key: string, value: string): string {
  return checksumText(entryChecksum(key, value)) + value;
}

/** Undoes `seal`; throws `JournalCorruptError` naming the key. The checksum comes as a signed 32-bit number. */
export function unseal(key: string, sealed: string): { value: string; checksum: number } {
  const value = sealed.slice(CHECKSUM_CHARS);
  const checksum = entryChecksum(key, value);
  if (sealed.slice(0, CHECKSUM_CHARS) !== checksumText(checksum)) {
    throw new JournalCorruptError(`the checksum of entry "${key}" is wrong`);
  }
  return { value, checksum: checksum | 0 };
}

/** The checkpointed entries: their checksums, and count and digest over all of them, kept up to date. */
export class CheckpointedEntries {
  // Signed 32-bit numbers, because V8 keeps those in the map without a heap object each.
  readonly #checksums = new Map<string, number>();
  #digest = 0;

  get count(): number {
    return this.#checksums.size;
  }
  get digest(): number {
    return this.#digest;
  }
  has(key: string): boolean {
    return this.#checksums.has(key);
  }
  set(key: string, checksum: number): void {
    this.#digest = (this.#digest - (this.#checksums.get(key) ?? 0) + checksum) >>> 0;
    this.#checksums.set(key, checksum | 0);
  }
  delete(key: string): void {
    this.#digest = (this.#digest - (this.#checksums.get(key) ?? 0)) >>> 0;
    this.#checksums.delete(key);
  }
}

/** Consecutive durable records, folded: the last value of every key, `null` for a delete that must be written. */
class Segment {
  readonly finals = new Map<string, string | null>();
  /** What `finals` takes in a step, at most: overwritten values are counted until `measure`. */
  bytesMax = 0;
  logBytes = 0;
  records = 0;
  lastSeq = 0;
  lastChain = 0;

  constructor(readonly sinceMs: number) {}

  /** Counts again what is really there. */
  measure(): number {
    this.bytesMax = 0;
    for (const [key, value] of this.finals) this.bytesMax += weight(key, value);
    return this.bytesMax;
  }
}

/** Bytes of one operation. */
function weight(key: string, value: string | null): number {
  return OPERATION_BYTES + Buffer.byteLength(key) + (value === null ? 0 : Buffer.byteLength(value));
}

export class Checkpointer {
  readonly #clusterId: string;
  readonly #entries: CheckpointedEntries;
  readonly #limits: CheckpointLimits;
  /** Closed segments, oldest first, then the open one. */
  readonly #closed: Segment[] = [];
  #open: Segment | undefined;
  #lagBytes = 0;
  #lagRecords = 0;

  constructor(clusterId: string, entries: CheckpointedEntries, limits: CheckpointLimits) {
    this.#clusterId = clusterId;
    this.#entries = entries;
    this.#limits = limits;
  }

  get lagBytes(): number {
    return this.#lagBytes;
  }
  get lagRecords(): number {
    return this.#lagRecords;
  }
  /** Whether the log has reached its bound. */
  get overdue(): boolean {
    return this.#lagBytes > this.#limits.logBytesMax || this.#lagRecords > this.#limits.logRecordsMax;
  }

  /** Takes in a record that has become durable. */
  note(seq: number, chain: number, mutations: Mutations, logBytes: number, nowMs: number): void {
    const segment = this.#segmentFor(mutations, logBytes, nowMs);
    const { finals } = segment;
    // With closed segments around, a delete may concern one of their puts.
    const keepDeletes = this.#closed.length > 0;
    for (let i = 0; i < mutations.length; i += 2) {
      const key = mutations[i] as string;
      const value = mutations[i + 1] as string | null;
      if (value !== null || keepDeletes || this.#entries.has(key)) finals.set(key, value);
      else finals.delete(key);
    }
    segment.logBytes += logBytes;
    segment.records++;
    segment.lastSeq = seq;
    segment.lastChain = chain;
    this.#lagBytes += logBytes;
    this.#lagRecords++;
    if (segment.logBytes >= this.#limits.segmentLogBytes || segment.records >= this.#limits.segmentRecords) {
      this.#close();
    }
  }

  /** Whether a step should go with the next write. */
  due(nowMs: number): boolean {
    return this.#closed.length > 0 || (this.#open !== undefined && nowMs - this.#open.sinceMs >= this.#limits.ageMs);
  }

  /**
   * Puts the oldest segment's operations into `batch` and forgets the segment; returns their size in bytes. To be
   * called only with a write that ends the journal when it fails, and with `lagRecords` above 0.
   */
  step(batch: Batch): number {
    if (this.#closed.length === 0) this.#close();
    const segment = this.#closed.shift();
    if (segment === undefined) throw new Error("there is nothing to checkpoint");
    this.#lagBytes -= segment.logBytes;
    this.#lagRecords -= segment.records;
    let bytes = this.#entriesInto(batch, segment);
    for (let seq = segment.lastSeq - segment.records + 1; seq <= segment.lastSeq; seq++) batch.del(logKey(seq));
    const meta = this.meta(segment.lastSeq, segment.lastChain);
    batch.put(META_KEY, meta);
    bytes += segment.records * OPERATION_BYTES + meta.length;
    return bytes;
  }

  /** The value of `meta` for the entries as they are now. */
  meta(seq: number, chain: number): string {
    const { count, digest } = this.#entries;
    const meta: Meta = { format: STORE_FORMAT, clusterId: this.#clusterId, seq, chain, count, digest };
    return seal(META_KEY, JSON.stringify(meta));
  }

  #entriesInto(batch: Batch, segment: Segment): number {
    let bytes = 0;
    for (const [key, value] of segment.finals) {
      const stored = ENTRY_PREFIX + key;
      if (value !== null) {
        const checksum = entryChecksum(stored, value);
        batch.put(stored, checksumText(checksum) + value);
        this.#entries.set(key, checksum);
        bytes += OPERATION_BYTES + stored.length + value.length;
      } else if (this.#entries.has(key)) {
        batch.del(stored);
        this.#entries.delete(key);
        bytes += OPERATION_BYTES + stored.length;
      }
    }
    return bytes;
  }

  /** The open segment, or a new one when the record might take the open one past the size of a step. */
  #segmentFor(mutations: Mutations, logBytes: number, nowMs: number): Segment {
    const growth = logBytes + (mutations.length / 2) * OPERATION_BYTES;
    const { stepBytes } = this.#limits;
    const open = this.#open;
    // Counting again is worth it only where it frees half of the room: so a record pays for its share and no more.
    if (open !== undefined && open.bytesMax + growth > stepBytes) {
      const left = open.measure();
      if (left > stepBytes / 2 || left + growth > stepBytes) this.#close();
    }
    this.#open ??= new Segment(nowMs);
    this.#open.bytesMax += growth;
    return this.#open;
  }

  #close(): void {
    if (this.#open !== undefined) this.#closed.push(this.#open);
    this.#open = undefined;
  }
}
