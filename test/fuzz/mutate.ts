/** Random and mutated bytes, the same for the same seed. */

/** Numbers from 0 up to 1, by mulberry32. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class Mutator {
  constructor(readonly random: () => number) {}

  below(n: number): number {
    return Math.floor(this.random() * n);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  bytes(lengthMax: number): Buffer {
    return Buffer.from(Array.from({ length: this.below(lengthMax + 1) }, () => this.below(256)));
  }

  /** Up to four changes of the sort that break parsers: bits, cuts, repetitions, extreme numbers, a piece of another. */
  mutate(bytes: Buffer, others: readonly Buffer[]): Buffer {
    let mutated = Buffer.from(bytes);
    for (let changes = 1 + this.below(4); changes > 0; changes--) mutated = this.#change(mutated, others);
    return mutated;
  }

  #change(bytes: Buffer, others: readonly Buffer[]): Buffer<ArrayBuffer> {
    const at = this.below(bytes.length + 1);
    const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
    switch (this.below(7)) {
      case 0: {
        const flipped = Buffer.from(bytes);
        if (at < flipped.length) flipped[at] = (flipped[at] as number) ^ (1 << this.below(8));
        return flipped;
      }
      case 1:
        return Buffer.concat([before]);
      case 2:
        return Buffer.concat([before, this.bytes(8), after]);
      case 3:
        return Buffer.concat([before, after.subarray(1 + this.below(4))]);
      case 4:
        return Buffer.concat([before, after.subarray(0, this.below(16)), after]);
      case 5:
        return Buffer.concat([before, this.pick(EXTREMES), after]);
      default: {
        const other = this.pick(others);
        return Buffer.concat([before, other.subarray(this.below(other.length + 1))]);
      }
    }
  }
}

/** Varints of 2^32 - 1, 2^53, 2^63, 2^64 - 1, one without an end, lengths that reach beyond everything, no text. */
const EXTREMES = [
  [0xff, 0xff, 0xff, 0xff, 0x0f],
  [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10],
  [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
  [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
  [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
  [0x0a, 0xff, 0xff, 0xff, 0x7f],
  [0xed, 0xa0, 0x80],
  [0x00],
].map((bytes) => Buffer.from(bytes));
