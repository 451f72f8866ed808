/** Leaders that were observed. `leader-order`: no observer is told of an older leader after a newer one. */
import { Finder, type Findings } from "./findings.js";
import type { History, Operation } from "./history.js";

export function checkLeaders(history: History): Findings {
  const finder = new Finder("leaders", history.skewNs);
  let observed = 0;
  for (const sights of history.observers.values()) {
    observed += sights.length;
    let newest: Operation | null = null;
    for (const sight of sights) {
      const before: Operation | null = newest;
      if (before === null || before.value <= sight.value) {
        newest = sight;
        continue;
      }
      finder.found("leader-order", sight.subject, () => ({
        explanation: `${sight.process} was told of the leader with token ${sight.value} after the one with token ${before.value}`,
        operations: [before, sight],
      }));
    }
  }
  return finder.findings(observed, "leaders seen");
}
