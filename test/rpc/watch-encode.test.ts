import { decode, v1 } from "@leasehold/client/wire";
import { expect, test } from "vitest";
import { WatchEncoder } from "../../src/server/rpc/watch-encode.js";
import type { WatchEntry } from "../../src/server/watch/entry.js";
import { noHold, noWaiter } from "../watch/store.js";
import { lock } from "./support.js";

const granted = (timestamp: number): WatchEntry => ({
  ...{ kind: "granted", timestamp, name: `a/${timestamp}`, token: timestamp, mode: "exclusive" },
  ...{ transferredFrom: 0, ticketId: "", waitedMs: 0 },
  hold: { ...noHold, token: timestamp, metadata: "ä".repeat(timestamp % 7) },
});

const entries: WatchEntry[] = [
  { kind: "reset", timestamp: 1, reason: "start" },
  { kind: "state", timestamp: 1, lock: lock("a") },
  { kind: "synced", timestamp: 1 },
  granted(2),
  { kind: "queued", timestamp: 3, name: "a/2", waiter: noWaiter },
  granted(4),
];

const told = (bytes: Buffer) => decode(v1.WatchResponse, bytes);

test("what is put together from the events of all says what is made for one", () => {
  const encoder = new WatchEncoder(1_000);
  const alone = told(encoder.response(entries, 4, false));
  expect(alone.events.length).toBe(entries.length);
  for (let times = 0; times < 2; times++) expect(told(encoder.response(entries, 4, true))).toEqual(alone);
  expect(told(encoder.response([], 7, true))).toEqual(told(encoder.response([], 7, false)));
});

test("an event that others were told long ago is told the same again", () => {
  const encoder = new WatchEncoder(1_000);
  const events = Array.from({ length: 5_000 }, (_, i) => granted(i + 1));
  const first = told(encoder.response(events, 5_000, true));
  expect(told(encoder.response(events, 5_000, true))).toEqual(first);
  expect(told(encoder.response(events, 5_000, false))).toEqual(first);
  expect(first.events.map(({ timestamp }) => timestamp)).toEqual(events.map(({ timestamp }) => timestamp));
});
