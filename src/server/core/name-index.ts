/** More keys than this split a chunk in two. */
const CHUNK_MAX = 512;

/**
 * An ordered set of strings (by UTF-16 code units): for listings in pages. Sorted chunks of at most 512 keys, found by
 * binary search: an insertion moves a few hundred pointers at most, and a page costs what it returns.
 */
export class NameIndex {
  readonly #chunks: string[][] = [];

  add(key: string): void {
    if (this.#chunks.length === 0) {
      this.#chunks.push([key]);
      return;
    }
    const chunkIndex = this.#chunkOf(key);
    const chunk = this.#chunks[chunkIndex] as string[];
    const index = lowerBound(chunk, key);
    if (chunk[index] === key) return;
    chunk.splice(index, 0, key);
    if (chunk.length > CHUNK_MAX) this.#chunks.splice(chunkIndex + 1, 0, chunk.splice(CHUNK_MAX / 2));
  }

  delete(key: string): void {
    if (this.#chunks.length === 0) return;
    const chunkIndex = this.#chunkOf(key);
    const chunk = this.#chunks[chunkIndex] as string[];
    const index = lowerBound(chunk, key);
    if (chunk[index] !== key) return;
    chunk.splice(index, 1);
    if (chunk.length === 0) this.#chunks.splice(chunkIndex, 1);
  }

  /** At most `limit` keys that are greater than `after` and start with `prefix`, in order. */
  page(prefix: string, after: string, limit: number): string[] {
    const found: string[] = [];
    if (this.#chunks.length === 0) return found;
    const from = after >= prefix ? after : prefix;
    let chunkIndex = this.#chunkOf(from);
    let index = lowerBound(this.#chunks[chunkIndex] as string[], from);
    for (; chunkIndex < this.#chunks.length; chunkIndex++, index = 0) {
      const chunk = this.#chunks[chunkIndex] as string[];
      for (; index < chunk.length; index++) {
        const key = chunk[index] as string;
        if (!key.startsWith(prefix)) return found;
        if (key > after || after === "") found.push(key);
        if (found.length >= limit) return found;
      }
    }
    return found;
  }

  /** The last chunk whose first key is not greater than `key`, or the first one. */
  #chunkOf(key: string): number {
    let low = 0;
    let high = this.#chunks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#chunks[middle]?.[0] as string) <= key) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** The index of the first key that is not less than `key`. */
function lowerBound(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((keys[middle] as string) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
