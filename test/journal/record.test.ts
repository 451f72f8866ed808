import { describe, expect, test } from "vitest";
import { JournalCorruptError } from "../../src/server/journal/journal.js";
import { chainStart, decodeRecord, RecordEncoder } from "../../src/server/journal/record.js";

const mutations = ["lock/a", "x 1", "hold/a/7", null, "empty", "", "ключ", "🔑"];

function encode(seq: number, list: readonly (string | null)[], chain: number) {
  const { bytes, chain: next } = new RecordEncoder().encode(seq, list, chain);
  return { bytes: Buffer.from(bytes), chain: next };
}

describe("log records", () => {
  test("decode to what was encoded, and chain", () => {
    const first = encode(1, mutations, chainStart("c"));
    expect(decodeRecord(first.bytes, 1, chainStart("c"))).toEqual({ mutations, chain: first.chain });
    const second = encode(2, [], first.chain);
    expect(decodeRecord(second.bytes, 2, first.chain)).toEqual({ mutations: [], chain: second.chain });
  });

  test("one encoder serves records of any size", () => {
    const encoder = new RecordEncoder();
    for (const size of [1, 100_000, 10]) {
      const list = ["k", "ж".repeat(size)];
      expect(decodeRecord(Buffer.from(encoder.encode(9, list, 5).bytes), 9, 5).mutations).toEqual(list);
    }
  });

  test("any changed byte is noticed", () => {
    const { bytes } = encode(3, mutations, 1234);
    for (let at = 0; at < bytes.length; at++) {
      const damaged = Buffer.from(bytes);
      damaged[at] = damaged[at]! ^ 1;
      expect(() => decodeRecord(damaged, 3, 1234), `byte ${at}`).toThrow(JournalCorruptError);
      expect(() => decodeRecord(bytes.subarray(0, at), 3, 1234), `cut at ${at}`).toThrow(JournalCorruptError);
    }
  });

  test("a sound record in the wrong place is noticed, and named", () => {
    const { bytes } = encode(3, mutations, 1234);
    expect(() => decodeRecord(bytes, 3, 1235)).toThrow("log record 3 does not follow record 2");
    expect(() => decodeRecord(bytes, 4, 1234)).toThrow("log record 4");
  });
});
