/** Reads a store at start: the checkpointed entries, then the log records behind them, everything verified. */
import {
  type CheckpointedEntries,
  ENTRY_PREFIX,
  LOG_PREFIX,
  logKey,
  META_KEY,
  type Meta,
  unseal,
} from "./checkpoint.js";
import { type LevelDb, levelMessage } from "./directory.js";
import { JournalCorruptError, type Mutations } from "./journal.js";
import { decodeRecord } from "./record.js";

const READ_AHEAD = 1000;

/** `meta`, or `undefined` in a database without it. */
export async function readMeta(db: LevelDb): Promise<Meta | undefined> {
  for await (const { key, value } of scan(db, META_KEY)) {
    if (key !== META_KEY) break;
    return JSON.parse(unseal(META_KEY, value.toString("utf8")).value) as Meta;
  }
  return undefined;
}

/** Called for each log record behind the checkpoint, in order. */
type RecordSink = (seq: number, chain: number, mutations: Mutations, bytes: number) => void;

/**
 * Returns the live entries; fills `checkpointed` and calls `onRecord` on the way. Throws `JournalCorruptError` naming
 * the key or sequence number for anything but exactly what was written.
 */
export async function readStore(
  db: LevelDb,
  meta: Meta,
  checkpointed: CheckpointedEntries,
  onRecord: RecordSink,
): Promise<Map<string, string>> {
  const entries = new Map<string, string>();
  let { seq, chain } = meta;
  let last = "";
  for await (const { key, value } of scan(db, "")) {
    // Entries are read before records, which rely on it.
    if (key <= last) throw new JournalCorruptError(`key "${key}" comes after "${last}"`);
    last = key;
    if (key.startsWith(ENTRY_PREFIX)) {
      const entry = unseal(key, value.toString("utf8"));
      const name = key.slice(ENTRY_PREFIX.length);
      checkpointed.set(name, entry.checksum);
      entries.set(name, entry.value);
    } else if (key.startsWith(LOG_PREFIX)) {
      assertNextRecord(key, seq);
      const record = decodeRecord(value, ++seq, chain);
      chain = record.chain;
      apply(entries, record.mutations);
      onRecord(seq, chain, record.mutations, value.length);
    } else if (key !== META_KEY) {
      throw new JournalCorruptError(`key "${key}" was not written by Leasehold`);
    }
  }
  if (checkpointed.count !== meta.count || checkpointed.digest !== meta.digest) {
    const text = `the ${checkpointed.count} checkpointed entries are not the ${meta.count} that were written up to`;
    throw new JournalCorruptError(`${text} record ${meta.seq}: their digest is wrong`);
  }
  return entries;
}

/** Throws when the log record under `key` is not the one after `seq`. */
export function assertNextRecord(key: string, seq: number): void {
  if (key === logKey(seq + 1)) return;
  const found = Number(key.slice(LOG_PREFIX.length));
  if (found > seq + 1)
    throw new JournalCorruptError(`log record ${seq + 1} is missing: ${seq} is followed by ${found}`);
  throw new JournalCorruptError(`log record "${key}" is still there after the checkpoint of record ${seq}`);
}

function apply(entries: Map<string, string>, mutations: Mutations): void {
  for (let i = 0; i < mutations.length; i += 2) {
    const value = mutations[i + 1] as string | null;
    if (value === null) entries.delete(mutations[i] as string);
    else entries.set(mutations[i] as string, value);
  }
}

/** All entries from a key on. A table file that LevelDB cannot read is a damaged one. */
async function* scan(db: LevelDb, from: string): AsyncGenerator<{ key: string; value: Buffer }> {
  const iterator = db.iterator<string, Buffer>({ gte: from, valueEncoding: "buffer" });
  try {
    for (;;) {
      const rows = await iterator.nextv(READ_AHEAD);
      if (rows.length === 0) return;
      for (const [key, value] of rows) yield { key, value };
    }
  } catch (error) {
    if (error instanceof JournalCorruptError) throw error;
    throw new JournalCorruptError(`LevelDB cannot read ${db.location}: ${levelMessage(error)}`, { cause: error });
  } finally {
    await iterator.close();
  }
}
