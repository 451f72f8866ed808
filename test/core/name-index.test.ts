import fc from "fast-check";
import { expect, test } from "vitest";
import { NameIndex } from "../../src/server/core/name-index.js";

const page = (names: ReadonlySet<string>, prefix: string, after: string, limit: number): string[] =>
  [...names]
    .filter((name) => name.startsWith(prefix) && (after === "" || name > after))
    .sort()
    .slice(0, limit);

/** Few letters, so that prefixes are shared; the last two show that order is by code units. */
const name = fc.string({ unit: fc.constantFrom("a", "b", "/", "\u{1f512}", "\uffee"), maxLength: 6 });
const action = fc.oneof(
  { weight: 3, arbitrary: fc.tuple(fc.constant("add"), name) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("delete"), name) },
);

// A failure prints the seed that repeats it.
test("a page is what a sorted set has", () => {
  const query = fc.record({ prefix: name, after: name, limit: fc.integer({ min: 1, max: 20 }) });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), fc.array(query, { maxLength: 10 }), (actions, queries) => {
      const index = new NameIndex();
      const model = new Set<string>();
      for (const [kind, key] of actions) {
        if (kind === "add") {
          index.add(key);
          model.add(key);
        } else {
          index.delete(key);
          model.delete(key);
        }
      }
      for (const { prefix, after, limit } of queries) {
        expect(index.page(prefix, after, limit)).toEqual(page(model, prefix, after, limit));
      }
    }),
  );
});

// Enough names for many chunks, which grow, split, shrink and vanish.
test("pages through thousands of names, one after the other, while they come and go", () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 20_000 }), { minLength: 2_000, maxLength: 6_000 }), fc.nat(), (numbers, at) => {
      const index = new NameIndex();
      const model = new Set<string>();
      for (const [position, number] of numbers.entries()) {
        const key = `n${number}`;
        // The first half is added, then every other one is taken out again.
        if (position < numbers.length / 2 || position % 2 === 0) {
          index.add(key);
          model.add(key);
        } else {
          const victim = `n${numbers[(position + at) % numbers.length] as number}`;
          index.delete(victim);
          model.delete(victim);
        }
      }
      const listed: string[] = [];
      for (let after = ""; ; ) {
        const names = index.page("n1", after, 97);
        listed.push(...names);
        if (names.length < 97) break;
        after = names.at(-1) as string;
      }
      expect(listed).toEqual(page(model, "n1", "", Number.POSITIVE_INFINITY));
      for (const key of model) index.delete(key);
      expect(index.page("", "", 10)).toEqual([]);
    }),
    { numRuns: 20 },
  );
});
