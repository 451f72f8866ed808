/**
 * Writes to storages that have a fence. `stale-write`: once a write with a token was accepted, none with a lower one that
 * is made later is, for the same resource.
 */
import { Finder, type Findings } from "./findings.js";
import type { History, Operation } from "./history.js";

export function checkWrites(history: History): Findings {
  const finder = new Finder("fenced-writes", history.skewNs);
  let accepted = 0;
  for (const [resource, writes] of history.writes) {
    accepted += writes.length;
    const byReturn = [...writes].sort((a, b) => a.returnNs - b.returnNs);
    const byCall = [...writes].sort((a, b) => a.invokeNs - b.invokeNs);
    let returned = 0;
    let highest: Operation | null = null;
    for (const write of byCall) {
      for (; returned < byReturn.length; returned++) {
        const other = byReturn[returned] as Operation;
        if (other.returnNs >= write.invokeNs) break;
        if (highest === null || other.value > highest.value) highest = other;
      }
      const before = highest;
      if (before === null || before.value <= write.value) continue;
      finder.found("stale-write", resource, () => ({
        explanation: `a write of ${write.process} with token ${write.value} was accepted after one of ${before.process} with token ${before.value}`,
        operations: [before, write],
      }));
    }
  }
  return finder.findings(accepted, "accepted writes");
}
