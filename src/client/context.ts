import { AsyncLocalStorage } from "node:async_hooks";

/** A `withLock` whose callback runs. */
interface Scope {
  readonly name: string;
  readonly outer: Scope | undefined;
  running: boolean;
}

/** Knows which locks the callbacks around the present code hold, so that waiting for one of them fails at once. */
export class LockContext {
  readonly #storage = new AsyncLocalStorage<Scope>();

  /** Whether the present code runs inside a `withLock` for this name that has not ended. */
  holds(name: string): boolean {
    for (let scope = this.#storage.getStore(); scope; scope = scope.outer) {
      if (scope.running && scope.name === name) return true;
    }
    return false;
  }

  async run<T>(name: string, f: () => Promise<T> | T): Promise<T> {
    const scope: Scope = { name, outer: this.#storage.getStore(), running: true };
    try {
      return await this.#storage.run(scope, f);
    } finally {
      scope.running = false; // what the callback left running may wait for the lock like anybody else
    }
  }
}
