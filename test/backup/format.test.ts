import { describe, expect, test } from "vitest";
import { BackupEncoder, type BackupHeader, MARK_BYTES } from "../../src/server/backup/format.js";
import { BackupReader, BackupUnreadableError } from "../../src/server/backup/reader.js";
import { readBackup } from "../../src/server/backup/restore.js";
import type { Entry } from "../../src/server/journal/journal.js";
import { numbers } from "../journal/random.js";

const header: BackupHeader = {
  clusterId: "c0ffee00".repeat(4),
  seq: 12,
  storeFormat: 1,
  ttlMsMax: 86_400_000,
  takenWallMs: 1_700_000_000_000,
  server: "1.2.3",
};

function encode(entries: readonly Entry[], slice = 3, head: BackupHeader = header): Buffer {
  const encoder = new BackupEncoder();
  const parts = [encoder.header(head)];
  for (let at = 0; at < entries.length; at += slice) parts.push(encoder.entries(entries.slice(at, at + slice)));
  return Buffer.concat([...parts, encoder.end()]);
}

/** Reads it in pieces of these sizes, in turn. */
function decode(bytes: Buffer, sizes: readonly number[] = [bytes.length]) {
  const entries: Entry[] = [];
  const reader = new BackupReader((verified) => entries.push(...verified));
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] as number;
    reader.push(bytes.subarray(at, at + size));
    at += size;
  }
  return { entries, summary: reader.end() };
}

const refusal = (bytes: Buffer): string => {
  try {
    decode(bytes);
  } catch (error) {
    if (error instanceof BackupUnreadableError) return error.message;
    throw error;
  }
  return "";
};

const some: Entry[] = [
  ["!", "[3,2000000,4,1,100]"],
  ["l/id1", '["L1",1000,"","","",0,1,1,""]'],
  ["h/3", '["ключ 🔑 \u2028","id1",0,"",1,"","",5]'],
  ["q//r", '["ended",2]'],
  ["end", "1 2"],
  ["#00000000", ""],
];

describe("a backup file", () => {
  test("gives back what was put in, however it is cut into pieces", () => {
    const next = numbers(5);
    const many: Entry[] = Array.from({ length: 5_000 }, (_, i) => [`k/${i}`, "é".repeat(next() % 60)]);
    for (const entries of [[], some, many]) {
      const bytes = encode(entries, 1 + (next() % 700));
      for (const sizes of [[bytes.length], [1 + (next() % 50), 1 + (next() % 5_000)], [65_536]]) {
        const { entries: found, summary } = decode(bytes, sizes);
        expect(found).toEqual(entries);
        expect(summary).toMatchObject({ header, entries: entries.length, bytes: bytes.length });
      }
    }
    expect(decode(encode(some), [1]).entries).toEqual(some);
  });

  test("has a mark after every 64 KiB or so", () => {
    const many: Entry[] = Array.from({ length: 5_000 }, (_, i) => [`k/${i}`, "x".repeat(100)]);
    const bytes = encode(many, 50);
    const marks = bytes.toString().match(/^#[0-9a-f]{8}$/gm) ?? [];
    expect(marks.length).toBeGreaterThanOrEqual(Math.floor(bytes.length / (MARK_BYTES + 8_000)));
  });

  test("is refused with any bit flipped", () => {
    const bytes = encode(some);
    for (let at = 0; at < bytes.length; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const damaged = Buffer.from(bytes);
        damaged[at] = (bytes[at] as number) ^ (1 << bit);
        expect(refusal(damaged), `bit ${bit} of byte ${at}`).toMatch(
          /damaged|no backup|version|behind its trailer|cut/,
        );
      }
    }
  });

  test("is refused when it is cut anywhere, or goes on", () => {
    const bytes = encode(some);
    for (let length = 0; length < bytes.length; length++) {
      expect(refusal(bytes.subarray(0, length)), `cut to ${length} bytes`).toMatch(/cut short|is empty|is no backup/);
    }
    for (const more of ["\n", "x", "k\tv\n", bytes.toString()]) {
      expect(refusal(Buffer.concat([bytes, Buffer.from(more)])), more).toMatch(/behind its trailer/);
    }
  });

  test("is refused when lines or blocks are missing, doubled, exchanged or taken from another", () => {
    const lines = encode(some, 2)
      .toString()
      .split(/(?<=\n)/);
    const join = (parts: readonly string[]) => Buffer.from(parts.join(""));
    for (let i = 0; i < lines.length; i++) {
      expect(refusal(join(lines.toSpliced(i, 1))), `without line ${i}`).not.toBe("");
      expect(refusal(join(lines.toSpliced(i, 0, lines[i] as string))), `line ${i} twice`).not.toBe("");
      if (i > 0) {
        const exchanged = lines.toSpliced(i - 1, 2, lines[i] as string, lines[i - 1] as string);
        expect(refusal(join(exchanged)), `lines ${i - 1} and ${i} exchanged`).not.toBe("");
      }
    }
    const other = encode(some.slice(0, 5))
      .toString()
      .split(/(?<=\n)/);
    expect(refusal(join([...lines.slice(0, -1), other.at(-1) as string]))).toMatch(/trailer says/);
  });

  test("says between which bytes it is damaged, and gives nothing from there", () => {
    const many: Entry[] = Array.from({ length: 5_000 }, (_, i) => [`k/${i}`, "x".repeat(100)]);
    const bytes = encode(many, 50);
    const at = 200_000;
    bytes[at] = (bytes[at] as number) ^ 1;
    let verified = 0;
    const reader = new BackupReader((entries) => {
      verified += entries.length;
    });
    let message = "";
    try {
      reader.push(bytes);
    } catch (error) {
      message = (error as Error).message;
    }
    const [, from, to] = /between byte (\d+) and byte (\d+)/.exec(message) ?? [];
    expect(Number(from)).toBeLessThanOrEqual(at);
    expect(Number(to)).toBeGreaterThan(at);
    expect(Number(to) - Number(from)).toBeLessThan(MARK_BYTES + 16_000);
    expect(verified).toBeGreaterThan(1_000);
    expect(verified * 108).toBeLessThan(at);
  });

  test("of another version or of newer entries is told apart from a damaged one", async () => {
    expect(refusal(Buffer.from("leasehold-backup 2 {}\n"))).toMatch(/a backup of version 2; this Leasehold reads/);
    expect(refusal(Buffer.from("PK\u0003\u0004".repeat(3_000)))).toBe("is no backup");
    const newer = encode([["?/what", "is this"]], 1, { ...header, storeFormat: 1_000 });
    async function* chunks() {
      yield newer;
    }
    await expect(readBackup(chunks())).rejects.toThrow("has entries of format 1000, from a newer Leasehold");
  });

  test("whose entries no core has written is refused", async () => {
    for (const entry of [
      ["?/what", "is this"],
      ["h/1", "no JSON"],
    ] as const) {
      async function* chunks() {
        yield encode([entry]);
      }
      await expect(readBackup(chunks()), entry[0]).rejects.toThrow("what no Leasehold of this version has written");
    }
  });
});
