/** What several holds of one lock take together, and whether that may be. Every rule about holds asks this. */
import type { Hold } from "./history.js";

export interface Load {
  readonly exclusive: number;
  readonly shared: number;
  /** Holds of permits. */
  readonly semaphore: number;
  readonly permits: number;
  /** The smallest limit that any of them declared. */
  readonly limit: number;
}

/** All shared, or all permits within the smallest limit, or only one. */
export function mayBe({ exclusive, shared, semaphore, permits, limit }: Load): boolean {
  if (exclusive + shared + semaphore <= 1) return true;
  return exclusive === 0 && (shared === 0 || semaphore === 0) && permits <= limit;
}

export function loadOf(hold: Hold, asShared = false): Load {
  const { mode } = hold;
  const permits = mode === "semaphore";
  return {
    exclusive: mode === "exclusive" && !asShared ? 1 : 0,
    shared: mode === "shared" || asShared ? 1 : 0,
    semaphore: permits ? 1 : 0,
    permits: permits ? hold.permits : 0,
    limit: permits ? hold.limit : Number.POSITIVE_INFINITY,
  };
}

export function sum(a: Load, b: Load): Load {
  return {
    exclusive: a.exclusive + b.exclusive,
    shared: a.shared + b.shared,
    semaphore: a.semaphore + b.semaphore,
    permits: a.permits + b.permits,
    limit: Math.min(a.limit, b.limit),
  };
}

/** Until when a hold is known to have been exclusive, if it was. */
const exclusiveUntilNs = (hold: Hold): number => Math.min(hold.seenNs, hold.sharedFromNs);

/**
 * Holds by the moment until which they are known to have lasted, to which holds are only ever added: a Fenwick tree over
 * the moments, latest first, so that "all that lasted beyond t" is a sum of a few of its nodes.
 */
export class Lasting {
  readonly #moments: Float64Array;
  readonly #exclusive: Int32Array;
  readonly #shared: Int32Array;
  readonly #semaphore: Int32Array;
  readonly #permits: Float64Array;
  readonly #limit: Float64Array;

  /** For these holds. */
  constructor(holds: readonly Hold[]) {
    const moments = new Set<number>();
    for (const hold of holds) moments.add(hold.seenNs).add(exclusiveUntilNs(hold));
    this.#moments = Float64Array.from(moments).sort();
    const size = this.#moments.length + 1;
    this.#exclusive = new Int32Array(size);
    this.#shared = new Int32Array(size);
    this.#semaphore = new Int32Array(size);
    this.#permits = new Float64Array(size);
    this.#limit = new Float64Array(size).fill(Number.POSITIVE_INFINITY);
  }

  add(hold: Hold): void {
    if (hold.mode !== "exclusive" || hold.sharedFromNs >= hold.seenNs) {
      this.#add(hold.seenNs, loadOf(hold), 1);
      return;
    }
    // A downgraded one: exclusive up to the downgrade, and shared for the rest.
    this.#add(hold.sharedFromNs, loadOf(hold), 1);
    this.#add(hold.seenNs, loadOf(hold, true), 1);
    this.#add(hold.sharedFromNs, loadOf(hold, true), -1);
  }

  #add(untilNs: number, load: Load, times: number): void {
    for (let i = this.#place(untilNs, true); i < this.#limit.length; i += i & -i) {
      this.#exclusive[i]! += times * load.exclusive;
      this.#shared[i]! += times * load.shared;
      this.#semaphore[i]! += times * load.semaphore;
      this.#permits[i]! += times * load.permits;
      this.#limit[i] = Math.min(this.#limit[i]!, load.limit);
    }
  }

  /** What those take that lasted beyond this moment. */
  beyond(ns: number): Load {
    let [exclusive, shared, semaphore, permits, limit] = [0, 0, 0, 0, Number.POSITIVE_INFINITY];
    for (let i = this.#place(ns, false); i > 0; i -= i & -i) {
      exclusive += this.#exclusive[i]!;
      shared += this.#shared[i]!;
      semaphore += this.#semaphore[i]!;
      permits += this.#permits[i]!;
      limit = Math.min(limit, this.#limit[i]!);
    }
    return { exclusive, shared, semaphore, permits, limit };
  }

  /** How many moments are later than this one, or, `inclusive`, not earlier. */
  #place(ns: number, inclusive: boolean): number {
    let low = 0;
    let high = this.#moments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const moment = this.#moments[middle]!;
      if (moment < ns || (!inclusive && moment === ns)) low = middle + 1;
      else high = middle;
    }
    return this.#moments.length - low;
  }
}

/** Those of `others` that `hold` cannot be beside: one by one, or else all together. */
export function inTheWay(hold: Hold, others: readonly Hold[]): Hold[] {
  const alone = loadOf(hold);
  const single = others.filter((other) => !mayBe(sum(alone, loadOf(other, isShared(other)))));
  return single.length > 0 ? single : [...others];
}

const isShared = (hold: Hold): boolean => hold.mode === "exclusive" && hold.sharedFromNs <= hold.seenNs;
