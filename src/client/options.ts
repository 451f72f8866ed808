/** What users may choose, and what it means when they do not. */
import {
  checkFunction,
  checkKeys,
  checkMetadata,
  checkName,
  checkOwner,
  checkPositive,
  checkSignal,
} from "./arguments.js";
import type { LockContext } from "./context.js";
import { type Duration, durationMs, show } from "./duration.js";
import { invalid } from "./errors.js";
import { checkFence, type Fence } from "./floor.js";
import { HeldLock } from "./held-lock.js";
import { type Lease, UserLease } from "./lease.js";
import type { Lock } from "./lock.js";
import type { AcquireItem, AcquireRequest } from "./session/acquire-request.js";
import { type DefaultLease, GivenLease, type LeaseProvider, OwnLease } from "./session/lease-provider.js";
import type { Session } from "./session/session.js";
import type { Busy } from "./views.js";

/** Who is ahead of a waiting acquire. */
export type QueueView = Busy;

/** A share of something that there is a limited number of. */
export interface Permits {
  /** How many there are. If holders disagree, the smallest number counts. */
  readonly of: number;
  /** How many to take. Default 1. */
  readonly take?: number | undefined;
}

/** How a lock is to be held: at most one of the two. */
export interface ModeOptions {
  /** `shared`: together with all others who share it. Default `exclusive`: alone. */
  readonly mode?: "exclusive" | "shared" | undefined;
  /** Makes it a semaphore: together with others, as long as there are permits. */
  readonly permits?: Permits | undefined;
}

/** Options that do not concern the waiting. */
interface HoldOptions {
  /** Aborting it withdraws the acquire, which rejects with `signal.reason`. It has no effect on a lock that is held. */
  readonly signal?: AbortSignal | undefined;
  /** Hold through this lease of the client's, and end with it. Default: one lease that the client's locks share. */
  readonly lease?: Lease | undefined;
  /** Hold through a lease of its own, with this TTL, that ends with the lock. Not together with `lease`. */
  readonly ttl?: Duration | undefined;
  /** Who holds, for people: at most 256 bytes. Default: the client's, which is "hostname/pid". */
  readonly owner?: string | undefined;
  /** What holders and waiters may tell others: at most 4 KiB. */
  readonly metadata?: string | Uint8Array | undefined;
  /** The hold ends this long after the grant, however well the lease is renewed. Default: no maximum. */
  readonly maxHold?: Duration | undefined;
  /** Nobody gets the lock for this long after this hold has expired, or was taken away. Default 0. */
  readonly lockDelay?: Duration | undefined;
  /**
   * A storage whose floor is raised to the new token before this resolves or the callback runs, so that it refuses older
   * holders from the beginning: one of `@leasehold/fence`. If that fails, the lock is given back, and this rejects with the
   * fence's error.
   */
  readonly fence?: Fence | undefined;
}

/** Options of `tryAcquire` and `tryWithLock`. */
export interface TryOptions extends HoldOptions, ModeOptions {}

/** Options that concern the waiting. */
interface WaitOptions {
  /** How long to wait for the lock; 0 tries once. Default: the client's, which is 30 s. */
  readonly wait?: Duration | undefined;
  /** Called once if the lock is not free at first, with those who are ahead. */
  readonly onQueued?: ((queue: QueueView) => void) | undefined;
  /**
   * Locks of this client's that the caller keeps while it waits, so that the server can tell a wait that would never end,
   * and refuse it with DEADLOCK. Those of the `withLock` callbacks around count by themselves.
   */
  readonly holding?: readonly Lock[] | undefined;
}

/** Options of `acquire` and `withLock`. */
export interface AcquireOptions extends TryOptions, WaitOptions {}

/** Options of `acquireAll` and `withLocks`. */
export interface AcquireAllOptions extends HoldOptions, WaitOptions {}

/** One of several locks to take together: its name, to have it alone, or its name and how to hold it. */
export type LockSpec = string | ({ readonly name: string } & ModeOptions);

/** Options of `client.lease`. */
export interface LeaseOptions {
  /** How long it lives without a renewal. Default: the client's, which is 15 s. The server has limits for it. */
  readonly ttl?: Duration | undefined;
  /**
   * It is lost, renewed or not, when its holder has not called `progress()` for this long: a worker that lives but hangs
   * does not keep its locks. The server has limits for it. Default: never.
   */
  readonly progressEvery?: Duration | undefined;
  /** Whose it is, for people. Default: the client's. */
  readonly owner?: string | undefined;
}

const HOLD_OPTIONS = ["signal", "lease", "ttl", "owner", "metadata", "maxHold", "lockDelay", "fence"];
const MODE_OPTIONS = ["mode", "permits"];
const WAIT_OPTIONS = ["wait", "onQueued", "holding"];
const OPTIONS = {
  "the options of an acquire": [...HOLD_OPTIONS, ...MODE_OPTIONS, ...WAIT_OPTIONS],
  "the options of a try": [...HOLD_OPTIONS, ...MODE_OPTIONS],
  "the options of an acquireAll": [...HOLD_OPTIONS, ...WAIT_OPTIONS],
};

/** Locks of one `acquireAll`. */
const NAMES_MAX = 64;
/** Locks that an acquire tells the server of as kept. */
const HELD_MAX = 64;
const PERMITS_MAX = 2 ** 31 - 1;

/** A duration of more than nothing, in milliseconds. Throws INVALID. */
function positiveMs(duration: Duration, what: string): number {
  const ms = durationMs(duration, what);
  if (ms === 0) throw invalid(`${what} must be longer than 0`);
  return ms;
}

/** A TTL in milliseconds. Throws INVALID. */
export const ttlMs = (ttl: Duration): number => positiveMs(ttl, "the TTL");

/** What an acquire takes from its client. */
export interface Surroundings {
  readonly session: Session;
  readonly defaultLease: DefaultLease;
  readonly owner: string;
  readonly waitMs: number;
  readonly context: LockContext;
}

/** One lock. Throws INVALID. */
export function itemOf(name: string, options: ModeOptions): AcquireItem {
  checkName(name);
  const { mode = "exclusive", permits } = options;
  if (permits === undefined) {
    if (mode === "exclusive" || mode === "shared") return { name, mode, permits: 0, permitLimit: 0 };
    throw invalid(`the mode must be "exclusive" or "shared", not ${show(mode)}`);
  }
  if (options.mode !== undefined) throw invalid("give either a mode or permits, not both");
  checkKeys(permits, ["of", "take"], "the permits");
  const permitLimit = checkPositive(permits.of, "the number of permits", PERMITS_MAX);
  const taken = checkPositive(permits.take ?? 1, "the number of permits to take", permitLimit);
  return { name, mode: "semaphore", permits: taken, permitLimit };
}

/** The locks of an acquireAll. Throws INVALID. */
export function itemsOf(specs: readonly LockSpec[]): AcquireItem[] {
  if (!Array.isArray(specs)) throw invalid(`the names must be an array, not ${show(specs)}`);
  if (specs.length < 1 || specs.length > NAMES_MAX) {
    throw invalid(`1 to ${NAMES_MAX} locks can be taken together, not ${specs.length}`);
  }
  const items = (specs as readonly LockSpec[]).map((spec) => {
    if (typeof spec === "string") return itemOf(spec, {});
    checkKeys(spec, ["name", ...MODE_OPTIONS], "the locks to take");
    return itemOf(spec.name, spec);
  });
  const names = new Set<string>();
  for (const { name } of items) {
    if (names.has(name)) throw invalid(`the lock ${show(name)} is asked for twice`);
    names.add(name);
  }
  return items;
}

/** Checks an acquire of one lock. Throws INVALID. */
export function acquireRequest(
  name: string,
  options: AcquireOptions | undefined,
  around: Surroundings,
  isTry: boolean,
): AcquireRequest {
  const items = [itemOf(name, options ?? NO_OPTIONS)];
  return requestOf(items, false, options, isTry ? "the options of a try" : "the options of an acquire", around);
}

/** Checks an acquire of several locks. Throws INVALID. */
export function acquireAllRequest(
  specs: readonly LockSpec[],
  options: AcquireAllOptions | undefined,
  around: Surroundings,
): AcquireRequest {
  return requestOf(itemsOf(specs), true, options, "the options of an acquireAll", around);
}

const NO_OPTIONS: AcquireOptions = {};

function requestOf(
  items: readonly AcquireItem[],
  all: boolean,
  options: AcquireAllOptions = NO_OPTIONS,
  what: keyof typeof OPTIONS,
  around: Surroundings,
): AcquireRequest {
  if (options !== NO_OPTIONS) checkKeys(options, OPTIONS[what], what);
  const { wait, signal, owner, metadata, onQueued, holding, maxHold, lockDelay, fence } = options;
  if (fence !== undefined) checkFence(fence);
  if (onQueued !== undefined) checkFunction(onQueued, "onQueued");
  const checkedOwner = owner === undefined ? "" : checkOwner(owner);
  const waitMs = wait === undefined ? around.waitMs : durationMs(wait, "the wait");
  return {
    items,
    all,
    waitMs,
    owner: checkedOwner,
    metadata: metadata === undefined ? null : checkMetadata(metadata),
    signal: signal === undefined ? null : checkSignal(signal),
    maxHoldMs: maxHold === undefined ? 0 : positiveMs(maxHold, "the maximum hold"),
    lockDelayMs: lockDelay === undefined ? 0 : durationMs(lockDelay, "the lock delay"),
    holding: heldOf(holding, around),
    leases: leasesOf(options, checkedOwner, around),
  };
}

function leasesOf({ lease, ttl }: AcquireAllOptions, owner: string, around: Surroundings): LeaseProvider {
  if (lease !== undefined && ttl !== undefined) throw invalid("give either a lease or the TTL of a new one, not both");
  if (lease) return new GivenLease(leaseOf(lease, around.session));
  if (ttl === undefined) return around.defaultLease;
  return new OwnLease(around.session, ttlMs(ttl), owner || around.owner);
}

function leaseOf(lease: Lease, session: Session) {
  if (lease instanceof UserLease && lease.lease.session === session) return lease.lease;
  throw invalid("the lease must be one of this client's, made by client.lease()");
}

/** What the caller says that it keeps, then what the callbacks around hold. */
function heldOf(holding: readonly Lock[] | undefined, { session, context }: Surroundings): readonly HeldLock[] {
  if (holding === undefined) return context.held(HELD_MAX);
  if (!Array.isArray(holding)) throw invalid(`holding must be an array of locks, not ${show(holding)}`);
  if (holding.length > HELD_MAX)
    throw invalid(`holding has ${holding.length} locks; at most ${HELD_MAX} are permitted`);
  const held = new Set<HeldLock>();
  for (const lock of holding as readonly Lock[]) {
    if (!(lock instanceof HeldLock) || lock.lease.session !== session || !lock.held) {
      throw invalid("holding must list locks of this client's that are held");
    }
    held.add(lock);
  }
  for (const lock of context.held(HELD_MAX)) if (held.size < HELD_MAX) held.add(lock);
  return [...held];
}

/** Checks the options of a lease. Throws INVALID. */
export function leaseRequest(
  options: LeaseOptions = {},
  defaults: { readonly ttlMs: number; readonly owner: string },
): { ttlMs: number; owner: string; progressEveryMs: number } {
  checkKeys(options, ["ttl", "progressEvery", "owner"], "the options of a lease");
  const { ttl, progressEvery, owner } = options;
  return {
    ttlMs: ttl === undefined ? defaults.ttlMs : ttlMs(ttl),
    owner: owner === undefined ? defaults.owner : checkOwner(owner),
    progressEveryMs: progressEvery === undefined ? 0 : positiveMs(progressEvery, "progressEvery"),
  };
}
