import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { rm, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { LevelJournal, type LevelJournalOptions } from "../../src/server/journal/level.js";
import { RESERVE_FILE } from "../../src/server/journal/reserve.js";
import { expectAcknowledged, removeDirectory, runChild, temporaryDirectory, WorkloadModel } from "./processes.js";
import { record } from "./workload.mjs";

const MIB = 1024 * 1024;
const OPTIONS: LevelJournalOptions = { reserveBytes: 4 * MIB, writeBufferBytes: MIB };

let disk: string;
let noDisk: string | undefined;

beforeEach(async () => {
  disk = await temporaryDirectory();
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], { stdio: "pipe" });
    noDisk = undefined;
  } catch (error) {
    noDisk = `no small disk to fill: mount is not permitted here (${(error as Error).message.trim()})`;
  }
});

afterEach(async () => {
  if (noDisk === undefined) execFileSync("umount", ["-l", disk]);
  await removeDirectory(disk);
});

async function freeBytes(): Promise<number> {
  const { bavail, bsize } = await statfs(disk);
  return bavail * bsize;
}

/** Fills the disk but for a few MiB; deleting the file is what an operator would do. */
async function ballast(leftBytes: number): Promise<string> {
  const path = join(disk, "ballast");
  await writeFile(path, Buffer.alloc((await freeBytes()) - Math.round(leftBytes)));
  return path;
}

describe("a disk that fills up under load", () => {
  // Little space: the log file is cut off in the middle of a record. More: a table file fails in the background.
  test.for([0.3, 0.7, 1.5, 3])(
    "nothing acknowledged is lost: full, reopened, killed, space freed, more load, killed (%f MiB)",
    async (left, ctx) => {
      if (noDisk !== undefined) return ctx.skip(noDisk);
      const directory = join(disk, "data");
      const model = new WorkloadModel();
      // A first run makes the reserve.
      const first = new LevelJournal(directory, OPTIONS);
      await first.open();
      await first.append(record(1));
      await first.close();
      expect(existsSync(join(directory, RESERVE_FILE))).toBe(true);
      const file = await ballast(left * MIB);

      const filled = await runChild("fillAndGoOn", directory, { journal: OPTIONS, count: 500 });
      expect(filled.signal).toBe("SIGKILL");
      expect(filled.lines.filter((line) => line.startsWith("open"))).toHaveLength(2);
      const failures = filled.lines.filter((line) => line.startsWith("failed"));
      expect(failures.length).toBeGreaterThan(0);
      expect(failures[0]).toMatch(/outcome is unknown.*No space left/);
      expect(filled.lines.filter((line) => line.startsWith("refused the journal has failed"))).toHaveLength(1);
      expect(existsSync(join(directory, RESERVE_FILE))).toBe(false);

      await rm(file);
      await expectAcknowledged(directory, filled.acked, model, OPTIONS);
      const more = await runChild("load", directory, { journal: OPTIONS }, (line, child) => {
        if (line === `ack ${model.n + 300}`) child.kill("SIGKILL");
      });
      expect(more.acked).toBeGreaterThanOrEqual(model.n + 300);
      await expectAcknowledged(directory, more.acked, model, OPTIONS);
    },
  );

  test("a store that finds no space at all at start gives up its reserve, and makes it again later", async (ctx) => {
    if (noDisk !== undefined) return ctx.skip(noDisk);
    const directory = join(disk, "data");
    const first = new LevelJournal(directory, OPTIONS);
    await first.open();
    for (let n = 1; n <= 100; n++) await first.append(record(n));
    await first.close();
    const model = new WorkloadModel();
    const file = await ballast(0);
    await expectAcknowledged(directory, 100, model, OPTIONS);
    expect(existsSync(join(directory, RESERVE_FILE))).toBe(false);
    await rm(file);
    await expectAcknowledged(directory, 100, model, OPTIONS);
    expect(existsSync(join(directory, RESERVE_FILE))).toBe(true);
  });

  test("without space and without a reserve it says what is wrong", async (ctx) => {
    if (noDisk !== undefined) return ctx.skip(noDisk);
    await ballast(0);
    const journal = new LevelJournal(join(disk, "data"), OPTIONS);
    await expect(journal.open()).rejects.toMatchObject({ name: "JournalRefusedError", reason: "disk_full" });
  });
});
