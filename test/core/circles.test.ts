import fc from "fast-check";
import { expect, test } from "vitest";
import { circlesFrom } from "../../src/server/core/circles.js";

type Graph = readonly (readonly number[])[];

/** Everything that can be reached from a node in at least one step. */
function reachable(graph: Graph, from: number): Set<number> {
  const seen = new Set<number>();
  const open = [from];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    for (const next of graph[node] ?? []) {
      if (seen.has(next)) continue;
      seen.add(next);
      open.push(next);
    }
  }
  return seen;
}

/** The circles by their definition: nodes that reach themselves, together with whoever they reach and are reached by. */
function plainCircles(graph: Graph, start: number): string[] {
  const all = new Set([start, ...reachable(graph, start)]);
  const circles = new Set<string>();
  for (const node of all) {
    if (!reachable(graph, node).has(node)) continue;
    const circle = [...all].filter((other) => reachable(graph, node).has(other) && reachable(graph, other).has(node));
    circles.add(circle.sort((a, b) => a - b).join());
  }
  return [...circles].sort();
}

// A failure prints the seed that repeats it.
test("finds the circles that can be reached, and only those", () => {
  const nodes = 8;
  const graphs = fc.array(fc.array(fc.nat(nodes - 1), { maxLength: 3 }), { minLength: nodes, maxLength: nodes });
  fc.assert(
    fc.property(graphs, (graph) => {
      const circles = circlesFrom(0, (node) => graph[node] ?? []);
      const found = circles.map((circle) => circle.sort((a, b) => a - b).join()).sort();
      expect(found).toEqual(plainCircles(graph, 0));
    }),
    { numRuns: 1_000 },
  );
});

test("a graph as deep as a long queue", () => {
  const depth = 100_000;
  const circles = circlesFrom(0, (node) => [node === depth ? 1 : node + 1]);
  expect(circles.map((circle) => circle.length)).toEqual([depth]);
});
