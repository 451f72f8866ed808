/**
 * Raising a storage's floor at the grant, before the holder's first step.
 *
 *     holder 1 (token 33) reads 41 and stalls; its lease ends
 *     holder 2 (token 34) is granted the lock, reads 41
 *     holder 1 wakes and writes 42      <- the storage has not seen 34 yet
 *     holder 2 writes 42                <- one of the two updates is lost
 *
 * With the floor at 34 before holder 2 reads, holder 1 is refused from then on, and what it wrote before is read. The hold
 * is looked at again afterwards: the raise may have taken longer than the hold.
 */
import { invalid } from "./errors.js";
import type { HeldLock } from "./held-lock.js";
import type { Lock } from "./lock.js";
import type { HeldSet } from "./lock-set.js";

/** A storage that refuses lower tokens, as far as the client knows it. Every fence of `@leasehold/fence` is one. */
export interface Fence {
  /**
   * Raises the floor of what the lock stands for to the lock's token. Rejects when the storage has seen a higher one, or
   * does not answer.
   */
  raise(lock: Lock): Promise<unknown>;
}

/** Throws INVALID. */
export function checkFence(fence: Fence): void {
  if (typeof fence === "object" && fence !== null && typeof fence.raise === "function") return;
  throw invalid("the fence must be an object with a method raise(lock), such as those of @leasehold/fence");
}

/**
 * Resolves with what was acquired once the floors of all of its locks are raised. If that fails, or the lock is lost or the
 * signal aborted meanwhile, everything is given back first.
 */
export async function withFloors<H extends HeldLock | HeldSet>(
  held: H,
  locks: readonly HeldLock[],
  fence: Fence,
  signal: AbortSignal | undefined,
): Promise<H> {
  try {
    await unlessAborted(Promise.all(locks.map(async (lock) => fence.raise(lock))), held.signal, signal);
    held.assertHeld();
    return held;
  } catch (error) {
    const loss = held.failed ? held.error() : undefined;
    // A raise that is still on its way harms nobody: it cannot lower what a later holder has raised.
    await held.release();
    throw loss ?? error;
  }
}

/** Without `AbortSignal.any`, which leaves something behind at a long-lived signal with each call. */
function unlessAborted(work: Promise<unknown>, ...signals: (AbortSignal | undefined)[]): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const onAbort = (event: Event) => reject((event.target as AbortSignal).reason);
    for (const signal of signals) {
      if (signal?.aborted) reject(signal.reason);
      signal?.addEventListener("abort", onAbort, { once: true });
    }
    const done = () => {
      for (const signal of signals) signal?.removeEventListener("abort", onAbort);
    };
    work.then(resolve, reject).finally(done);
  });
}
