/**
 * Who held when: the checks that Palantir makes of TimeLock, for every mode.
 *
 * They use time alone, not the tokens. A hold is proven from the return of its acquire to the last moment at which it was
 * seen to last.
 *
 * - `grant-inside-hold`: from the call of an acquire to its return, others provably held what does not go together with
 *   it, so whenever in between it was granted, it was granted wrongly.
 * - `held-together`: at one moment holds are proven that do not go together: a look, a release, a transfer or a downgrade
 *   succeeded while somebody else held.
 * - `slot-twice`: the same for the slots of semaphores, each of which is a lock of its own.
 */
import type { Findings } from "./findings.js";
import { Finder } from "./findings.js";
import type { History, Hold } from "./history.js";
import { inTheWay, Lasting, type Load, loadOf, mayBe, sum } from "./load.js";
import type { Rule } from "./rules.js";

export function checkHolding(history: History): Findings {
  const finder = new Finder("holding", history.skewNs);
  for (const [lock, holds] of history.locks) {
    grantsInside(finder, lock, holds);
    heldTogether(finder, lock, holds, "held-together");
    for (const [slot, users] of slotsOf(holds)) heldTogether(finder, `${lock}#${slot}`, users, "slot-twice");
  }
  return finder.findings(history.grants, "grants");
}

function grantsInside(finder: Finder, lock: string, holds: readonly Hold[]): void {
  const lasting = new Lasting(holds);
  const byReturn = [...holds].sort((a, b) => a.acquire.returnNs - b.acquire.returnNs);
  const byCall = [...holds].sort((a, b) => a.acquire.invokeNs - b.acquire.invokeNs);
  let returned = 0;
  for (const hold of byCall) {
    const { invokeNs, returnNs } = hold.acquire;
    for (; returned < byReturn.length; returned++) {
      const other = byReturn[returned] as Hold;
      if (other.acquire.returnNs >= invokeNs) break;
      lasting.add(other);
    }
    if (mayBe(sum(lasting.beyond(returnNs), loadOf(hold)))) continue;
    finder.found("grant-inside-hold", lock, () => {
      const around = byReturn.slice(0, returned).filter((other) => other.seenNs > returnNs);
      const others = inTheWay(hold, around);
      return {
        explanation: `${who(hold)} was granted the lock while ${those(others)}`,
        operations: [hold.acquire, ...others.flatMap(proof)],
      };
    });
  }
}

interface Change {
  readonly ns: number;
  readonly hold: Hold;
  readonly kind: "end" | "share" | "start";
}

/** What ends at the moment at which something begins did not overlap it. */
const order: Readonly<Record<Change["kind"], number>> = { end: 0, share: 1, start: 2 };

/** The beginnings and ends of what is proven, in time. */
function changesOf(holds: readonly Hold[]): Change[] {
  const changes: Change[] = [];
  for (const hold of holds) {
    const startNs = hold.acquire.returnNs;
    if (hold.seenNs <= startNs) continue;
    changes.push({ ns: startNs, hold, kind: "start" }, { ns: hold.seenNs, hold, kind: "end" });
    if (isDowngraded(hold) && hold.sharedFromNs > startNs) changes.push({ ns: hold.sharedFromNs, hold, kind: "share" });
  }
  return changes.sort((a, b) => a.ns - b.ns || order[a.kind] - order[b.kind]);
}

function heldTogether(finder: Finder, lock: string, holds: readonly Hold[], rule: Rule): void {
  const held = new Set<Hold>();
  const shared = new Set<Hold>();
  // The limit is computed when it may matter: no limit that was ever declared is smaller than this one.
  const limitMin = holds.reduce((smallest, { limit }) => Math.min(smallest, limit), Number.POSITIVE_INFINITY);
  let load: Load = { exclusive: 0, shared: 0, semaphore: 0, permits: 0, limit: limitMin };
  for (const { hold, kind } of changesOf(holds)) {
    if (kind === "start") {
      const isShared = isDowngraded(hold) && hold.sharedFromNs <= hold.acquire.returnNs;
      if (isShared) shared.add(hold);
      load = plus(load, loadOf(hold, isShared), 1);
      held.add(hold);
      if (!mayBe(load) && !mayBe({ ...load, limit: limitOf(held) })) tell(finder, lock, rule, hold, held);
    } else if (kind === "share") {
      load = plus(plus(load, loadOf(hold), -1), loadOf(hold, true), 1);
      shared.add(hold);
    } else {
      load = plus(load, loadOf(hold, shared.delete(hold)), -1);
      held.delete(hold);
    }
  }
}

const isDowngraded = (hold: Hold): boolean => hold.mode === "exclusive" && hold.sharedFromNs < hold.seenNs;

function plus(load: Load, change: Load, times: number): Load {
  return {
    exclusive: load.exclusive + times * change.exclusive,
    shared: load.shared + times * change.shared,
    semaphore: load.semaphore + times * change.semaphore,
    permits: load.permits + times * change.permits,
    limit: load.limit,
  };
}

function limitOf(held: Iterable<Hold>): number {
  let limit = Number.POSITIVE_INFINITY;
  for (const hold of held) limit = Math.min(limit, hold.limit);
  return limit;
}

function tell(finder: Finder, lock: string, rule: Rule, hold: Hold, held: ReadonlySet<Hold>): void {
  finder.found(rule, lock, () => {
    const others = inTheWay(
      hold,
      [...held].filter((other) => other !== hold),
    );
    const what = rule === "slot-twice" ? "the slot" : "the lock";
    return {
      explanation: `${who(hold)} held ${what} while ${those(others)}`,
      operations: [...proof(hold), ...others.flatMap(proof)],
    };
  });
}

/** The holds of each slot, as exclusive ones. */
function slotsOf(holds: readonly Hold[]): Map<number, Hold[]> {
  const slots = new Map<number, Hold[]>();
  for (const hold of holds) {
    for (const slot of hold.slots) {
      const users = slots.get(slot) ?? [];
      users.push({ ...hold, mode: "exclusive", limit: Number.POSITIVE_INFINITY });
      slots.set(slot, users);
    }
  }
  return slots;
}

export const who = (hold: Hold): string => `${hold.acquire.process} (token ${hold.token}, ${modeOf(hold)})`;

function modeOf({ mode, permits, limit }: Hold): string {
  return mode === "semaphore" ? `${permits} of ${limit} permits` : mode;
}

export const those = (others: readonly Hold[]): string =>
  others.length === 1
    ? `${who(others[0] as Hold)} provably held it`
    : `${others.slice(0, 3).map(who).join(", ")}${others.length > 3 ? " and others" : ""} provably held it`;

/** What proves a hold. */
export const proof = (hold: Hold) => [hold.acquire, hold.seenBy];
