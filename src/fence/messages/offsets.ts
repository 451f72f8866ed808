/**
 * Up to where a partition may be committed: behind the last message before which everything is dealt with.
 *
 * Messages are dealt with out of order, as one may be held back while those behind it, of other keys, are handled.
 * Kafka remembers one offset for a partition. Committed beyond a message that is held back, a restart would lose it:
 *
 *     offset 10 is held back, 11 and 12 are handled
 *     12 is committed, and the consumer restarts      <- 10 is never delivered again
 *
 * So the offset stays at 10, and after a restart 11 and 12 are delivered again, and dropped as duplicates.
 */
export class Offsets {
  /** Not dealt with; in the order in which they came, which is that of the partition. */
  readonly #open = new Set<bigint>();
  #last: bigint;
  #committed: bigint;

  /** `first`: the offset of the first message that came. */
  constructor(first: bigint) {
    this.#last = first - 1n;
    this.#committed = first;
  }

  take(offset: bigint): void {
    this.#open.add(offset);
    this.#last = offset;
  }

  settle(offset: bigint): void {
    this.#open.delete(offset);
  }

  /** What to commit now, the offset of the next message to be delivered; undefined: nothing new. */
  next(): bigint | undefined {
    const [oldest = this.#last + 1n] = this.#open;
    return oldest > this.#committed ? oldest : undefined;
  }

  committed(offset: bigint): void {
    if (offset > this.#committed) this.#committed = offset;
  }
}
