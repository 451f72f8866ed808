/** Something that becomes due. An item is in at most one `Deadlines`. */
export interface Timed {
  /** When it is due. Written by `Deadlines` only. */
  dueMs: number;
  /** Its place in the heap, -1 when it is in none. Written by `Deadlines` only. */
  heapIndex: number;
}

/** A binary heap of what becomes due, the earliest first, in which every item knows its place: all operations O(log n). */
export class Deadlines<T extends Timed> {
  readonly #heap: T[] = [];

  get size(): number {
    return this.#heap.length;
  }

  /** The earliest item, which stays. */
  peek(): T | undefined {
    return this.#heap[0];
  }

  /** Inserts the item, or moves it to another time. */
  set(item: T, dueMs: number): void {
    item.dueMs = dueMs;
    if (item.heapIndex < 0) {
      item.heapIndex = this.#heap.length;
      this.#heap.push(item);
      this.#up(item);
    } else {
      this.#up(item);
      this.#down(item);
    }
  }

  /** Takes the item out; does nothing if it is not in. */
  delete(item: T): void {
    const index = item.heapIndex;
    if (index < 0) return;
    item.heapIndex = -1;
    const last = this.#heap.pop() as T;
    if (last === item) return;
    last.heapIndex = index;
    this.#heap[index] = last;
    this.#up(last);
    this.#down(last);
  }

  #up(item: T): void {
    const heap = this.#heap;
    let index = item.heapIndex;
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = heap[parentIndex] as T;
      if (parent.dueMs <= item.dueMs) break;
      heap[index] = parent;
      parent.heapIndex = index;
      index = parentIndex;
    }
    heap[index] = item;
    item.heapIndex = index;
  }

  #down(item: T): void {
    const heap = this.#heap;
    let index = item.heapIndex;
    for (;;) {
      let childIndex = 2 * index + 1;
      if (childIndex >= heap.length) break;
      const right = heap[childIndex + 1];
      if (right !== undefined && right.dueMs < (heap[childIndex] as T).dueMs) childIndex++;
      const child = heap[childIndex] as T;
      if (child.dueMs >= item.dueMs) break;
      heap[index] = child;
      child.heapIndex = index;
      index = childIndex;
    }
    heap[index] = item;
    item.heapIndex = index;
  }
}
