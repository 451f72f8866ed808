/** Reads backup files, and makes stores from them. */
import { createReadStream } from "node:fs";
import { QUIET_KEY } from "../core/records.js";
import { Restoration, type RestorePlan } from "../core/restore.js";
import { STORE_FORMAT } from "../journal/checkpoint.js";
import { readHead } from "../journal/head.js";
import { type Entry, type Journal, JournalRefusedError } from "../journal/journal.js";
import { LevelJournal } from "../journal/level.js";
import { finishRestore } from "../journal/restoring.js";
import { BackupReader, type BackupSummary, BackupUnreadableError } from "./reader.js";

const READ_BYTES = 256 * 1024;
/** Entries of one record. */
const RECORD_ENTRIES = 2_000;

/** A backup that has been read to its end, and verified. */
export interface ReadBackup {
  readonly summary: BackupSummary;
  readonly restoration: Restoration;
}

/**
 * Reads and verifies a whole file. Throws `BackupUnreadableError`, whose message goes on behind the name of the file, or
 * what the file system said.
 */
export async function readBackup(chunks: AsyncIterable<Buffer>): Promise<ReadBackup> {
  const restoration = new Restoration();
  const reader = new BackupReader((entries) => {
    if ((reader.header?.storeFormat ?? 0) > STORE_FORMAT) return; // refused below; what they mean is not known
    for (const [key, value] of entries) read(restoration, key, value);
  });
  for await (const chunk of chunks) reader.push(chunk);
  const summary = reader.end();
  const { storeFormat } = summary.header;
  if (storeFormat > STORE_FORMAT) {
    const text = `has entries of format ${storeFormat}, from a newer Leasehold; this one reads up to ${STORE_FORMAT}`;
    throw new BackupUnreadableError(text);
  }
  return { summary, restoration };
}

export const readBackupFile = (path: string): Promise<ReadBackup> =>
  readBackup(createReadStream(path, { highWaterMark: READ_BYTES }));

function read(restoration: Restoration, key: string, value: string): void {
  try {
    restoration.read(key, value);
  } catch (error) {
    throw new BackupUnreadableError(`holds what no Leasehold of this version has written: ${(error as Error).message}`);
  }
}

/**
 * Makes a store of its own out of a backup, in a directory that is vacant or not there. Throws `JournalRefusedError` when
 * it is not; if it throws anything else, or the process dies, the directory is left as one that is refused.
 */
export async function restoreLevel(directory: string, backup: ReadBackup, plan: RestorePlan): Promise<void> {
  const { clusterId } = backup.summary.header;
  const journal = new LevelJournal(directory, { restore: { clusterId } });
  try {
    await fill(journal, backup.restoration.entries(plan));
  } finally {
    await journal.close();
  }
  await finishRestore(directory);
}

/** Puts the entries into a store that is empty, and opens it for that. */
export async function fill(journal: Journal, entries: readonly Entry[]): Promise<void> {
  const found = await journal.open();
  if (found.entries.size > 0) throw new Error("the store is not empty");
  for (let at = 0; at < entries.length; at += RECORD_ENTRIES) {
    await journal.append(entries.slice(at, at + RECORD_ENTRIES).flat());
  }
}

/**
 * Ends the time in which a restored store grants nothing. Returns whether it was in it. Throws `JournalRefusedError` where
 * there is no store, or a server runs on it.
 */
export async function endQuiet(directory: string): Promise<boolean> {
  const head = await readHead(directory);
  if (head === undefined) throw new JournalRefusedError("foreign", `${directory} holds no store`);
  const journal = new LevelJournal(directory);
  try {
    const { entries } = await journal.open();
    if (!entries.has(QUIET_KEY)) return false;
    await journal.append([QUIET_KEY, null]);
    return true;
  } finally {
    await journal.close();
  }
}
