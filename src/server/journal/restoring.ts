/**
 * The file `RESTORING` in the directory of a store: a restore has begun here and has not come to its end.
 *
 * It is there, durably, before anything else of the store is, and goes when everything else is durable. A restore that
 * is interrupted at any moment thus leaves a store that is refused, or a whole one. Without it a server could find an
 * empty store with the identity of the old one, and grant from token 1 again.
 */
import { open, readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { assertVacant } from "./directory.js";
import { syncDirectory } from "./head.js";
import { JournalRefusedError } from "./journal.js";

export const RESTORING_FILE = "RESTORING";

/** Throws `JournalRefusedError` unless the directory is vacant; then marks it. */
export async function beginRestore(directory: string): Promise<void> {
  await assertNotRestoring(directory);
  const files = await readdir(directory);
  if (files.some((name) => name.startsWith("HEAD"))) {
    throw new JournalRefusedError("not_empty", `${directory} holds a store already; restore into an empty directory`);
  }
  await assertVacant(directory);
  const handle = await open(join(directory, RESTORING_FILE), "wx");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  await syncDirectory(directory);
}

/** Everything is durable: the store may be used. To be called when its journal is closed. */
export async function finishRestore(directory: string): Promise<void> {
  await unlink(join(directory, RESTORING_FILE));
  await syncDirectory(directory);
}

/** Throws `JournalRefusedError` for a store that a restore has left unfinished. */
export async function assertNotRestoring(directory: string): Promise<void> {
  const files = await readdir(directory);
  if (!files.includes(RESTORING_FILE)) return;
  const text = `${directory} holds a restore that is going on or was interrupted; delete the directory and restore again`;
  throw new JournalRefusedError("half_restored", text);
}
