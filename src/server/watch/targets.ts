/** What is watched: a lock, or all locks whose name begins with a prefix. */
export type WatchTarget =
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "prefix"; readonly prefix: string };

export function covers(target: WatchTarget, name: string): boolean {
  return target.kind === "name" ? name === target.name : name.startsWith(target.prefix);
}

/**
 * Who watches a name. One look-up for the name itself and one for each different length of a watched prefix, however
 * many watchers there are.
 */
export class TargetIndex<W extends { readonly target: WatchTarget }> {
  readonly #byName = new Map<string, Set<W>>();
  readonly #byPrefix = new Map<string, Set<W>>();
  /** How many different prefixes have this length. */
  readonly #prefixLengths = new Map<number, number>();

  add(watcher: W): void {
    const { target } = watcher;
    if (target.kind === "name") insert(this.#byName, target.name, watcher);
    else if (insert(this.#byPrefix, target.prefix, watcher)) this.#count(target.prefix.length, 1);
  }

  delete(watcher: W): void {
    const { target } = watcher;
    if (target.kind === "name") remove(this.#byName, target.name, watcher);
    else if (remove(this.#byPrefix, target.prefix, watcher)) this.#count(target.prefix.length, -1);
  }

  /** Shows all who watch this name. They may be deleted meanwhile. */
  each(name: string, see: (watcher: W) => void): void {
    const exact = this.#byName.size === 0 ? undefined : this.#byName.get(name);
    if (exact !== undefined) for (const watcher of exact) see(watcher);
    for (const length of this.#prefixLengths.keys()) {
      if (length > name.length) continue;
      const watchers = this.#byPrefix.get(name.slice(0, length));
      if (watchers !== undefined) for (const watcher of watchers) see(watcher);
    }
  }

  #count(length: number, by: number): void {
    const count = (this.#prefixLengths.get(length) ?? 0) + by;
    if (count === 0) this.#prefixLengths.delete(length);
    else this.#prefixLengths.set(length, count);
  }
}

/** Returns whether the key is new. */
function insert<W>(map: Map<string, Set<W>>, key: string, watcher: W): boolean {
  const watchers = map.get(key);
  if (watchers === undefined) map.set(key, new Set([watcher]));
  else watchers.add(watcher);
  return watchers === undefined;
}

/** Returns whether the key is gone. */
function remove<W>(map: Map<string, Set<W>>, key: string, watcher: W): boolean {
  const watchers = map.get(key);
  if (!watchers?.delete(watcher) || watchers.size > 0) return false;
  return map.delete(key);
}
