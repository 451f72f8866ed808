import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { LevelJournal, type LevelJournalOptions, type WriteStep } from "../../src/server/journal/level.js";
import { apply, record } from "./workload.mjs";

export interface ChildOptions {
  readonly journal?: LevelJournalOptions;
  readonly kill?: { readonly step: WriteStep; readonly nth: number; readonly spinUs: number };
  readonly count?: number;
}

export interface ChildReport {
  /** The last record that the child said was durable, or found when it opened the store. */
  readonly acked: number;
  readonly lines: readonly string[];
  readonly signal: NodeJS.Signals | null;
}

/** Small everything, so that short runs fold, flush and compact. */
export const SMALL: LevelJournalOptions = {
  reserveBytes: 0,
  writeBufferBytes: 64 * 1024,
  checkpoint: { stepBytes: 16 * 1024, segmentLogBytes: 32 * 1024, segmentRecords: 20, ageMs: 20 },
};

export async function temporaryDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), "leasehold-journal-"));
}

/** Copies a store that nobody has open. */
export async function copyDirectory(directory: string): Promise<string> {
  const copy = await temporaryDirectory();
  await cp(directory, copy, { recursive: true });
  return copy;
}

export async function removeDirectory(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true });
}

/** Runs `child.mjs`; `onLine` may kill it. Settles when it has ended. */
export async function runChild(
  command: string,
  directory: string,
  options: ChildOptions,
  onLine: (line: string, child: ChildProcess) => void = () => {},
): Promise<ChildReport> {
  const script = fileURLToPath(new URL("child.mjs", import.meta.url));
  const child = spawn(process.execPath, [script, command, directory, JSON.stringify(options)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines: string[] = [];
  const reader = createInterface({ input: child.stdout });
  reader.on("line", (line) => {
    lines.push(line);
    onLine(line, child);
  });
  const [[, signal]] = await Promise.all([once(child, "exit"), once(reader, "close")]);
  const counts = lines.filter((line) => /^(ack|open) \d+$/.test(line)).map((line) => Number(line.split(" ")[1]));
  return { acked: Math.max(0, ...counts), lines, signal };
}

/** What must be in the store after record `n` of the workload. */
export class WorkloadModel {
  readonly entries = new Map<string, string>();
  n = 0;

  advanceTo(n: number): void {
    while (this.n < n) apply(this.entries, record(++this.n));
  }
}

/** Opens the store and compares it: at least all that was acknowledged, at most the one record in flight besides. */
export async function expectAcknowledged(
  directory: string,
  acked: number,
  model: WorkloadModel,
  options: LevelJournalOptions = SMALL,
): Promise<void> {
  const journal = new LevelJournal(directory, options);
  const { entries } = await journal.open();
  await journal.close();
  const n = Number(entries.get("n") ?? 0);
  expect(n).toBeGreaterThanOrEqual(acked);
  expect(n).toBeLessThanOrEqual(acked + 1);
  model.advanceTo(n);
  expect(Object.fromEntries(entries)).toEqual(Object.fromEntries(model.entries));
}
