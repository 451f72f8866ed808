import { expect, test } from "vitest";
import type { LockEvent } from "../../src/server/core/types.js";
import { History } from "../../src/server/watch/history.js";
import { TargetIndex, type WatchTarget } from "../../src/server/watch/targets.js";
import { noHold } from "./store.js";

const event = (name: string, timestamp: number): LockEvent => ({
  kind: "updated",
  name,
  timestamp,
  token: 1,
  message: "",
  hold: noHold,
});

function read(history: History, after: number, count: number) {
  const seen: number[] = [];
  const upTo = history.read(after, count, ({ timestamp }) => seen.push(timestamp));
  return { seen, upTo };
}

test("the history is read in slices that never part events of one timestamp", () => {
  const history = new History(10, 1_000_000);
  for (const timestamp of [1, 2, 2, 2, 3, 4, 4]) history.add(event("a", timestamp));
  expect(read(history, 0, 2)).toEqual({ seen: [1, 2, 2, 2], upTo: 2 });
  expect(read(history, 2, 1)).toEqual({ seen: [3], upTo: 3 });
  expect(read(history, 3, 1)).toEqual({ seen: [4, 4], upTo: null });
  expect(read(history, 4, 1)).toEqual({ seen: [], upTo: null });
});

test("what falls out at the front moves the base, and half an AcquireAll is not told", () => {
  const history = new History(4, 1_000_000);
  for (const timestamp of [1, 2, 2, 3, 4]) history.add(event("a", timestamp));
  expect(history.base).toBe(1);
  history.add(event("a", 5));
  expect(history.base).toBe(2);
  expect(read(history, 2, 10)).toEqual({ seen: [3, 4, 5], upTo: null });
  for (let timestamp = 6; timestamp < 50; timestamp++) history.add(event("a", timestamp));
  expect(history.base).toBe(45);
  expect(read(history, 46, 10).seen).toEqual([47, 48, 49]);
  history.restart(100);
  expect([history.base, history.size]).toEqual([100, 0]);
  history.add(event("a", 101));
  expect(read(history, 100, 10).seen).toEqual([101]);
});

test("who watches a name is found by the name and by each of its prefixes", () => {
  const index = new TargetIndex<{ readonly target: WatchTarget }>();
  const name = (text: string) => ({ target: { kind: "name", name: text } as const });
  const prefix = (text: string) => ({ target: { kind: "prefix", prefix: text } as const });
  const watchers = [
    name("ab"),
    name("a"),
    prefix(""),
    prefix("a"),
    prefix("a"),
    prefix("ab"),
    prefix("abc"),
    prefix("b"),
  ];
  const found = (text: string) => {
    const indexes: number[] = [];
    index.each(text, (watcher) => indexes.push(watchers.indexOf(watcher as (typeof watchers)[number])));
    return indexes.sort();
  };
  for (const watcher of watchers) index.add(watcher);
  expect(found("ab")).toEqual([0, 2, 3, 4, 5]);
  expect(found("a")).toEqual([1, 2, 3, 4]);
  expect(found("")).toEqual([2]);
  index.delete(watchers[3]!);
  index.delete(watchers[3]!);
  expect(found("ab")).toEqual([0, 2, 4, 5]);
  for (const watcher of watchers) index.delete(watcher);
  expect(found("ab")).toEqual([]);
});
