/** Listeners of one object, by event. A listener that throws does not disturb the others: the process hears of it. */
export class Emitter<Events extends { [K in keyof Events]: unknown }> {
  readonly #listeners = new Map<keyof Events, Set<(event: never) => void>>();

  /** Calls `f` at every such event until it is disposed of. */
  on<K extends keyof Events>(name: K, f: (event: Events[K]) => void): Disposable {
    // A wrapper, so that the same function may listen twice.
    const listener = (event: Events[K]) => f(event);
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set);
    set.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.get(name)?.delete(listener) };
  }

  /** Returns whether anybody listens. They are called in a microtask, never in the middle of what goes on here. */
  emit<K extends keyof Events>(name: K, event: Events[K]): boolean {
    const set = this.#listeners.get(name);
    if (!set?.size) return false;
    for (const listener of set) queueMicrotask(() => (listener as (event: Events[K]) => void)(event));
    return true;
  }
}
