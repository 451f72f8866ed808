/**
 * Tokens: the checks that Hazelcast makes of its fenced, owner-aware mutex, for every mode.
 *
 * Tokens are given in the order of the grants, over all locks. So they say in which order the grants of a lock were made,
 * also where time leaves it open:
 *
 * - `token-twice`: every grant has a token of its own.
 * - `token-order`: what was granted before something else was asked for has the smaller token.
 * - `acquire-while-owned`: in the order of tokens, each grant goes together with those before it that provably lasted
 *   beyond its return.
 * - `grant-order`: in the order of tokens, the timestamps of the grants never fall.
 * - `not-the-owner`: only who was granted a token succeeds with it.
 * - `after-the-end`: nothing succeeds with a token after it was released or transferred.
 */
import { Finder, type Findings } from "./findings.js";
import type { History, Hold, Misuse } from "./history.js";
import { proof, those, who } from "./holding.js";
import { inTheWay, Lasting, loadOf, mayBe, sum } from "./load.js";
import type { Rule } from "./rules.js";

export function checkFencedMutex(history: History): Findings {
  const finder = new Finder("fenced-mutex", history.skewNs);
  for (const [first, second] of history.twins) {
    finder.found("token-twice", second.lock, () => ({
      explanation: `token ${first.token} was granted to ${first.acquire.process} for ${JSON.stringify(first.lock)} and to ${second.acquire.process} for ${JSON.stringify(second.lock)}`,
      operations: [first.acquire, second.acquire],
    }));
  }
  tokenOrder(finder, history);
  for (const [lock, holds] of history.locks) acquiresWhileOwned(finder, lock, holds);
  grantOrder(finder, history);
  for (const misuse of history.misuses) tellMisuse(finder, misuse);
  return finder.findings(history.grants, "tokens");
}

function tokenOrder(finder: Finder, history: History): void {
  const byReturn = [...history.holds].sort((a, b) => a.acquire.returnNs - b.acquire.returnNs);
  const byCall = [...history.holds].sort((a, b) => a.acquire.invokeNs - b.acquire.invokeNs);
  let returned = 0;
  let highest: Hold | null = null;
  for (const hold of byCall) {
    for (; returned < byReturn.length; returned++) {
      const other = byReturn[returned] as Hold;
      if (other.acquire.returnNs >= hold.acquire.invokeNs) break;
      if (highest === null || other.token > highest.token) highest = other;
    }
    const before = highest;
    if (before === null || before.token < hold.token) continue;
    finder.found("token-order", hold.lock, () => ({
      explanation: `${who(hold)} asked after ${who(before)} had been granted ${JSON.stringify(before.lock)}, but got the smaller token`,
      operations: [before.acquire, hold.acquire],
    }));
  }
}

function acquiresWhileOwned(finder: Finder, lock: string, holds: readonly Hold[]): void {
  const lasting = new Lasting(holds);
  const byToken = [...holds].sort((a, b) => a.token - b.token);
  byToken.forEach((hold, i) => {
    const { returnNs } = hold.acquire;
    if (!mayBe(sum(lasting.beyond(returnNs), loadOf(hold)))) {
      finder.found("acquire-while-owned", lock, () => {
        const earlier = byToken.slice(0, i).filter((other) => other.seenNs > returnNs);
        const others = inTheWay(hold, earlier);
        return {
          explanation: `${who(hold)} was granted the lock although by their tokens it comes after others: ${those(others)} beyond the return of its acquire`,
          operations: [hold.acquire, ...others.flatMap(proof)],
        };
      });
    }
    lasting.add(hold);
  });
}

function grantOrder(finder: Finder, history: History): void {
  const stamped = [...history.holds].filter(({ timestamp }) => timestamp > 0).sort((a, b) => a.token - b.token);
  let latest: Hold | null = null;
  for (const hold of stamped) {
    const before: Hold | null = latest;
    if (before !== null && before.timestamp > hold.timestamp) {
      finder.found("grant-order", hold.lock, () => ({
        explanation: `token ${hold.token} was granted at timestamp ${hold.timestamp}, but token ${before.token} at ${before.timestamp}`,
        operations: [before.acquire, hold.acquire],
      }));
    } else latest = hold;
  }
}

function tellMisuse(finder: Finder, { operation, hold, why }: Misuse): void {
  const { process, op, subject, value } = operation;
  const did = `${process} succeeded in a ${op} of ${JSON.stringify(subject)} with token ${value}`;
  const rule: Rule = why === "ended" ? "after-the-end" : "not-the-owner";
  finder.found(rule, subject, () => {
    if (hold === null) return { explanation: `${did}, which nobody was granted`, operations: [operation] };
    if (why === "somebody else's") {
      const owner = `${hold.acquire.process} for ${JSON.stringify(hold.lock)}`;
      return { explanation: `${did}, which was granted to ${owner}`, operations: [hold.acquire, operation] };
    }
    const ended = hold.endedBy ? [hold.endedBy] : [];
    const how = hold.endedBy?.op === "transfer" ? "transferred" : "released";
    return { explanation: `${did}, which had been ${how}`, operations: [hold.acquire, ...ended, operation] };
  });
}
