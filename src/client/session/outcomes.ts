/** Where the answer to an acquire goes. */
import type { LeaseholdError } from "../errors.js";
import type { HeldLock } from "../held-lock.js";
import type { Busy } from "../views.js";
import type { AcquireOutcome } from "./acquisition.js";

export type TryAnswer =
  | { readonly acquired: true; readonly lock: HeldLock }
  | { readonly acquired: false; readonly busy: Busy };

type Resolve<T> = (value: T) => void;
type Reject = (error: unknown) => void;

/** Answers `acquire` and `acquireAll`. */
export class LockOutcome<T> implements AcquireOutcome {
  settled = false;
  readonly #view: (locks: HeldLock[]) => T;
  readonly #resolve: Resolve<T>;
  readonly #reject: Reject;

  /** `view`: what the caller gets for the locks. */
  constructor(view: (locks: HeldLock[]) => T, resolve: Resolve<T>, reject: Reject) {
    this.#view = view;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  granted(locks: HeldLock[]): void {
    this.settled = true;
    this.#resolve(this.#view(locks));
  }

  busy(_busy: Busy, error: () => LeaseholdError): void {
    this.failed(error());
  }

  failed(error: unknown): void {
    this.settled = true;
    this.#reject(error);
  }
}

/** Answers `tryAcquire`. */
export class TryOutcome implements AcquireOutcome {
  readonly #resolve: Resolve<TryAnswer>;
  readonly #reject: Reject;

  constructor(resolve: Resolve<TryAnswer>, reject: Reject) {
    this.#resolve = resolve;
    this.#reject = reject;
  }

  granted([lock]: HeldLock[]): void {
    this.#resolve({ acquired: true, lock: lock as HeldLock });
  }

  busy(busy: Busy): void {
    this.#resolve({ acquired: false, busy });
  }

  failed(error: unknown): void {
    this.#reject(error);
  }
}
