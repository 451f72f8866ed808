/** The bytes of a backup, as they are read from a store. */
import type { JournalSnapshot } from "../journal/journal.js";
import { BackupEncoder, type BackupHeader } from "./format.js";

/** The most that a `BackupResponse` carries. */
const CHUNK_BYTES_MAX = 256 * 1024;

/** What the snapshot cannot say of itself. */
export type BackupOrigin = Omit<BackupHeader, "clusterId" | "seq">;

/** Pieces of 256 KiB at most, made as they are asked for. Rejects as the snapshot does, which stays open. */
export async function* backupChunks(snapshot: JournalSnapshot, origin: BackupOrigin): AsyncGenerator<Buffer> {
  const encoder = new BackupEncoder();
  const { clusterId, seq } = snapshot;
  yield encoder.header({ clusterId, seq, ...origin });
  for await (const entries of snapshot.slices()) yield* pieces(encoder.entries(entries));
  yield encoder.end();
}

function* pieces(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES_MAX) yield bytes.subarray(at, at + CHUNK_BYTES_MAX);
}
