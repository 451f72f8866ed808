/**
 * What answers tell of locks that whoever asked may neither observe nor take. Waits lead from lock to lock, so who describes
 * a lock, or is refused because of a deadlock, would learn the names of others, and who is at them.
 */
import { knotText } from "../core/deadlock.js";
import type { BlockerView, KnotWait, Outcome, Refusal } from "../core/types.js";
import type { Identity } from "./access.js";

/** In the place of a name, or of an owner. */
const WITHHELD = "(not shown)";

export function withhold(outcome: Outcome, identity: Identity): Outcome {
  if (outcome.kind === "refused") return withoutKnot(outcome, identity);
  if (outcome.kind !== "lock" || outcome.lock.waiters.every(({ blockedBy }) => isShown(blockedBy, identity))) {
    return outcome;
  }
  const waiters = outcome.lock.waiters.map((waiter) =>
    waiter.blockedBy === null || isShown(waiter.blockedBy, identity)
      ? waiter
      : { ...waiter, blockedBy: { ...waiter.blockedBy, lock: WITHHELD, owner: WITHHELD } },
  );
  return { ...outcome, lock: { ...outcome.lock, waiters } };
}

const isShown = (blocker: BlockerView | null, identity: Identity): boolean =>
  blocker === null || identity.sees(blocker.lock);

function withoutKnot(refusal: Refusal, identity: Identity): Refusal {
  const { knot } = refusal;
  const sees = (name: string) => identity.sees(name);
  if (knot === undefined || knot.every(({ waitsFor, holds }) => waitsFor.every(sees) && holds.every(sees)))
    return refusal;
  const shown = (name: string) => (sees(name) ? name : WITHHELD);
  const waits = knot.map((wait): KnotWait => {
    const [waitsFor, holds] = [wait.waitsFor.map(shown), wait.holds.map(shown)];
    const isKnown = [...waitsFor, ...holds].some((name) => name !== WITHHELD);
    return { ...wait, waitsFor, holds, owner: isKnown ? wait.owner : WITHHELD };
  });
  return { ...refusal, knot: waits, message: knotText(waits) };
}
