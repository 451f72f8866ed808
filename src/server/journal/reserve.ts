/**
 * The file `RESERVE`: disk space kept back for the moment when the disk is full.
 *
 * LevelDB must be closed and opened again after a write has failed for want of space, and opening it writes. A disk
 * that is entirely full would therefore lock the store until somebody frees space by hand. So the reserve is deleted
 * first. It is made again when there is ample space. LevelDB leaves files alone whose names it does not know.
 */
import { randomFillSync } from "node:crypto";
import { type FileHandle, open, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";

export const RESERVE_FILE = "RESERVE";
const CHUNK_BYTES = 1024 * 1024;
/** It is made only where this many times its size is free: it must not take the space that it has just given back. */
const FREE_FACTOR = 3;
const RETRY_EVERY_MS = 30_000;

export class Reserve {
  readonly #path: string;
  readonly #directory: string;
  readonly #bytes: number;
  #work: Promise<void> = Promise.resolve();
  #triedAtMs = Number.NEGATIVE_INFINITY;

  /** `bytes` 0 keeps none. */
  constructor(directory: string, bytes: number) {
    this.#directory = directory;
    this.#path = join(directory, RESERVE_FILE);
    this.#bytes = bytes;
  }

  /** Deletes the reserve; the space is free when the promise settles. Never rejects. */
  release(): Promise<void> {
    // Not to be made again by this journal: the next one looks whether there is space.
    this.#triedAtMs = Number.POSITIVE_INFINITY;
    this.#work = this.#work.then(() => rm(this.#path, { force: true })).catch(() => {});
    return this.#work;
  }

  /** Makes the reserve in the background if it is missing and there is space, trying every half minute at most. */
  ensure(nowMs: number): void {
    if (this.#bytes === 0 || nowMs - this.#triedAtMs < RETRY_EVERY_MS) return;
    this.#triedAtMs = nowMs;
    this.#work = this.#work.then(() => this.#make()).catch(() => {});
  }

  /** Settles when work in flight is done. */
  idle(): Promise<void> {
    return this.#work;
  }

  async #make(): Promise<void> {
    const size = await stat(this.#path).then(
      (found) => found.size,
      () => 0,
    );
    if (size === this.#bytes) return;
    await rm(this.#path, { force: true });
    const { bavail, bsize } = await statfs(this.#directory);
    if (bavail * bsize < FREE_FACTOR * this.#bytes) return;
    const file = await open(this.#path, "wx");
    try {
      await this.#fill(file);
    } catch (error) {
      await rm(this.#path, { force: true });
      throw error;
    } finally {
      await file.close();
    }
  }

  async #fill(file: FileHandle): Promise<void> {
    // Random, because file systems that compress would store zeros in no space at all.
    const chunk = randomFillSync(Buffer.allocUnsafe(Math.min(CHUNK_BYTES, this.#bytes)));
    for (let at = 0; at < this.#bytes; ) {
      const { bytesWritten } = await file.write(chunk, 0, Math.min(chunk.length, this.#bytes - at), at);
      at += bytesWritten;
    }
    await file.sync();
  }
}
