/** How fast a disk makes things durable, tried out in the directory where a store is, or is to be. */
import { randomBytes } from "node:crypto";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { CliError, exitCode } from "../common.js";
import type { SyncTimes } from "./facts.js";

const WRITES = 200;
const BLOCK_BYTES = 4_096;
/** A disk that is slower than this is slow whatever the rest would say. */
const TIME_MS_MAX = 5_000;

/** Writes 4 KiB blocks one behind the other, each with an fdatasync, as the store does; leaves nothing behind. */
export async function probeSync(directory: string): Promise<SyncTimes> {
  const path = join(directory, `.leasehold-doctor-${randomBytes(6).toString("hex")}`);
  try {
    const times = await writeAndSync(path);
    times.sort((a, b) => a - b);
    const at = (share: number) => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;
    return { path: directory, writes: times.length, p50Ms: at(0.5), p99Ms: at(0.99) };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new CliError(`cannot write in ${JSON.stringify(directory)} (${code ?? message})`, exitCode.usage);
  } finally {
    await rm(path, { force: true });
  }
}

async function writeAndSync(path: string): Promise<number[]> {
  const file = await open(path, "wx", 0o600);
  const block = randomBytes(BLOCK_BYTES);
  const times: number[] = [];
  try {
    const endMs = performance.now() + TIME_MS_MAX;
    while (times.length < WRITES && performance.now() < endMs) {
      const startMs = performance.now();
      await file.write(block, 0, BLOCK_BYTES, times.length * BLOCK_BYTES);
      await file.datasync();
      times.push(performance.now() - startMs);
    }
  } finally {
    await file.close();
  }
  return times;
}
