/**
 * When things have happened, for people: which Lamport timestamps belong to which time of day.
 *
 * Events carry no time of day, and nothing decides by one. For a picture of a lock's history this keeps, for each slice of
 * time in which something was told, up to which timestamp that went. A ring: the oldest slices are forgotten.
 */

/** What is told within this time counts as having happened at once. */
const SLICE_MS = 50;
/** A busy server fills one slice after another; these are more than the ten minutes of the history. */
const SLICES_MAX = 16_384;

export class WallTimes {
  readonly #beginMs = new Float64Array(SLICES_MAX);
  readonly #lastTimestamp = new Float64Array(SLICES_MAX);
  /** The slice number n is at n modulo the bound. */
  #end = 0;

  constructor(private readonly wallMs: () => number) {}

  /** Everything up to this timestamp has been told. */
  told(timestamp: number): void {
    const nowMs = this.wallMs();
    const last = (this.#end - 1) % SLICES_MAX;
    const age = this.#end === 0 ? Number.POSITIVE_INFINITY : nowMs - (this.#beginMs[last] as number);
    if (age >= 0 && age < SLICE_MS) {
      this.#lastTimestamp[last] = timestamp;
      return;
    }
    this.#beginMs[this.#end % SLICES_MAX] = nowMs;
    this.#lastTimestamp[this.#end % SLICES_MAX] = timestamp;
    this.#end++;
  }

  /** In ms since 1970; 0: it is not known. */
  of(timestamp: number): number {
    const first = Math.max(0, this.#end - SLICES_MAX);
    let low = first;
    let high = this.#end;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if ((this.#lastTimestamp[middle % SLICES_MAX] as number) < timestamp) low = middle + 1;
      else high = middle;
    }
    // What belongs to the oldest slice may be older than it, once others were forgotten.
    if (low === this.#end || (low === first && first > 0)) return 0;
    return this.#beginMs[low % SLICES_MAX] as number;
  }
}
