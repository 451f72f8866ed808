/** The data directory: may it be used, is it ours, and is nobody else in it. And LevelDB's own errors, translated. */
import { constants } from "node:fs";
import { access, mkdir, readdir, realpath, stat } from "node:fs/promises";
import { Level } from "level";
import { HEAD_FILE } from "./head.js";
import { JournalCorruptError, JournalRefusedError } from "./journal.js";

export type LevelDb = Level<string, string>;

/**
 * The directories that this process has open. LevelDB locks with `fcntl`, and such a lock belongs to the process: a
 * second open in the same process fails, but closes the lock file, which silently drops the first one's lock. So that
 * attempt must not reach LevelDB. The lock is process-wide, hence so is this set.
 */
const openHere = new Set<string>();

/** Leases' ids are in it, and whoever has those may use the leases. */
const OWNER_ONLY = 0o700;

/** Creates the directory if need be and takes it for this process; `release` gives it back. */
export async function claimDirectory(directory: string): Promise<{ path: string; release: () => void }> {
  try {
    await mkdir(directory, { recursive: true, mode: OWNER_ONLY });
    if (!(await stat(directory)).isDirectory()) {
      throw new JournalRefusedError("not_a_directory", `${directory} is not a directory`);
    }
    await access(directory, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    throw translateFileError(directory, error);
  }
  const path = await realpath(directory);
  if (openHere.has(path)) throw inUse(directory, "this process");
  openHere.add(path);
  return { path, release: () => void openHere.delete(path) };
}

/** Refuses a directory without `HEAD` that holds anything. */
export async function assertVacant(directory: string): Promise<void> {
  const files = await readdir(directory);
  const found = files.find((name) => name !== "lost+found" && !name.startsWith(".") && !name.startsWith(HEAD_FILE));
  if (found === undefined) return;
  const what = files.includes("CURRENT") ? "a LevelDB database, but no HEAD" : `"${found}"`;
  throw new JournalRefusedError("foreign", `${directory} is not a Leasehold store: it holds ${what}`);
}

/** Throws if another process has the store open; changes nothing. */
export async function assertUnlocked(directory: string): Promise<void> {
  // LevelDB takes its lock, then fails either way, because it may neither create the database nor find one.
  const probe = new Level<string, string>(directory, { createIfMissing: false, errorIfExists: true });
  try {
    await probe.open();
    await probe.close();
  } catch (error) {
    if (levelCode(error) === "LEVEL_LOCKED") throw inUse(directory, "another process");
  }
}

interface LevelDbOptions {
  readonly create: boolean;
  readonly writeBufferBytes: number;
}

/** Opens LevelDB; throws `JournalRefusedError` or `JournalCorruptError`. */
export async function openLevelDb(directory: string, options: LevelDbOptions): Promise<LevelDb> {
  const db = new Level<string, string>(directory, {
    createIfMissing: options.create,
    // Log records are deleted soon and entries are short: compressing them costs time and saves next to nothing.
    compression: false,
    writeBufferSize: options.writeBufferBytes,
  });
  try {
    await db.open();
    return db;
  } catch (error) {
    if (levelCode(error) === "LEVEL_LOCKED") throw inUse(directory, "another process");
    const text = levelMessage(error);
    if (/No space left|Disk quota/i.test(text)) throw diskFull(directory, error);
    if (/Permission denied|Read-only/i.test(text)) {
      throw new JournalRefusedError("not_writable", `cannot write to ${directory}: ${text}`, { cause: error });
    }
    throw new JournalCorruptError(`LevelDB cannot open ${directory}: ${text}`, { cause: error });
  }
}

/** A file error as a refusal, where it is one. */
export function translateFileError(directory: string, error: unknown): unknown {
  switch ((error as NodeJS.ErrnoException).code) {
    case "EEXIST":
    case "ENOTDIR":
      return new JournalRefusedError("not_a_directory", `${directory} is not a directory`, { cause: error });
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new JournalRefusedError("not_writable", `cannot write to ${directory}: ${(error as Error).message}`, {
        cause: error,
      });
    case "ENOSPC":
    case "EDQUOT":
      return diskFull(directory, error);
    default:
      return error;
  }
}

/** What LevelDB said, without the wrapping. */
export function levelMessage(error: unknown): string {
  const { cause, message } = error as Error;
  return cause instanceof Error ? cause.message : message;
}

function levelCode(error: unknown): string | undefined {
  const { cause, code } = error as Error & { code?: string };
  return (cause as { code?: string } | undefined)?.code ?? code;
}

function inUse(directory: string, by: string): JournalRefusedError {
  return new JournalRefusedError("in_use", `${directory} is in use by ${by}`);
}

function diskFull(directory: string, cause: unknown): JournalRefusedError {
  return new JournalRefusedError("disk_full", `no space left on the disk of ${directory}; free some to start`, {
    cause,
  });
}
