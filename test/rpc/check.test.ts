// The field checks, the page tokens and the texts of lists: what no call over a socket shows well.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { HolderView, LockView, WaiterView } from "../../src/server/core/types.js";
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
import { leasesBody, lockBody, locksBody } from "../../src/server/rpc/encode.js";
import { lease } from "./support.js";

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

describe("long lists", () => {
  const holder: HolderView = {
    token: 1,
    timestamp: 1,
    owner: "o",
    metadata: "m".repeat(300),
    heldMs: 1,
    leaseRemainingMs: 1,
    leaseDisplayId: "d",
  };
  const lock = (i: number): LockView => ({
    name: `n${i}`,
    holders: [holder],
    waiters: [],
    waitersTotal: 0,
    reserved: false,
  });

  it("of locks are cut, and the token continues after the last one shown", () => {
    const body = locksBody({ kind: "locks", locks: [0, 1, 2, 3, 4].map(lock), next: "n4" }, 1_000);
    expect(body.locks?.map(({ name }) => name)).toEqual(["n0", "n1"]);
    expect(readPageToken(body.nextPageToken ?? "", 512)).toBe("n1");
  });

  it("of locks keep the token of the core when all fit", () => {
    const body = locksBody({ kind: "locks", locks: [lock(0)], next: "n0" }, 10_000);
    expect(readPageToken(body.nextPageToken ?? "", 512)).toBe("n0");
    expect(locksBody({ kind: "locks", locks: [lock(0)], next: "" }, 10_000).nextPageToken).toBe("");
  });

  it("show one entry at least", () => {
    const body = locksBody({ kind: "locks", locks: [lock(0), lock(1)], next: "" }, 1);
    expect(body.locks?.length).toBe(1);
    expect(readPageToken(body.nextPageToken ?? "", 512)).toBe("n0");
  });

  it("of leases show no lease id", () => {
    const body = leasesBody({ kind: "leases", leases: [lease, lease], next: "" }, 100);
    expect(body.leases?.length).toBe(1);
    expect(JSON.stringify(body)).not.toContain(`"${lease.leaseId}"`);
    expect(readPageToken(body.nextPageToken ?? "", 512)).toBe("D");
  });

  it("of waiters are cut, and the total stays", () => {
    const waiters: WaiterView[] = [1, 2, 3].map((position) => ({
      ticketId: `T${position}`,
      position,
      owner: "o",
      metadata: "aGk=",
      waitedMs: 5,
      attached: position > 1,
    }));
    const view = { ...lock(0), waiters, waitersTotal: 3 };
    const body = lockBody({ kind: "lock", lock: view }, 250);
    expect(body.waiters?.map(({ ticketId, attached }) => [ticketId, attached])).toEqual([
      ["T1", false],
      ["T2", true],
    ]);
    expect(body.waitersTotal).toBe(3);
    expect(Buffer.from(body.waiters?.[0]?.metadata ?? []).toString()).toBe("hi");
  });
});
