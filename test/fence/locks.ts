/** Locks for fences, without a server: as the client's look to them. */
import type { FencedLock } from "@leasehold/fence";

/** An exclusive or shared lock, or one with permits. It can be lost by `lose`. */
export class TestLock implements FencedLock {
  readonly #abort = new AbortController();
  #untilMs: number;

  constructor(
    readonly name: string,
    private readonly number: number,
    readonly mode: "exclusive" | "shared" | "semaphore" = "exclusive",
    private readonly slots: readonly number[] = [],
    remainingMs = 60_000,
  ) {
    this.#untilMs = performance.now() + remainingMs;
  }

  get #remainingMs(): number {
    return Math.max(0, this.#untilMs - performance.now());
  }

  get token(): number {
    if (this.#remainingMs > 0) return this.number;
    throw Object.assign(new Error("the lock is lost"), { code: "LOST" });
  }

  get grant() {
    return { token: this.number, timestamp: 1, leaseId: "lease", slots: this.slots };
  }

  get state() {
    const remainingMs = this.#remainingMs;
    return remainingMs > 0 ? { is: "held" as const, remainingMs } : { is: "lost" as const };
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  lose(): void {
    this.#untilMs = 0;
    this.#abort.abort(new Error("lost"));
  }
}

export const exclusive = (name: string, token: number): TestLock => new TestLock(name, token);
export const shared = (name: string, token: number): TestLock => new TestLock(name, token, "shared");
export const permits = (name: string, token: number, ...slots: number[]): TestLock =>
  new TestLock(name, token, "semaphore", slots);
