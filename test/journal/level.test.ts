import { mkdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { Level } from "level";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { LevelJournal, type LevelJournalOptions, type WriteStep } from "../../src/server/journal/level.js";
import { RESERVE_FILE } from "../../src/server/journal/reserve.js";
import { removeDirectory, runChild, SMALL, temporaryDirectory } from "./processes.js";

let directory: string;
beforeEach(async () => {
  directory = await temporaryDirectory();
});
afterEach(() => removeDirectory(directory));

const NONE: LevelJournalOptions = { reserveBytes: 0 };

async function entries(options: LevelJournalOptions = NONE): Promise<Record<string, string>> {
  const journal = new LevelJournal(directory, options);
  const recovery = await journal.open();
  await journal.close();
  return Object.fromEntries(recovery.entries);
}

/** A journal whose store fails at a step; and what its observer saw. */
async function failing(at: WriteStep, atCheckpoint: boolean, options: LevelJournalOptions = NONE) {
  let armed = false;
  const errors: string[] = [];
  const journal = new LevelJournal(directory, {
    ...options,
    observer: { error: (operation) => errors.push(operation) },
    onStep: (step, checkpoint) => {
      if (armed && step === at && checkpoint === atCheckpoint) throw new Error("the disk is on fire");
    },
  });
  await journal.open();
  return { journal, errors, arm: () => (armed = true) };
}

test("a directory that it makes is for its owner only: who has a lease's id may use the lease", async () => {
  const path = join(directory, "new");
  const journal = new LevelJournal(path, NONE);
  await journal.open();
  await journal.close();
  expect((await stat(path)).mode & 0o777).toBe(0o700);
});

describe("a failed write", () => {
  test.each(["write", "issued", "durable"] as const)("of a record ends the journal (%s)", async (step) => {
    const { journal, errors, arm } = await failing(step, false);
    await journal.append(["a", "1"]);
    arm();
    await expect(journal.append(["b", "1"])).rejects.toThrow(
      "append failed, its outcome is unknown: the disk is on fire",
    );
    await expect(journal.append(["c", "1"])).rejects.toThrow("the journal has failed");
    await journal.close();
    await expect(journal.append(["d", "1"])).rejects.toThrow("not open");
    expect(errors).toEqual(["append"]);
    const found = await entries();
    expect(found.a).toBe("1");
    expect(found).not.toHaveProperty("c");
  });

  test("of a checkpoint step ends the journal and loses nothing", async () => {
    const { journal, errors, arm } = await failing("write", true, { ...NONE, checkpoint: { ageMs: 3600_000 } });
    await journal.append(["a", "1"]);
    arm();
    await expect(journal.checkpoint()).rejects.toThrow("checkpoint failed");
    await expect(journal.append(["b", "1"])).rejects.toThrow("the journal has failed");
    await journal.close();
    expect(errors).toEqual(["checkpoint"]);
    expect(await entries()).toEqual({ a: "1" });
  });

  test("of a step while nothing is appended shows at the next append", async () => {
    const { journal, errors, arm } = await failing("write", true, { ...NONE, checkpoint: { ageMs: 5 } });
    arm();
    await journal.append(["a", "1"]);
    await expect.poll(() => errors, { timeout: 10_000, interval: 5 }).toEqual(["checkpoint"]);
    await expect(journal.append(["b", "1"])).rejects.toThrow("the journal has failed");
    await journal.close();
    expect(await entries()).toEqual({ a: "1" });
  });

  test("frees the reserve", async () => {
    const reserve = join(directory, RESERVE_FILE);
    const reserveBytes = 3 * 1024 * 1024 + 1;
    expect(await entries({ reserveBytes })).toEqual({});
    // Really allocated, and LevelDB leaves it alone at the next opening.
    expect((await stat(reserve)).blocks * 512).toBeGreaterThanOrEqual(reserveBytes);
    expect(await entries({ reserveBytes })).toEqual({});
    expect((await stat(reserve)).size).toBe(reserveBytes);
    const { journal, arm } = await failing("issued", false, { reserveBytes });
    arm();
    await expect(journal.append(["a", "1"])).rejects.toThrow("unknown");
    await expect(stat(reserve)).rejects.toThrow("ENOENT");
    await journal.close();
  });
});

describe("the checkpoint", () => {
  test("goes with appends, keeps the log within its bounds and leaves nothing of transient keys", async () => {
    const steps: boolean[] = [];
    const checkpoint = { segmentRecords: 10, logRecordsMax: 30, ageMs: 3600_000 };
    const journal = new LevelJournal(directory, {
      reserveBytes: 0,
      checkpoint,
      onStep: (step, folds) => step === "durable" && steps.push(folds),
    });
    await journal.open();
    for (let i = 0; i < 200; i++) {
      await journal.append([`t${i}`, "x".repeat(100), `t${i - 3}`, null, "k", String(i)]);
      expect(journal.stats().checkpointLagRecords).toBeLessThanOrEqual(30);
    }
    // No write beside the appends, and one in ten has taken a step along.
    expect(steps).toHaveLength(200);
    expect(steps.filter((folds) => folds)).toHaveLength(19);
    await journal.close();

    const db = new Level<string, string>(directory);
    const keys = await db.keys().all();
    await db.close();
    expect(keys.filter((key) => key.startsWith("log/"))).toHaveLength(10);
    // The three that were alive when the last folded record was written.
    expect(keys.filter((key) => key.startsWith("kv/"))).toEqual(["kv/k", "kv/t187", "kv/t188", "kv/t189"]);
    expect(await entries()).toEqual({ k: "199", t197: "x".repeat(100), t198: "x".repeat(100), t199: "x".repeat(100) });
  });

  test("an append waits while the log is beyond its bound", async () => {
    const lazy = new LevelJournal(directory, { reserveBytes: 0, checkpoint: { ageMs: 3600_000 } });
    await lazy.open();
    for (let i = 0; i < 100; i++) await lazy.append([`k${i}`, "v"]);
    expect(lazy.stats().checkpointLagRecords).toBe(100);
    await lazy.close();
    const strict = new LevelJournal(directory, {
      reserveBytes: 0,
      checkpoint: { segmentRecords: 10, logRecordsMax: 20, ageMs: 3600_000 },
    });
    expect((await strict.open()).replayedRecords).toBe(100);
    await strict.append(["k", "v"]);
    expect(strict.stats().checkpointLagRecords).toBeLessThanOrEqual(20);
    await strict.close();
    expect(Object.keys(await entries())).toHaveLength(101);
  });

  test("folds by itself when nothing is appended", async () => {
    let seconds = -1;
    const journal = new LevelJournal(directory, {
      reserveBytes: 0,
      checkpoint: { ageMs: 5 },
      observer: { checkpoint: (took) => (seconds = took) },
    });
    await journal.open();
    await journal.append(["a", "1"]);
    await expect.poll(() => seconds, { timeout: 10_000, interval: 5 }).toBeGreaterThan(0);
    expect(journal.stats()).toMatchObject({ logBytes: 0, checkpointLagRecords: 0 });
    await journal.close();
    const again = new LevelJournal(directory, NONE);
    expect((await again.open()).replayedRecords).toBe(0);
    await again.close();
  });

  test("keeps to its size, but for a single larger record", async () => {
    const sizes: number[] = [];
    let before = 0;
    const stepBytes = 10_000;
    const journal = new LevelJournal(directory, { reserveBytes: 0, checkpoint: { stepBytes, ageMs: 3600_000 } });
    await journal.open();
    for (let i = 0; i < 60; i++) await journal.append([`k${i}`, "v".repeat(i === 30 ? 50_000 : 1000)]);
    while (journal.stats().checkpointLagRecords > 0) {
      before = journal.stats().writtenBytes;
      await journal.checkpoint();
      sizes.push(journal.stats().writtenBytes - before);
    }
    await journal.close();
    expect(sizes.every((size) => size < stepBytes * 1.2)).toBe(true);
    expect(Object.keys(await entries())).toHaveLength(60);
  });
});

describe("a directory that is no store", () => {
  const refused = async (reason: string, text: string, path = directory) => {
    const journal = new LevelJournal(path, NONE);
    await expect(journal.open()).rejects.toMatchObject({ name: "JournalRefusedError", reason });
    await expect(new LevelJournal(path, NONE).open()).rejects.toThrow(text);
    await journal.close();
  };

  test("is a file, or lies below one", async () => {
    const file = join(directory, "file");
    await writeFile(file, "");
    await refused("not_a_directory", "is not a directory", file);
    await refused("not_a_directory", "is not a directory", join(file, "below"));
  });

  test("cannot be written to", async () => {
    // Even root may not create a directory there.
    await refused("not_writable", "cannot write to", "/sys/leasehold-data");
  });

  test("holds other files", async () => {
    await writeFile(join(directory, "thesis.txt"), "");
    await refused("foreign", 'it holds "thesis.txt"');
  });

  test("holds a LevelDB of somebody else", async () => {
    const db = new Level<string, string>(directory);
    await db.put("somebody", "else");
    await db.close();
    await refused("foreign", "a LevelDB database, but no HEAD");
  });

  test("is a fresh volume", async () => {
    await mkdir(join(directory, "lost+found"));
    await writeFile(join(directory, ".mount"), "");
    expect(await entries()).toEqual({});
  });

  test("was written by a newer version", async () => {
    await entries();
    const text = `leasehold 3 live ${"0".repeat(32)} 7 9 `;
    const line = text + (crc32(text) >>> 0).toString(16).padStart(8, "0");
    await writeFile(join(directory, "HEAD"), `${line.padEnd(511)}\n`.repeat(2));
    const advice = "start the newer one, or restore an older backup";
    await refused("newer_format", `format 3, written by a newer Leasehold; this one reads up to 2: ${advice}`);
  });

  test("is the rest of a creation that was interrupted", async () => {
    await entries();
    const text = `leasehold 1 new ${"0".repeat(32)} 0 0 `;
    const line = text + (crc32(text) >>> 0).toString(16).padStart(8, "0");
    for (const file of ["CURRENT", "HEAD"]) await rm(join(directory, file));
    await removeDirectory(directory);
    await mkdir(directory);
    await writeFile(join(directory, "HEAD"), `${line.padEnd(511)}\n`.repeat(2));
    const journal = new LevelJournal(directory, SMALL);
    expect((await journal.open()).clusterId).toBe("0".repeat(32));
    await journal.close();
  });
});

/** What checksums of blocks cannot show: LevelDB's files are sound and say something else than was written. */
describe("a database that was changed behind the journal's back", () => {
  let db: Level<string, string>;

  /** Two checkpointed entries, three records behind the checkpoint, and the database open. */
  beforeEach(async () => {
    const journal = new LevelJournal(directory, { reserveBytes: 0, checkpoint: { ageMs: 3600_000 } });
    await journal.open();
    await journal.append(["a", "1", "b", "1"]);
    await journal.checkpoint();
    for (const value of ["2", "3", "4"]) await journal.append(["a", value]);
    await journal.close();
    db = new Level<string, string>(directory);
    await db.open();
  });

  const log = (seq: number) => `log/${String(seq).padStart(16, "0")}`;
  const cases: [string, () => Promise<void>, string][] = [
    ["an entry is missing", () => db.del("kv/b"), "the 1 checkpointed entries are not the 2 that were written"],
    ["an entry is too many", async () => db.put("kv/c", (await other("c"))!), "the 3 checkpointed entries"],
    ["an entry is out of date", async () => db.put("kv/b", (await other("b"))!), "their digest is wrong"],
    ["an entry has another's value", async () => db.put("kv/b", (await db.get("kv/a"))!), 'checksum of entry "kv/b"'],
    ["a record is missing", () => db.del(log(3)), "log record 3 is missing: 2 is followed by 4"],
    ["the last record is missing", () => db.del(log(4)), "the log ends at record 3, but record 4 has been durable"],
    ["a record is in another's place", async () => db.put(log(3), (await db.get(log(4)))!), "log record 3"],
    [
      "a folded record is there",
      async () => db.put(log(1), (await db.get(log(2)))!),
      "still there after the checkpoint",
    ],
    ["meta is missing", () => db.del("meta"), 'lost its entry "meta"'],
    ["meta is changed", async () => db.put("meta", (await db.get("meta"))!.replace("1", "2")), '"meta" is wrong'],
    ["a key is not ours", () => db.put("somebody", "else"), 'key "somebody" was not written by Leasehold'],
  ];

  /** The value, checksum and all, that another store holds for a key. */
  async function other(key: string): Promise<string | undefined> {
    const elsewhere = await temporaryDirectory();
    const journal = new LevelJournal(elsewhere, NONE);
    await journal.open();
    await journal.append([key, "other"]);
    await journal.checkpoint();
    await journal.close();
    const otherDb = new Level<string, string>(elsewhere);
    const value = await otherDb.get(`kv/${key}`);
    await otherDb.close();
    await removeDirectory(elsewhere);
    return value;
  }

  test.each(cases)("%s", async (_name, change, message) => {
    await change();
    await db.close();
    await expect(new LevelJournal(directory, NONE).open()).rejects.toMatchObject({
      name: "JournalCorruptError",
      message: expect.stringContaining(message),
    });
  });

  test("nothing was", async () => {
    await db.close();
    expect(await entries()).toEqual({ a: "4", b: "1" });
  });
});

describe("two openers", () => {
  test("a second one in this process does not loosen the lock against other processes", async () => {
    const holder = new LevelJournal(directory, NONE);
    await holder.open();
    await expect(new LevelJournal(directory, NONE).open()).rejects.toMatchObject({ reason: "in_use" });
    const { lines } = await runChild("tryOpen", directory, { journal: NONE });
    expect(lines).toEqual([expect.stringContaining("is in use by another process")]);
    await holder.append(["a", "1"]);
    await holder.close();
    expect(await entries()).toEqual({ a: "1" });
  });
});
