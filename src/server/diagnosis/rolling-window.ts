/**
 * Quantiles of the last five minutes in bounded memory: a ring of histograms, one for each ten seconds. What is older
 * leaves with its histogram. So the window is between 290 and 300 seconds long, and its size does not depend on how
 * much was measured.
 *
 * A quantile is the upper bound of its bucket, but never more than the largest value: at most a fifth too high.
 */

const SLOT_MS = 10_000;
const SLOTS = 30;
/** From 0.05 ms, by a fifth each: 80 bounds reach 90 seconds. */
const BOUNDS = Float64Array.from({ length: 80 }, (_, i) => 0.05 * 1.2 ** i);
const BUCKETS = BOUNDS.length + 1;
const LOG_STEP = Math.log(1.2);

/** In milliseconds. */
export interface Quantiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export class RollingWindow {
  readonly #counts = new Float64Array(SLOTS * BUCKETS);
  readonly #maxima = new Float64Array(SLOTS);
  /** Which ten seconds each slot belongs to. */
  readonly #periods = new Float64Array(SLOTS).fill(-1);

  /** `nowMs` is of a clock that does not go back. Values below zero count as zero. */
  observe(valueMs: number, nowMs: number): void {
    const period = Math.floor(nowMs / SLOT_MS);
    const slot = period % SLOTS;
    if (this.#periods[slot] !== period) this.#clear(slot, period);
    this.#counts[slot * BUCKETS + bucketOf(valueMs)]!++;
    if (valueMs > this.#maxima[slot]!) this.#maxima[slot] = valueMs;
  }

  /** All zero when nothing was measured. */
  quantiles(nowMs: number): Quantiles {
    const oldest = Math.floor(nowMs / SLOT_MS) - SLOTS;
    const counts = new Float64Array(BUCKETS);
    let total = 0;
    let max = 0;
    for (let slot = 0; slot < SLOTS; slot++) {
      if (this.#periods[slot]! <= oldest) continue;
      max = Math.max(max, this.#maxima[slot]!);
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        const count = this.#counts[slot * BUCKETS + bucket]!;
        counts[bucket]! += count;
        total += count;
      }
    }
    const at = (share: number) => Math.min(max, valueAt(counts, total * share));
    return { p50: at(0.5), p99: at(0.99), max };
  }

  #clear(slot: number, period: number): void {
    this.#periods[slot] = period;
    this.#maxima[slot] = 0;
    this.#counts.fill(0, slot * BUCKETS, (slot + 1) * BUCKETS);
  }
}

function bucketOf(valueMs: number): number {
  if (!(valueMs > BOUNDS[0]!)) return 0;
  return Math.min(BOUNDS.length, Math.ceil(Math.log(valueMs / BOUNDS[0]!) / LOG_STEP - 1e-9));
}

/** The bound below which `rank` values are. */
function valueAt(counts: Float64Array, rank: number): number {
  let below = 0;
  for (let bucket = 0; bucket < BOUNDS.length; bucket++) {
    below += counts[bucket]!;
    if (below >= rank) return BOUNDS[bucket]!;
  }
  return Number.POSITIVE_INFINITY;
}
