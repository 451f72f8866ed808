/** What users may choose, and what it means when they do not. */
import { checkFunction, checkKeys, checkMetadata, checkName, checkOwner, checkSignal } from "./arguments.js";
import { type Duration, durationMs } from "./duration.js";
import { invalid } from "./errors.js";
import { type Lease, UserLease } from "./lease.js";
import type { AcquireRequest } from "./session/acquisition.js";
import { type DefaultLease, GivenLease, OwnLease } from "./session/lease-provider.js";
import type { Session } from "./session/session.js";
import type { Busy } from "./views.js";

/** Who is ahead of a waiting acquire. */
export type QueueView = Busy;

/** Options of `tryAcquire` and `tryWithLock`. */
export interface TryOptions {
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
}

/** Options of `acquire` and `withLock`. */
export interface AcquireOptions extends TryOptions {
  /** How long to wait for the lock; 0 tries once. Default: the client's, which is 30 s. */
  readonly wait?: Duration | undefined;
  /** Called once if the lock is not free at first, with those who are ahead. */
  readonly onQueued?: ((queue: QueueView) => void) | undefined;
}

/** Options of `client.lease`. */
export interface LeaseOptions {
  /** How long it lives without a renewal. Default: the client's, which is 15 s. The server has limits for it. */
  readonly ttl?: Duration | undefined;
  /** Whose it is, for people. Default: the client's. */
  readonly owner?: string | undefined;
}

const ACQUIRE_OPTIONS = ["wait", "signal", "lease", "ttl", "owner", "metadata", "onQueued"];

/** A TTL in milliseconds. Throws INVALID. */
export function ttlMs(ttl: Duration): number {
  const ms = durationMs(ttl, "the TTL");
  if (ms === 0) throw invalid("the TTL must be longer than 0");
  return ms;
}

/** Checks the options of an acquire. Throws INVALID. */
export function acquireRequest(
  name: string,
  options: AcquireOptions | undefined,
  waitMs: number,
  session: Session,
  defaultLease: DefaultLease,
  defaultOwner: string,
): AcquireRequest {
  checkName(name);
  if (options === undefined) {
    return { name, waitMs, leases: defaultLease, owner: "", metadata: null, signal: null };
  }
  checkKeys(options, ACQUIRE_OPTIONS, "the options of an acquire");
  const { wait, signal, lease, ttl, owner, metadata, onQueued } = options;
  if (onQueued !== undefined) checkFunction(onQueued, "onQueued");
  if (lease !== undefined && ttl !== undefined) throw invalid("give either a lease or the TTL of a new one, not both");
  const checkedOwner = owner === undefined ? "" : checkOwner(owner);
  const leases = lease
    ? new GivenLease(leaseOf(lease, session))
    : ttl === undefined
      ? defaultLease
      : new OwnLease(session, ttlMs(ttl), checkedOwner || defaultOwner);
  return {
    name,
    waitMs: wait === undefined ? waitMs : durationMs(wait, "the wait"),
    leases,
    owner: checkedOwner,
    metadata: metadata === undefined ? null : checkMetadata(metadata),
    signal: signal === undefined ? null : checkSignal(signal),
  };
}

function leaseOf(lease: Lease, session: Session) {
  if (lease instanceof UserLease && lease.lease.session === session) return lease.lease;
  throw invalid("the lease must be one of this client's, made by client.lease()");
}

/** Checks the options of a lease. Throws INVALID. */
export function leaseRequest(
  options: LeaseOptions | undefined,
  defaults: { readonly ttlMs: number; readonly owner: string },
): { ttlMs: number; owner: string } {
  if (options === undefined) return defaults;
  checkKeys(options, ["ttl", "owner"], "the options of a lease");
  return {
    ttlMs: options.ttl === undefined ? defaults.ttlMs : ttlMs(options.ttl),
    owner: options.owner === undefined ? defaults.owner : checkOwner(options.owner),
  };
}
