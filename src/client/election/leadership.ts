/** To be the leader: an exclusive lock, with a value for others to see. */
import type { Duration } from "../duration.js";
import type { Lock, LockEvents, LockGrant, LockState } from "../lock.js";

/**
 * A won election. It lasts until it is resigned, or lost like a lock: then `signal` is aborted and `token` throws.
 *
 * @example
 * const me = await client.campaign("billing", { value: "10.0.0.7:8080" });
 * try {
 *   await lead(me.token, me.signal);
 * } finally {
 *   await me.resign();
 * }
 */
export interface Leadership
  extends Pick<Lock, "name" | "grant" | "token" | "signal" | "state" | "assertHeld" | "on" | "progress">,
    AsyncDisposable {
  /**
   * Replaces the value that others see: text or bytes, at most 4 KiB. Rejects LOST, INVALID (too long), LIMIT,
   * OUTCOME_UNKNOWN.
   *
   * @example
   * await me.proclaim(JSON.stringify({ address, ready: true }));
   */
  proclaim(value: string | Uint8Array): Promise<void>;
  /**
   * Gives the leadership up. Resolves true if this call did, false if it was lost before. Never rejects; as `release` of
   * a lock.
   */
  resign(): Promise<boolean>;
}

export class Term implements Leadership {
  readonly #lock: Lock;
  /** Aborting it asks the leader to come to an end. */
  readonly #stop: AbortSignal | null;
  #signal: AbortSignal | null = null;

  constructor(lock: Lock, stop: AbortSignal | null) {
    this.#lock = lock;
    this.#stop = stop;
  }

  get name(): string {
    return this.#lock.name;
  }

  get grant(): LockGrant {
    return this.#lock.grant;
  }

  get token(): number {
    return this.#lock.token;
  }

  /** Reading the lock's lets it notice a loss that nobody has told of yet. */
  get signal(): AbortSignal {
    const { signal } = this.#lock;
    this.#signal ??= this.#stop ? AbortSignal.any([signal, this.#stop]) : signal;
    return this.#signal;
  }

  get state(): LockState {
    return this.#lock.state;
  }

  assertHeld(options?: { readonly forMs?: Duration | undefined }): void {
    this.#lock.assertHeld(options);
  }

  on<K extends keyof LockEvents>(event: K, f: (value: LockEvents[K]) => void): Disposable {
    return this.#lock.on(event, f);
  }

  progress(): void {
    this.#lock.progress();
  }

  proclaim(value: string | Uint8Array): Promise<void> {
    return this.#lock.setMetadata(value);
  }

  resign(): Promise<boolean> {
    return this.#lock.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.resign();
  }
}
