import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Level } from "level";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { crc32c } from "../../src/server/journal/crc32c.js";
import { JournalCorruptError } from "../../src/server/journal/journal.js";
import { verifyLevelDb } from "../../src/server/journal/leveldb-files.js";
import { readLog } from "../../src/server/journal/leveldb-log.js";
import { verifyTable } from "../../src/server/journal/leveldb-table.js";
import { copyDirectory, removeDirectory, temporaryDirectory } from "./processes.js";
import { numbers, seedFromEnvironment } from "./random.js";

const BLOCK = 32 * 1024;
let directory: string;
let log: Buffer;
/** Where each physical record begins, and where the padding at the end of blocks is. */
const starts: number[] = [];
const padding = new Set<number>();

/** A log written by LevelDB itself: records that span blocks, short ones, and a block that ends in padding. */
beforeAll(async () => {
  directory = await temporaryDirectory();
  const db = new Level<string, string>(directory, { compression: false });
  await db.open();
  // 27 and 26 bytes are around these values: the second record leaves 3 bytes of its block.
  await db.put("key", "x".repeat(20_000));
  await db.put("key", "x".repeat(BLOCK - 20_000 - 27 - 26 - 3));
  await db.put("key", "y".repeat(100_000));
  for (let i = 0; i < 50; i++) await db.put("key", `short ${i}`);
  const name = (await readdir(directory)).find((file) => file.endsWith(".log"));
  await db.close();
  log = await readFile(join(directory, name!));
  for (let at = 0; at + 7 <= log.length; ) {
    const room = BLOCK - (at % BLOCK);
    if (room < 7) {
      for (let i = 0; i < room; i++) padding.add(at + i);
      at += room;
      continue;
    }
    starts.push(at);
    at += 7 + log.readUInt16LE(at + 4);
  }
});

afterAll(() => removeDirectory(directory));

function flipped(at: number, mask: number): Buffer {
  const damaged = Buffer.from(log);
  damaged[at] = damaged[at]! ^ mask;
  return damaged;
}

describe("LevelDB's log files", () => {
  test("CRC-32C, by its published check value", () => {
    expect(crc32c(Buffer.from("123456789")) >>> 0).toBe(0xe3069283);
    expect(crc32c(Buffer.from("..123456789."), 2, 11) >>> 0).toBe(0xe3069283);
  });

  test("a log that LevelDB wrote is sound, with padding and fragments in it", () => {
    expect(padding.size).toBe(3);
    expect(starts.length).toBeGreaterThan(50);
    expect(() => readLog(log, "x.log")).not.toThrow();
  });

  test("every flipped bit of every header, and random ones of the data, are reported with file and offset", () => {
    const seed = seedFromEnvironment();
    const next = numbers(seed);
    for (const start of starts) {
      for (let bit = 0; bit < 56; bit++) {
        const damaged = flipped(start + (bit >> 3), 1 << (bit & 7));
        expect(() => readLog(damaged, "7.log"), `bit ${bit} at ${start}`).toThrow(/^7\.log is damaged at offset \d+/);
      }
    }
    for (let i = 0; i < 500; i++) {
      const at = next() % log.length;
      if (padding.has(at)) continue;
      expect(() => readLog(flipped(at, 1 + (next() % 255)), "7.log"), `seed ${seed}: ${at}`).toThrow(
        JournalCorruptError,
      );
    }
  });

  test("a log may end anywhere, as a crash in the middle of a write leaves it", () => {
    const next = numbers(1);
    for (let i = 0; i < 300; i++) expect(() => readLog(log.subarray(0, next() % log.length), "x.log")).not.toThrow();
    for (let cut = log.length - 200; cut < log.length; cut++) {
      expect(() => readLog(log.subarray(0, cut), "x.log"), `cut at ${cut}`).not.toThrow();
    }
  });

  test("zeros at the end are no damage, zeros with something behind them are", () => {
    const zeros = Buffer.concat([log, Buffer.alloc(100_000)]);
    expect(() => readLog(zeros, "x.log")).not.toThrow();
    zeros[zeros.length - 1] = 1;
    expect(() => readLog(zeros, "x.log")).toThrow(JournalCorruptError);
    const hole = Buffer.from(log);
    hole.fill(0, starts[starts.length - 10], starts[starts.length - 9]);
    expect(() => readLog(hole, "x.log")).toThrow(JournalCorruptError);
  });

  test("a fragment that is missing is reported", () => {
    // The second fragment of the long record, replaced by the short records that follow it.
    const first = starts.findIndex((start) => log[start + 6] === 2);
    const cut = Buffer.concat([log.subarray(0, starts[first + 1]), log.subarray(starts[starts.length - 5])]);
    expect(() => readLog(cut, "x.log")).toThrow(JournalCorruptError);
  });

  test("a database without CURRENT, with a wrong CURRENT or without its manifest is reported", async () => {
    await expect(verifyLevelDb(directory, true)).resolves.toBeUndefined();
    const copy = await copyDirectory(directory);
    const manifest = (await readdir(copy)).find((file) => file.startsWith("MANIFEST"));
    await rm(join(copy, manifest!));
    await expect(verifyLevelDb(copy, true)).rejects.toThrow("CURRENT");
    await rm(join(copy, "CURRENT"));
    await expect(verifyLevelDb(copy, false)).rejects.toThrow("CURRENT is missing");
    await removeDirectory(copy);
  });
});

describe("LevelDB's table files", () => {
  test("every byte is covered", async () => {
    const seed = seedFromEnvironment();
    const next = numbers(seed);
    const copy = await copyDirectory(directory);
    const db = new Level<string, string>(copy, { compression: false });
    await db.open();
    await db.batch(Array.from({ length: 3000 }, (_, i) => ({ type: "put", key: `k${i}`, value: `value ${next()}` })));
    await db.close();
    // Opening moves the log into a table.
    await db.open();
    await db.close();
    await expect(verifyLevelDb(copy, true)).resolves.toBeUndefined();
    const name = (await readdir(copy)).filter((file) => file.endsWith(".ldb")).sort()[0]!;
    const table = await readFile(join(copy, name));
    const offsets = Array.from({ length: 1500 }, () => next() % table.length);
    for (let at = table.length - 200; at < table.length; at++) offsets.push(at);
    for (const at of offsets) {
      const before = table[at]!;
      const flipped = at >= table.length - 48 ? 1 << (next() % 8) : 1 + (next() % 255);
      table[at] = before ^ flipped;
      expect(() => verifyTable(table, name), `seed ${seed}: ${at} of ${table.length}`).toThrow(JournalCorruptError);
      table[at] = before;
    }
    table[100] = table[100]! ^ 1;
    await writeFile(join(copy, name), table);
    await expect(verifyLevelDb(copy, true)).rejects.toThrow(`${name} is damaged at offset 0`);
    await writeFile(join(copy, name), table.subarray(1));
    await expect(verifyLevelDb(copy, true)).rejects.toThrow(`${name} has ${table.length - 1} bytes`);
    await removeDirectory(copy);
  });
});
