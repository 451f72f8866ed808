/**
 * What a fence needs to know of a hold: which resource it is for, with which token, for how long, and whether it is alone.
 *
 * - One resource, one lock name. The resource is the name of the lock, and cannot be chosen otherwise: two locks that
 *   guard one resource prove nothing about each other.
 * - Holders of permits hold together; what only one of them has is its slot. So `name#slot` is the resource.
 * - Those who share a lock hold together, too, and the order of their tokens means nothing: the one with the lower token
 *   is not stale because another came later. They are checked against the floor, since a writer that came later has made
 *   them stale, and never raise it.
 */
import { FenceError, invalid, show } from "./errors.js";
import { checkKeys, checkResource, checkToken } from "./token.js";

/**
 * A lock as the fence kit needs it: a `Lock` or a `Leadership` of `@leasehold/client` is one. `token` throws when the lock is
 * not held any more.
 */
export interface FencedLock {
  readonly name: string;
  readonly token: number;
  /** Default: exclusive. */
  readonly mode?: "exclusive" | "shared" | "semaphore";
  readonly grant: { readonly slots?: readonly number[] };
  readonly state:
    | { readonly is: "held" | "jeopardy"; readonly remainingMs: number }
    | { readonly is: "lost" }
    | { readonly is: "released" };
  readonly signal: AbortSignal;
}

/**
 * A token that came from elsewhere: out of the environment of `leasehold run`, a header, or a message. Nothing tells
 * whether the lock is still held; the fence does.
 */
export interface Claim {
  /** The name of the lock. */
  readonly name: string;
  readonly token: number;
  /** Default: exclusive. */
  readonly mode?: "exclusive" | "shared" | undefined;
  /** The permit of a semaphore that is held. */
  readonly slot?: number | undefined;
  /** For how many milliseconds from now on it is held, if that is known. It limits what a transaction may wait for. */
  readonly remainingMs?: number | undefined;
}

/** Whatever writes under a token. */
export type Fenced = FencedLock | Claim | Hold;

/** A hold of one resource. Made by `holdOf` and `slotOf`. */
export class Hold {
  /** What is fenced. */
  readonly resource: string;
  /** The name of the lock. */
  readonly name: string;
  /** Whether it may raise the floor: it is the only holder of this resource. */
  readonly raises: boolean;
  readonly #lock: FencedLock | null;
  readonly #token: number;
  readonly #untilMs: number;

  /** Use `holdOf` or `slotOf`. */
  constructor(lock: FencedLock | Claim, slot: number | undefined) {
    this.name = checkResource(lock.name);
    this.resource = slot === undefined ? this.name : checkResource(`${this.name}#${slot}`);
    this.raises = lock.mode !== "shared";
    this.#lock = isLock(lock) ? lock : null;
    this.#token = checkToken(lock.token); // throws LOST when it is a lock that is lost
    const remainingMs = isLock(lock) ? undefined : lock.remainingMs;
    this.#untilMs = remainingMs === undefined ? Number.POSITIVE_INFINITY : performance.now() + remainingMs;
  }

  /** The fencing token. Throws LOST when the lock is not held any more, as far as that is known. */
  get token(): number {
    if (this.#lock) return checkToken(this.#lock.token);
    if (this.remainingMs() > 0) return this.#token;
    const message = `the time of the hold of ${JSON.stringify(this.resource)} with the token ${this.#token} is over`;
    throw new FenceError("LOST", message, { resource: this.resource, token: this.#token });
  }

  /** For how many milliseconds more it is held as things stand. Infinity: nobody has said. */
  remainingMs(): number {
    if (this.#lock === null) return Math.max(0, this.#untilMs - performance.now());
    const { state } = this.#lock;
    return "remainingMs" in state ? state.remainingMs : 0;
  }

  /** Aborted when the lock is lost, where that is told. */
  get signal(): AbortSignal | undefined {
    return this.#lock?.signal;
  }
}

const isLock = (lock: FencedLock | Claim): lock is FencedLock => "grant" in lock;
const CLAIM_KEYS = ["name", "token", "mode", "slot", "remainingMs"];

/**
 * The hold of the one resource that a lock stands for. Throws INVALID for bad tokens and names, and for a semaphore with
 * several permits, whose slots are several resources: choose one by `slotOf`. Throws LOST when the lock is not held.
 */
export function holdOf(lock: Fenced): Hold {
  if (lock instanceof Hold) return lock;
  checkFenced(lock);
  if (!isLock(lock)) return new Hold(lock, lock.slot);
  if (lock.mode !== "semaphore") return new Hold(lock, undefined);
  const slots = lock.grant.slots ?? [];
  if (slots.length === 1) return new Hold(lock, slots[0]);
  const which = `the slots ${slots.join(", ")} of ${JSON.stringify(lock.name)}`;
  throw invalid(
    `the lock has several permits, and each is a resource of its own: choose one of ${which} with slotOf()`,
  );
}

/**
 * The hold of one permit of a semaphore. Throws INVALID when the lock has no such slot.
 *
 * @example
 * const lock = await client.acquire("scratch", { permits: { of: 8, take: 2 } });
 * for (const slot of lock.grant.slots) await fence.tx(slotOf(lock, slot), (tx) => clear(tx, slot));
 */
export function slotOf(lock: FencedLock, slot: number): Hold {
  checkFenced(lock);
  if (isLock(lock) && lock.mode === "semaphore" && lock.grant.slots?.includes(slot)) return new Hold(lock, slot);
  throw invalid(`the lock ${show(lock.name)} has no slot ${show(slot)}`);
}

/** The holds of all resources that a lock stands for: one, or one for each permit. */
export function holdsOf(lock: Fenced): readonly Hold[] {
  if (lock instanceof Hold) return [lock];
  checkFenced(lock);
  if (!isLock(lock) || lock.mode !== "semaphore") return [holdOf(lock)];
  return (lock.grant.slots ?? []).map((slot) => new Hold(lock, slot));
}

/** Throws INVALID unless it is a lock or a claim. */
function checkFenced(lock: FencedLock | Claim): void {
  if (typeof lock !== "object" || lock === null) throw invalid(`a lock is needed, not ${show(lock)}`);
  if (isLock(lock)) return;
  checkKeys(lock, CLAIM_KEYS, "the properties of a claim");
  const { mode = "exclusive", slot, remainingMs } = lock;
  if (mode !== "exclusive" && mode !== "shared")
    throw invalid(`the mode must be exclusive or shared, not ${show(mode)}`);
  if (slot !== undefined && (!Number.isSafeInteger(slot) || slot < 0 || slot >= 2 ** 31)) {
    throw invalid(`a slot must be a whole number from 0 to 2^31 - 1, not ${show(slot)}`);
  }
  if (slot !== undefined && mode === "shared") throw invalid("a permit is not shared: give either a slot or that mode");
  if (remainingMs !== undefined && !(typeof remainingMs === "number" && remainingMs >= 0)) {
    throw invalid(`remainingMs must be a number of milliseconds, not ${show(remainingMs)}`);
  }
}

/**
 * The claim of a program that was started by `leasehold run`: it has the name and the token in its environment. (Its
 * guardian ends it before the lock can be somebody else's.) Throws INVALID when they are not there.
 *
 * @example
 * await fence.tx(claimFromEnvironment(), (tx) => tx.query("update ..."));
 */
export function claimFromEnvironment(environment: Readonly<Record<string, string | undefined>> = process.env): Claim {
  const { LEASEHOLD_LOCK: name, LEASEHOLD_TOKEN: digits } = environment;
  if (name === undefined || digits === undefined || !/^\d{1,16}$/.test(digits)) {
    throw invalid("LEASEHOLD_LOCK and LEASEHOLD_TOKEN are not set as `leasehold run` sets them");
  }
  return { name: checkResource(name), token: checkToken(Number(digits)) };
}
