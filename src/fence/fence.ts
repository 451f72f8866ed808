/**
 * What all fences have in common.
 *
 * A fence is the check "reject a token lower than the highest one seen for this resource", made by the storage in one step
 * with the write. The highest one seen is the floor.
 *
 * The floor is raised at the grant, before the holder reads anything, and not with its first write:
 *
 *     holder 1 (token 33) reads 41 and stalls; its lease ends
 *     holder 2 (token 34) is granted the lock, reads 41
 *     holder 1 wakes and writes 42      <- the floor is still 33 if holder 2 raises it only with its write
 *     holder 2 writes 42                <- one of the two updates is lost
 *
 * With the floor raised before the read, holder 1 is refused from the floor's commit on, and what it wrote before is read.
 */
import type { Fenced } from "./hold.js";

/** The floor of a resource as the storage has it. */
export interface Floor {
  readonly resource: string;
  /** The highest token that was seen; 0: none. */
  readonly floor: number;
}

/** What every fence can do; how it guards writes differs from storage to storage. */
export interface Fence {
  /**
   * Raises the floor of what the lock stands for to its token, so that from its resolution on every lower token is refused.
   * A shared hold is only checked. Rejects STALE_TOKEN when a higher one has been seen, LOST, INVALID (before anything is
   * sent), UNREACHABLE. The option `fence` of the client's `withLock` and `acquire` calls it at the grant.
   */
  raise(lock: Fenced): Promise<void>;
  /** The floor of a resource: the name of a lock, or `name#slot`. A resource that was never written has 0. */
  inspect(resource: string): Promise<Floor>;
  /**
   * Forgets the floor of a resource: from then on it is 0, and old holders are let in again. For administrators, after a
   * lock server was replaced by one that counts from the beginning.
   */
  reset(resource: string): Promise<void>;
}
