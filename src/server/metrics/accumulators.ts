/**
 * Counting on the hot path: plain arrays, no label lookup, no allocation. prom-client sees the numbers at the scrape.
 */

/** A histogram over fixed bounds. `observe` costs some nanoseconds. */
export class Accumulator {
  /** Upper bounds, inclusive, rising. */
  readonly bounds: Float64Array;
  /** How many values fell into each bucket, not cumulated; the last is above all bounds. */
  readonly counts: Float64Array;
  sum = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = Float64Array.from(bounds);
    this.counts = new Float64Array(bounds.length + 1);
  }

  /** Values below zero count as zero (a clock that was read in the wrong order), NaN is dropped. */
  observe(value: number): void {
    if (!(value > 0)) {
      if (value <= 0) this.counts[0]!++;
      return;
    }
    const { bounds } = this;
    let low = 0;
    let high = bounds.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (value <= bounds[middle]!) high = middle;
      else low = middle + 1;
    }
    this.counts[low]!++;
    this.sum += value;
  }

  /** The sum of two with the same bounds. */
  plus(other: Accumulator): Accumulator {
    const total = new Accumulator([...this.bounds]);
    for (let i = 0; i < total.counts.length; i++) total.counts[i] = this.counts[i]! + other.counts[i]!;
    total.sum = this.sum + other.sum;
    return total;
  }

  get count(): number {
    let count = 0;
    for (const n of this.counts) count += n;
    return count;
  }
}

export class Count {
  value = 0;
}

/** One cell for each of a fixed set of label values. */
export type Cells<K extends string, Cell> = Readonly<Record<K, Cell>>;

export function cells<K extends string, Cell>(keys: readonly K[], make: () => Cell): Cells<K, Cell> {
  return Object.fromEntries(keys.map((key) => [key, make()])) as Record<K, Cell>;
}
