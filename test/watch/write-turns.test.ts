import { describe, expect, test } from "vitest";
import { WriteTurns } from "../../src/server/watch/write-turns.js";
import { Turns } from "./store.js";

function turnsOf(watchers: Readonly<Record<string, number>>) {
  const turns = new Turns();
  const writes = new WriteTurns(turns);
  let written: string[] = [];
  const writers = Object.entries(watchers).flatMap(([principal, count]) =>
    Array.from({ length: count }, (_, i) => ({ principal, flush: () => void written.push(`${principal}${i}`) })),
  );
  return {
    turns,
    writes,
    writers,
    /** Who has written since the last look. */
    look() {
      const seen = written;
      written = [];
      return seen;
    },
    all() {
      for (const writer of writers) writes.add(writer);
      writes.take();
    },
  };
}

describe("the turns of watchers that write", () => {
  test("four of one principal write in a window, and the next four in the next one", () => {
    const { turns, all, look, writes } = turnsOf({ a: 10 });
    all();
    expect(look()).toEqual(["a0", "a1", "a2", "a3"]);
    writes.take(); // the next batch
    expect(look()).toEqual([]);
    turns.turn();
    expect(look()).toEqual(["a4", "a5", "a6", "a7"]);
    turns.turn();
    expect(look()).toEqual(["a8", "a9"]);
  });

  test("a hundred watches of one principal hold up nobody else's", () => {
    const { all, look } = turnsOf({ greedy: 100, a: 1, b: 2 });
    all();
    expect(look()).toEqual(["greedy0", "greedy1", "greedy2", "greedy3", "a0", "b0", "b1"]);
  });

  test("of many principals those that have not written yet are next", () => {
    const { turns, all, look } = turnsOf({ a: 9, b: 9, c: 9, d: 9, e: 9, f: 9 });
    all();
    expect(look().map((name) => name.charAt(0))).toEqual([..."aaaabbbbccccdddd"]);
    turns.turn();
    expect(look().map((name) => name.charAt(0))).toEqual([..."eeeeffffaaaabbbb"]);
  });

  test("where nobody is asked who he is sixteen write in a window", () => {
    const { turns, all, look } = turnsOf({ "": 20 });
    all();
    expect(look().length).toBe(16);
    turns.turn();
    expect(look().length).toBe(4);
  });

  test("whoever has gone does not write, and when nobody waits there is no timer", () => {
    const { turns, all, look, writes, writers } = turnsOf({ a: 5, b: 1 });
    all();
    look();
    for (const writer of writers) writes.delete(writer);
    turns.turn();
    expect(look()).toEqual([]);
    turns.turn();
    expect(turns.turn()).toBe(false);
  });

  test("whoever is told something while it writes has another turn, and so have the others", () => {
    const { turns, writes, writers, look } = turnsOf({ a: 5 });
    let count = 0;
    const again = { principal: "a", flush: () => void (++count < 3 && writes.add(again)) };
    for (const writer of [again, ...writers]) writes.add(writer);
    writes.take();
    for (let i = 0; i < 4; i++) turns.turn();
    expect([count, look().length]).toEqual([3, 5]);
  });
});
