/** Reproducible random integers below 2^32 (mulberry32). */
export function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** The seed of a random test: `LEASEHOLD_SEED`, or a new one. Print it with whatever fails. */
export function seedFromEnvironment(): number {
  const given = process.env.LEASEHOLD_SEED;
  return given === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(given);
}
