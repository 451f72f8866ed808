import fc from "fast-check";
import { expect, test } from "vitest";
import { Deadlines, type Timed } from "../../src/server/core/deadlines.js";

interface Item extends Timed {
  readonly id: number;
}

type Action = { kind: "set"; id: number; dueMs: number } | { kind: "delete"; id: number } | { kind: "take" };

const id = fc.nat({ max: 30 });
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("set" as const), id, dueMs: fc.nat({ max: 20 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("delete" as const), id }) },
  { weight: 1, arbitrary: fc.constant({ kind: "take" as const }) },
);

// A failure prints the seed that repeats it.
test("the earliest comes first, whatever was inserted, moved and taken out before", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 300 }), (actions) => {
      const deadlines = new Deadlines<Item>();
      const items = Array.from({ length: 31 }, (_, index): Item => ({ id: index, dueMs: 0, heapIndex: -1 }));
      const model = new Map<number, number>();
      for (const next of actions) {
        if (next.kind === "set") {
          deadlines.set(items[next.id] as Item, next.dueMs);
          model.set(next.id, next.dueMs);
        } else if (next.kind === "delete") {
          deadlines.delete(items[next.id] as Item);
          model.delete(next.id);
        } else {
          const first = deadlines.peek();
          if (first !== undefined) {
            deadlines.delete(first);
            model.delete(first.id);
          }
        }
        expect(deadlines.size).toBe(model.size);
        const first = deadlines.peek();
        if (model.size === 0) expect(first).toBeUndefined();
        else expect(first?.dueMs).toBe(Math.min(...model.values()));
        for (const item of items) {
          expect(item.heapIndex >= 0).toBe(model.has(item.id));
          if (model.has(item.id)) expect(item.dueMs).toBe(model.get(item.id));
        }
      }
      const taken: number[] = [];
      for (let item = deadlines.peek(); item !== undefined; item = deadlines.peek()) {
        taken.push(item.dueMs);
        deadlines.delete(item);
      }
      expect(taken).toEqual([...model.values()].sort((a, b) => a - b));
    }),
  );
});

test("an item that is not in is not taken out", () => {
  const deadlines = new Deadlines<Item>();
  const [a, b]: Item[] = [
    { id: 1, dueMs: 0, heapIndex: -1 },
    { id: 2, dueMs: 0, heapIndex: -1 },
  ];
  deadlines.set(a as Item, 5);
  deadlines.delete(b as Item);
  expect(deadlines.peek()).toBe(a);
  deadlines.delete(a as Item);
  deadlines.delete(a as Item);
  expect(deadlines.size).toBe(0);
});
