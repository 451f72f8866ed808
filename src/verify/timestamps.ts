/**
 * Lamport timestamps: those of grants, the ranges that the server gave, and those that processes made themselves.
 *
 * - `timestamp-twice`: the server gives no timestamp twice; ranges are disjoint. (The grants of one AcquireAll share one.)
 * - `timestamp-order`: what the server gave before something else was asked for is smaller, whoever asked.
 * - `timestamp-backwards`: what a process makes itself, and the ranges it gets, exceed all that it has seen before.
 */
import { Finder, type Findings } from "./findings.js";
import type { History, Timestamps } from "./history.js";
import type { Rule } from "./rules.js";

export function checkTimestamps(history: History): Findings {
  const finder = new Finder("timestamps", history.skewNs);
  const { timestamps, skewNs } = history;
  const ofServer = timestamps.filter((stamp) => stamp.ofServer);
  disjoint(finder, ofServer);
  rising(finder, "timestamp-order", ofServer, () => true, 0);
  const byProcess = new Map<string, Timestamps[]>();
  for (const stamp of timestamps) {
    const list = byProcess.get(stamp.operation.process);
    if (list) list.push(stamp);
    else byProcess.set(stamp.operation.process, [stamp]);
  }
  for (const own of byProcess.values()) rising(finder, "timestamp-backwards", own, exceedsAll, skewNs);
  return finder.findings(timestamps.length, "timestamps and ranges");
}

/** The timestamp of a grant exceeds what the server gave before, but need not exceed what a client made up. */
const exceedsAll = ({ operation }: Timestamps): boolean => operation.op !== "acquire";

function disjoint(finder: Finder, stamps: readonly Timestamps[]): void {
  let highest: Timestamps | null = null;
  for (const stamp of [...stamps].sort((a, b) => a.first - b.first)) {
    const before: Timestamps | null = highest;
    if (before !== null && before.last >= stamp.first) {
      finder.found("timestamp-twice", stamp.operation.process, () => ({
        explanation: `${show(before)} and ${show(stamp)} have timestamps in common`,
        operations: [before.operation, stamp.operation],
      }));
    }
    if (before === null || stamp.last > before.last) highest = stamp;
  }
}

/** `narrowNs` takes the widening by the skew away: within a process there is none. */
function rising(
  finder: Finder,
  rule: Rule,
  stamps: readonly Timestamps[],
  applies: (stamp: Timestamps) => boolean,
  narrowNs: number,
): void {
  const byReturn = [...stamps].sort((a, b) => a.operation.returnNs - b.operation.returnNs);
  const byCall = [...stamps].sort((a, b) => a.operation.invokeNs - b.operation.invokeNs);
  let returned = 0;
  let highest: Timestamps | null = null;
  for (const stamp of byCall) {
    for (; returned < byReturn.length; returned++) {
      const other = byReturn[returned] as Timestamps;
      if (other.operation.returnNs - narrowNs >= stamp.operation.invokeNs + narrowNs) break;
      if (highest === null || other.last > highest.last) highest = other;
    }
    const before = highest;
    if (before === null || before.last < stamp.first || !applies(stamp)) continue;
    finder.found(rule, stamp.operation.process, () => ({
      explanation: `${show(stamp)} was asked for when ${show(before)} was known`,
      operations: [before.operation, stamp.operation],
    }));
  }
}

function show({ first, last, operation }: Timestamps): string {
  const numbers = first === last ? `${first}` : `${first}..${last}`;
  return `${numbers} (${operation.op} #${operation.id} of ${operation.process})`;
}
