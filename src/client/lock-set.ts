/** Several locks that were taken together. */
import type { Duration } from "./duration.js";
import { invalid, type LeaseholdError } from "./errors.js";
import type { HeldLock } from "./held-lock.js";
import type { Lock, LockState } from "./lock.js";

/**
 * Locks that were granted together, all or none. Each can be released, transferred and downgraded by itself; as a set
 * they count as held while all of them are.
 *
 * @example
 * const set = await client.acquireAll(["accounts/1", "accounts/2"], { wait: "5s" });
 * try {
 *   await debit(set.get("accounts/1").token);
 *   await credit(set.get("accounts/2").token);
 * } finally {
 *   await set.release();
 * }
 */
export interface LockSet extends AsyncDisposable {
  /** In the order in which they were asked for. */
  readonly names: readonly string[];
  /** In the same order. */
  readonly locks: readonly Lock[];
  /** The lock of that name. Throws INVALID if it is not one of them. */
  get(name: string): Lock;
  /** Aborted when any of them is lost; its reason is the error of that lock. */
  readonly signal: AbortSignal;
  /** The worst of them: lost before released before in jeopardy; of those that are held the shortest remaining time. */
  readonly state: LockState;
  /** Throws LOST unless all of them are held, and for `forMs` milliseconds more if that is given. */
  assertHeld(options?: { readonly forMs?: Duration | undefined }): void;
  /** Releases all of them. Resolves true if this released every one. Never rejects. */
  release(): Promise<boolean>;
}

const RANK: Readonly<Record<LockState["is"], number>> = { lost: 3, released: 2, jeopardy: 1, held: 0 };

export class HeldSet implements LockSet {
  readonly locks: readonly HeldLock[];
  readonly names: readonly string[];
  #abort: AbortController | null = null;

  constructor(locks: readonly HeldLock[]) {
    this.locks = locks;
    this.names = locks.map((lock) => lock.name);
  }

  get(name: string): HeldLock {
    const lock = this.locks.find((one) => one.name === name);
    if (lock) return lock;
    throw invalid(`the lock ${JSON.stringify(name)} is not one of those that were taken together`);
  }

  get signal(): AbortSignal {
    const signals = this.locks.map((lock) => lock.signal); // reading them lets each notice a loss
    if (this.#abort === null) {
      const abort = new AbortController();
      this.#abort = abort;
      for (const signal of signals) {
        const onAbort = () => abort.abort(signal.reason);
        if (signal.aborted) onAbort();
        else signal.addEventListener("abort", onAbort, { once: true });
      }
    }
    return this.#abort.signal;
  }

  get state(): LockState {
    return this.locks.map((lock) => lock.state).reduce(worse);
  }

  assertHeld(options?: { readonly forMs?: Duration | undefined }): void {
    for (const lock of this.locks) lock.assertHeld(options);
  }

  async release(): Promise<boolean> {
    const released = await Promise.all(this.locks.map((lock) => lock.release()));
    return released.every((one) => one);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  get failed(): boolean {
    return this.locks.some((lock) => lock.failed);
  }

  /** Why it is not held as a whole. */
  error(): LeaseholdError {
    const lock = this.locks.find((one) => one.failed) ?? (this.locks[0] as HeldLock);
    return lock.error();
  }
}

function worse(a: LockState, b: LockState): LockState {
  if (RANK[a.is] !== RANK[b.is]) return RANK[a.is] > RANK[b.is] ? a : b;
  return "remainingMs" in a && "remainingMs" in b && b.remainingMs < a.remainingMs ? b : a;
}
