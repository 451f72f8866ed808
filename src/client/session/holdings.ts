/** What a session holds, as far as the client believes: leases by the number of their creation, locks by token. */
import { ChurnMap } from "../churn-map.js";
import type { LostReason } from "../errors.js";
import type { HeldLock } from "../lock.js";
import type { LeaseListener, SessionLease } from "./session-lease.js";

export class Holdings {
  /** Leases that the server may know. */
  readonly leases = new Map<number, SessionLease>();
  /** Locks until they are lost or the server has confirmed their release. */
  readonly locks = new ChurnMap<number, HeldLock>();
  /** The highest token that was ever granted to this client. */
  highestToken = 0;
  readonly #locksOf = new Map<SessionLease, ChurnMap<number, HeldLock>>();
  /** How many leases have this TTL. */
  readonly #ttls = new Map<number, number>();
  #smallestTtlMs = Number.POSITIVE_INFINITY;
  /** Leases that somebody asked for by themselves. */
  #kept = 0;

  /** Infinity while there is no lease. */
  get smallestTtlMs(): number {
    return this.#smallestTtlMs;
  }

  get inUse(): boolean {
    return this.locks.size > 0 || this.#kept > 0;
  }

  addLease(lease: SessionLease): void {
    if (this.leases.get(lease.seq) === lease) return;
    this.leases.set(lease.seq, lease);
    if (lease.kept) this.#kept += 1;
    this.#ttls.set(lease.ttlMs, (this.#ttls.get(lease.ttlMs) ?? 0) + 1);
    this.#smallestTtlMs = Math.min(this.#smallestTtlMs, lease.ttlMs);
  }

  removeLease(lease: SessionLease): void {
    if (this.leases.get(lease.seq) !== lease) return;
    this.leases.delete(lease.seq);
    if (lease.kept) this.#kept -= 1;
    const others = (this.#ttls.get(lease.ttlMs) ?? 1) - 1;
    if (others > 0) {
      this.#ttls.set(lease.ttlMs, others);
      return;
    }
    this.#ttls.delete(lease.ttlMs);
    this.#smallestTtlMs = Math.min(...this.#ttls.keys());
  }

  addLock(lock: HeldLock, token: number): void {
    this.locks.set(token, lock);
    const siblings = this.#locksOf.get(lock.lease);
    if (siblings) siblings.set(token, lock);
    else this.#locksOf.set(lock.lease, new ChurnMap<number, HeldLock>().set(token, lock));
    if (token > this.highestToken) this.highestToken = token;
  }

  removeLock(lock: HeldLock, token: number): void {
    this.locks.delete(token);
    const siblings = this.#locksOf.get(lock.lease);
    if (siblings?.delete(token) && siblings.size === 0) this.#locksOf.delete(lock.lease);
  }

  /** Takes out all locks of a lease and returns them. */
  #takeLocks(lease: SessionLease): HeldLock[] {
    const locks = this.#locksOf.get(lease);
    if (!locks) return [];
    this.#locksOf.delete(lease);
    for (const token of locks.keys()) this.locks.delete(token);
    return [...locks.values()];
  }

  /**
   * The tokens to claim when the session resumes: of locks still believed in, and of those whose release is on its way,
   * so that it finds what it is to release.
   */
  claims(nowMs: number): number[] {
    const claims: number[] = [];
    for (const [token, lock] of [...this.locks]) if (lock.lease.believed(nowMs)) claims.push(token);
    return claims;
  }

  /** The server says that this grant is no more. */
  holdEnded(token: number, reason: LostReason): void {
    const lock = this.locks.get(token);
    if (!lock) return;
    this.removeLock(lock, token);
    lock.lose(reason);
  }

  leaseLost(lease: SessionLease, reason: LostReason): void {
    lease.listener?.lost(reason);
    for (const lock of this.#takeLocks(lease)) lock.lose(reason);
  }

  /** Its owner has ended the lease, and so given its locks back. */
  releaseAll(lease: SessionLease): void {
    for (const lock of this.#takeLocks(lease)) lock.leaseReleased();
  }

  tellHolders(lease: SessionLease, tell: (listener: LeaseListener) => void): void {
    if (lease.listener) tell(lease.listener);
    for (const lock of [...(this.#locksOf.get(lease)?.values() ?? [])]) tell(lock);
  }

  /** All that is confirmed is lost. Leases that are still being created are forgotten here, to be created elsewhere. */
  loseAll(reason: LostReason, nowMs: number): void {
    for (const lease of [...this.leases.values()]) {
      if (lease.belief === null) this.removeLease(lease);
      else lease.lose(reason, nowMs, false);
    }
  }

  /** Notices what time has brought; returns when to look again. */
  onAlarm(nowMs: number): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const lease of [...this.leases.values()]) nextMs = Math.min(nextMs, lease.onAlarm(nowMs));
    return nextMs;
  }
}
