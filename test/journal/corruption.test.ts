import { readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { JournalCorruptError } from "../../src/server/journal/journal.js";
import { LevelJournal, type LevelJournalOptions } from "../../src/server/journal/level.js";
import { readManifest } from "../../src/server/journal/leveldb-files.js";
import { copyDirectory, removeDirectory, runChild, SMALL, temporaryDirectory, WorkloadModel } from "./processes.js";
import { numbers, seedFromEnvironment } from "./random.js";

const FLIPS = 25;
const UNFOLDED: LevelJournalOptions = { reserveBytes: 0, checkpoint: { ageMs: 3600_000 } };
const FLUSHED: LevelJournalOptions = { ...UNFOLDED, writeBufferBytes: 64 * 1024 };

interface Template {
  readonly name: string;
  readonly options: LevelJournalOptions;
  readonly clean: boolean;
  directory: string;
  clusterId: string;
  entries: Map<string, string>;
}

const templates: Template[] = [
  { name: "log files only, killed", options: UNFOLDED, clean: false },
  { name: "log records in table files, killed", options: FLUSHED, clean: false },
  { name: "log records in table files, closed", options: FLUSHED, clean: true },
  { name: "checkpoints, killed", options: SMALL, clean: false },
  { name: "checkpoints, closed", options: SMALL, clean: true },
].map((template) => ({ ...template, directory: "", clusterId: "", entries: new Map() }));

/** A store with some 300 records, written by a process that was killed; `clean` adds an orderly restart. */
async function build(template: Template): Promise<void> {
  template.directory = await temporaryDirectory();
  const report = await runChild("load", template.directory, { journal: template.options }, (line, child) => {
    if (line === "ack 300") child.kill("SIGKILL");
  });
  // Whether the record in flight arrived is seen in a copy: to look is to change the files.
  const look = template.clean ? template.directory : await copyDirectory(template.directory);
  const journal = new LevelJournal(look, template.options);
  const { entries, clusterId } = await journal.open();
  await journal.close();
  if (look !== template.directory) await removeDirectory(look);
  const model = new WorkloadModel();
  model.advanceTo(Number(entries.get("n")));
  expect(model.n).toBeGreaterThanOrEqual(report.acked);
  expect(Object.fromEntries(entries)).toEqual(Object.fromEntries(model.entries));
  template.clusterId = clusterId;
  template.entries = entries;
}

beforeAll(async () => {
  for (const template of templates) await build(template);
});

afterAll(async () => {
  for (const { directory } of templates) await removeDirectory(directory);
});

type Outcome = "reported" | "intact" | "SILENTLY DIFFERENT";

async function outcome(directory: string, template: Template): Promise<Outcome> {
  const journal = new LevelJournal(directory, template.options);
  try {
    const { entries, clusterId } = await journal.open();
    const same = JSON.stringify([...entries].sort()) === JSON.stringify([...template.entries].sort());
    return same && clusterId === template.clusterId ? "intact" : "SILENTLY DIFFERENT";
  } catch (error) {
    if (error instanceof JournalCorruptError && error.message.length > 20) return "reported";
    throw error;
  } finally {
    await journal.close();
  }
}

async function afterDamage(template: Template, damage: (copy: string) => Promise<void>): Promise<Outcome> {
  const copy = await copyDirectory(template.directory);
  try {
    await damage(copy);
    return await outcome(copy, template);
  } finally {
    await removeDirectory(copy);
  }
}

describe.each(templates)("a damaged store ($name)", (template) => {
  test.each(["log", "ldb", "MANIFEST", "CURRENT", "HEAD"])(
    "a flipped byte in a file %s is never silent",
    async (kind) => {
      const seed = seedFromEnvironment();
      const next = numbers(seed);
      const files = (await readdir(template.directory)).filter(
        (file) => file.endsWith(`.${kind}`) || file.startsWith(kind),
      );
      const counts = { reported: 0, intact: 0 };
      for (let i = 0; i < FLIPS && files.length > 0; i++) {
        const file = files[next() % files.length]!;
        const result = await afterDamage(template, async (copy) => {
          const bytes = await readFile(join(copy, file));
          if (bytes.length === 0) return;
          const at = next() % bytes.length;
          bytes[at] = bytes[at]! ^ (1 + (next() % 255));
          await writeFile(join(copy, file), bytes);
        });
        if (result === "SILENTLY DIFFERENT")
          throw new Error(`seed ${seed}: ${file}, flip ${i}, differs and nobody said so`);
        counts[result]++;
      }
      // In these files every byte counts, but for the padding at the ends of blocks.
      if (kind === "MANIFEST" || (kind === "log" && template.name.startsWith("log files only"))) {
        expect(counts.intact, `seed ${seed}`).toBeLessThan(3);
      }
    },
  );

  test("a file that is missing or empty is never silent", async () => {
    const files = await readdir(template.directory);
    const manifest = files.find((file) => file.startsWith("MANIFEST")) as string;
    const { firstLog } = readManifest(await readFile(join(template.directory, manifest)), manifest);
    for (const file of files) {
      if (/^(LOG|LOCK)/.test(file)) continue;
      const bytes = await readFile(join(template.directory, file));
      // HEAD decides what the directory is; without it, nothing is opened at all.
      if (file === "HEAD") continue;
      for (const damage of [rm, truncate]) {
        const result = await afterDamage(template, (copy) => damage(join(copy, file)));
        // A process that is killed may leave a log behind that it had replaced and not yet deleted: nobody misses it.
        const unused = bytes.length === 0 || (file.endsWith(".log") && Number.parseInt(file, 10) < firstLog);
        expect(result, `${damage.name} ${file} of ${bytes.length} bytes`).toBe(unused ? "intact" : "reported");
      }
    }
  });
});

describe("the end of the log", () => {
  const template = templates[0]!;
  const lastLog = async (directory: string) => {
    const logs = (await readdir(directory)).filter((file) => file.endsWith(".log")).sort();
    return join(directory, logs[logs.length - 1]!);
  };

  test("an unfinished write behind it is dropped", async () => {
    const result = await afterDamage(template, async (copy) => {
      const file = await lastLog(copy);
      // The header of a record of 5,000 bytes, of which 2,000 have been written.
      const header = Buffer.from([1, 2, 3, 4, 0x88, 0x13, 1]);
      await writeFile(file, Buffer.concat([await readFile(file), header, Buffer.alloc(2000, "x")]));
    });
    expect(result).toBe("intact");
  });

  test("records that have been durable for a while and are cut off are missed", async () => {
    const result = await afterDamage(template, async (copy) => {
      const file = await lastLog(copy);
      await truncate(file, Math.floor((await readFile(file)).length / 2));
      const head = await readFile(join(copy, "HEAD"), "latin1");
      expect(Number(head.split(" ")[4])).toBeGreaterThan(0);
    });
    expect(result).toBe("reported");
  });
});
