import type { Holder, Waiter, WatchEvent } from "@leasehold/client";
import { describe, expect, test } from "vitest";
import { eventForJson, eventText } from "../../src/cli/watch-text.js";

const holder: Holder = {
  ...{ token: 13, timestamp: 505, owner: "vm/1\u001b[2J", metadata: Buffer.from("10.0.0.7"), heldMs: 0 },
  ...{ leaseRemainingMs: 15_000, leaseDisplayId: "L1", mode: "exclusive", permits: 0, permitLimit: 0, slots: [] },
  ...{ maxHoldRemainingMs: 0, revoking: false, contenderId: "" },
};
const waiter: Waiter = {
  ...{ ticketId: "T4", position: 1, owner: "", metadata: new Uint8Array([0xff]), waitedMs: 0, attached: true },
  ...{ mode: "shared", permits: 0, permitLimit: 0, locks: 1, contenderId: "", blockedBy: null },
};
const at = { timestamp: 505, position: 505 };
const name = "orders/42";
const noon = new Date(2026, 0, 2, 12, 3, 4, 5);

const cases: [WatchEvent, string][] = [
  [{ ...at, position: 0, type: "reset", reason: "start" }, "       -  reset        the state follows"],
  [
    { ...at, type: "reset", reason: "lagged" },
    "     505  reset        events were missed, they were not read fast enough; the state follows",
  ],
  [
    { ...at, type: "reset", reason: "forgotten" },
    "     505  reset        events were missed, the server does not remember them; the state follows",
  ],
  [{ ...at, type: "synced" }, "     505  synced       that was the state; now what happens"],
  [
    { ...at, type: "state", name, holders: [holder], holdersTotal: 3, waiters: [waiter], waitersTotal: 2 },
    "     505  state        orders/42  token 13  vm/1\\u{1b}[2J  and 2 more  2 waiting",
  ],
  [
    { ...at, type: "state", name, holders: [], holdersTotal: 0, waiters: [waiter], waitersTotal: 1 },
    "     505  state        orders/42  free  1 waiting",
  ],
  [{ ...at, type: "queued", name, waiter }, "     505  queued       orders/42  ticket T4  -"],
  [{ ...at, type: "dequeued", name, waiter }, "     505  dequeued     orders/42  ticket T4  -"],
  [
    { ...at, type: "granted", name, holder, ticketId: "" },
    "     505  granted      orders/42  token 13  vm/1\\u{1b}[2J",
  ],
  [
    { ...at, type: "transferred", name, holder, ticketId: "T4", previousToken: 12 },
    "     505  transferred  orders/42  token 13  vm/1\\u{1b}[2J  from token 12",
  ],
  [{ ...at, type: "released", name, token: 13, message: "" }, "     505  released     orders/42  token 13"],
  [
    { ...at, type: "forced", name, token: 13, message: "it\nhangs" },
    "     505  forced       orders/42  token 13  reason: it\\u{a}hangs",
  ],
  [{ ...at, type: "max_hold", name, token: 13, message: "" }, "     505  max hold     orders/42  token 13"],
  [
    { ...at, type: "revoking", name, holder, message: "hangs" },
    "     505  revoking     orders/42  token 13  vm/1\\u{1b}[2J  reason: hangs",
  ],
];

test.each(cases)("%j", (event, line) => {
  expect(eventText(event, noon)).toBe(`12:03:04.005  ${line}\n`);
});

describe("as JSON", () => {
  test("metadata is base64 and, if it is text, text", () => {
    expect(eventForJson({ ...at, type: "granted", name, holder, ticketId: "" })).toEqual({
      ...at,
      ...{ type: "granted", name, ticketId: "" },
      holder: { ...holder, metadata: "MTAuMC4wLjc=", metadataText: "10.0.0.7" },
    });
    const state = { ...at, type: "state" as const, name, holders: [holder], holdersTotal: 1, waitersTotal: 1 };
    expect(eventForJson({ ...state, waiters: [waiter] })).toMatchObject({
      holders: [{ metadataText: "10.0.0.7" }],
      waiters: [{ ticketId: "T4", metadata: "/w==", metadataText: null }],
    });
  });
});
