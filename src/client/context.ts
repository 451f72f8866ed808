import { AsyncLocalStorage } from "node:async_hooks";
import type { HeldLock } from "./held-lock.js";

/** A callback that runs under locks. */
interface Scope {
  readonly locks: readonly HeldLock[];
  readonly outer: Scope | undefined;
  running: boolean;
}

const NONE: readonly HeldLock[] = [];

/**
 * Knows which locks the callbacks around the present code hold, and will hold until what it waits for has come: so that
 * waiting for one of them fails at once, and the server can tell a wait that would never end.
 */
export class LockContext {
  readonly #storage = new AsyncLocalStorage<Scope>();

  /** Whether the present code runs inside a callback that has not ended and that holds this lock alone. */
  excludes(name: string): boolean {
    for (const lock of this.#locks()) if (lock.name === name && lock.mode === "exclusive" && lock.held) return true;
    return false;
  }

  /** What the callbacks around hold, the innermost first, at most so many. */
  held(max: number): readonly HeldLock[] {
    if (this.#storage.getStore() === undefined) return NONE; // as most acquires are
    const held: HeldLock[] = [];
    for (const lock of this.#locks()) {
      if (held.length === max) break;
      if (lock.held) held.push(lock);
    }
    return held;
  }

  *#locks(): Generator<HeldLock> {
    for (let scope = this.#storage.getStore(); scope; scope = scope.outer) {
      if (scope.running) yield* scope.locks;
    }
  }

  async run<T>(locks: readonly HeldLock[], f: () => Promise<T> | T): Promise<T> {
    const scope: Scope = { locks, outer: this.#storage.getStore(), running: true };
    try {
      return await this.#storage.run(scope, f);
    } finally {
      scope.running = false; // what the callback left running may wait for the locks like anybody else
    }
  }
}
