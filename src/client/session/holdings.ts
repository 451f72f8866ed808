/** What a session holds, as far as the client believes: leases by the number of their creation, locks by token. */
import type { LostReason } from "../errors.js";
import type { HeldLock } from "../lock.js";
import type { LeaseListener, SessionLease } from "./session-lease.js";

export class Holdings {
  /** Leases that the server may know. */
  readonly leases = new Map<number, SessionLease>();
  /** Locks until they are lost or the server has confirmed their release. */
  readonly locks = new Map<number, HeldLock>();
  /** The highest token that was ever granted to this client. */
  highestToken = 0;
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
    this.#smallestTtlMs = Math.min(this.#smallestTtlMs, lease.ttlMs);
  }

  removeLease(lease: SessionLease): void {
    if (this.leases.get(lease.seq) !== lease) return;
    this.leases.delete(lease.seq);
    if (lease.kept) this.#kept -= 1;
    if (lease.ttlMs > this.#smallestTtlMs) return;
    let smallest = Number.POSITIVE_INFINITY;
    for (const other of this.leases.values()) smallest = Math.min(smallest, other.ttlMs);
    this.#smallestTtlMs = smallest;
  }

  addLock(lock: HeldLock, token: number): void {
    this.locks.set(token, lock);
    if (token > this.highestToken) this.highestToken = token;
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
    this.locks.delete(token);
    lock.lose(reason);
  }

  leaseLost(lease: SessionLease, reason: LostReason): void {
    lease.listener?.lost(reason);
    for (const [token, lock] of this.locks) {
      if (lock.lease !== lease) continue;
      this.locks.delete(token);
      lock.lose(reason);
    }
  }

  /** Its owner has ended the lease, and so given its locks back. */
  releaseAll(lease: SessionLease): void {
    for (const [token, lock] of this.locks) {
      if (lock.lease !== lease) continue;
      this.locks.delete(token);
      lock.leaseReleased();
    }
  }

  tellHolders(lease: SessionLease, tell: (listener: LeaseListener) => void): void {
    if (lease.listener) tell(lease.listener);
    for (const lock of this.locks.values()) if (lock.lease === lease) tell(lock);
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
