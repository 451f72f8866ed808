// The field checks and the page tokens: what no call over a socket shows well.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  badBytes,
  badOptionalText,
  badPositive,
  badRange,
  badText,
  pageToken,
  readPageToken,
  toBase64,
} from "../../src/server/rpc/check.js";

describe("texts", () => {
  const good = [
    "a",
    " ",
    "a b",
    "n".repeat(512),
    "é".repeat(256),
    "€".repeat(170),
    "😀".repeat(128),
    "\u0080",
    "\u2028",
  ];
  it.each(good)("%j is a good name", (name) => {
    expect(badText("name", name, 512)).toBeNull();
  });

  const bad: [name: string, words: RegExp][] = [
    ["", /^name must not be empty$/],
    ["n".repeat(513), /has 513 bytes of UTF-8; at most 512/],
    ["n".repeat(100_000), /has 100000 bytes/],
    ["é".repeat(257), /has 514 bytes/],
    ["€".repeat(171), /has 513 bytes/],
    ["😀".repeat(129), /has 516 bytes/],
    ["\u0000", /U\+0000 at index 0/],
    ["ab\u001f", /U\+001F at index 2/],
    ["\u007f", /U\+007F at index 0/],
  ];
  it.each(bad)("%j is a bad name", (name, words) => {
    expect(badText("name", name, 512)).toMatchObject({ kind: "refused", reason: "INVALID" });
    expect(badText("name", name, 512)?.message).toMatch(words);
  });

  it("the limit is one of bytes, for every text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 40 }), fc.integer({ min: 1, max: 60 }), (text, bytesMax) => {
        const clean = [...text].filter((letter) => letter >= " " && letter !== "\x7f").join("");
        expect(badOptionalText("t", clean, bytesMax) === null).toBe(Buffer.byteLength(clean) <= bytesMax);
      }),
      { verbose: true },
    );
  });
});

describe("numbers and bytes", () => {
  it.each([1, 5, 2 ** 53 - 1])("%d is positive", (value) => expect(badPositive("token", value)).toBeNull());
  it.each([0, -1, 1.5, Number.NaN, 2 ** 53])("%d is not a positive integer", (value) => {
    expect(badPositive("token", value)?.message).toBe(`token must be at least 1; given: ${value}`);
  });
  it("a range includes its ends", () => {
    expect([1, 2, 3, 4].map((value) => badRange("x", value, 2, 3) === null)).toEqual([false, true, true, false]);
    expect(badRange("x", 2.5, 2, 3)?.message).toBe("x must be 2 to 3; given: 2.5");
  });
  it("bytes are counted", () => {
    expect(badBytes("m", Buffer.alloc(3), 3)).toBeNull();
    expect(badBytes("m", Buffer.alloc(4), 3)?.message).toBe("m has 4 bytes; at most 3 are allowed");
  });
  it("base64 is of the part that the view shows", () => {
    expect(toBase64(new Uint8Array())).toBe("");
    expect(toBase64(new Uint8Array([1, 2, 3, 4]).subarray(1, 3))).toBe("AgM=");
  });
});

describe("page tokens", () => {
  it("give back what they were made of", () => {
    for (const last of ["", "a", "ü/😀", "n".repeat(512)]) expect(readPageToken(pageToken(last), 512)).toBe(last);
  });
  it.each(["*", "a", "YQ==", "YQ\n", "YR", "_w", Buffer.from("a\nb").toString("base64url"), "Y".repeat(5_000)])(
    "%j was never one",
    (token) => {
      expect(readPageToken(token, 512)).toBeNull();
    },
  );
});
