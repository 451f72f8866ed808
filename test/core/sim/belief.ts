/** What clients believe to hold, and whether several of them can. */
import type { LockItem } from "../../../src/server/core/types.js";
import { fitsBeside } from "../model/compatible.js";
import { ensure } from "./violation.js";

/** A grant as its client knows it. */
export interface Belief {
  readonly name: string;
  readonly token: number;
  readonly mode: LockItem["mode"];
  readonly permits: number;
  readonly permitLimit: number;
  readonly slots: readonly number[];
}

/** Nobody believes to hold beside somebody who excludes it, and no two believe in the same slot. */
export function checkTogether(beliefs: readonly Belief[]): void {
  const byName = new Map<string, Belief[]>();
  for (const belief of beliefs) {
    const others = byName.get(belief.name) ?? [];
    byName.set(belief.name, [...others, belief]);
    const tokens = () => `${others.map(({ token }) => token).join(", ")} and ${belief.token}`;
    const together = fitsBeside(belief, others, Number.POSITIVE_INFINITY);
    ensure(together, () => `clients believe to hold ${belief.name} together, by ${tokens()}`);
    const taken = others.flatMap(({ slots }) => slots);
    const unique = !belief.slots.some((slot) => taken.includes(slot));
    ensure(unique, () => `clients believe to have the same slot of ${belief.name}, by ${tokens()}`);
    const asked = belief.mode === "semaphore" ? belief.permits : 0;
    ensure(belief.slots.length === asked, () => `${belief.slots.length} slots of ${belief.name} for ${asked} permits`);
  }
}
