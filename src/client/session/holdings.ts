/** What a session holds, as far as the client believes: leases by the number of their creation, locks by token. */
import { ChurnMap } from "../churn-map.js";
import type { LostReason } from "../errors.js";
import type { HeldLock } from "../held-lock.js";
import type { leasehold } from "../wire/index.js";
import { lostReason } from "./failure.js";
import type { LeaseListener, SessionLease } from "./session-lease.js";

export class Holdings {
  /** Leases that the server may know. */
  readonly leases = new Map<number, SessionLease>();
  /** Locks until they are lost or the server has confirmed their release. */
  readonly locks = new ChurnMap<number, HeldLock>();
  /** The highest token that was ever granted to this client. */
  highestToken = 0;
  readonly #locksOf = new Map<SessionLease, ChurnMap<number, HeldLock>>();
  /** Locks that end by themselves at a certain time. */
  readonly #limited = new ChurnMap<number, HeldLock>();
  /** How many leases have this term. */
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
    this.#ttls.set(lease.termMs, (this.#ttls.get(lease.termMs) ?? 0) + 1);
    this.#smallestTtlMs = Math.min(this.#smallestTtlMs, lease.termMs);
  }

  removeLease(lease: SessionLease): void {
    if (this.leases.get(lease.seq) !== lease) return;
    this.leases.delete(lease.seq);
    if (lease.kept) this.#kept -= 1;
    const others = (this.#ttls.get(lease.termMs) ?? 1) - 1;
    if (others > 0) {
      this.#ttls.set(lease.termMs, others);
      return;
    }
    this.#ttls.delete(lease.termMs);
    this.#smallestTtlMs = Math.min(...this.#ttls.keys());
  }

  addLock(lock: HeldLock, token: number): void {
    this.locks.set(token, lock);
    const siblings = this.#locksOf.get(lock.lease);
    if (siblings) siblings.set(token, lock);
    else this.#locksOf.set(lock.lease, new ChurnMap<number, HeldLock>().set(token, lock));
    if (lock.limit) this.#limited.set(token, lock);
    if (token > this.highestToken) this.highestToken = token;
  }

  removeLock(lock: HeldLock, token: number): void {
    this.locks.delete(token);
    if (lock.limit) this.#limited.delete(token);
    const siblings = this.#locksOf.get(lock.lease);
    if (siblings?.delete(token) && siblings.size === 0) this.#locksOf.delete(lock.lease);
  }

  /** Takes out all locks of a lease and returns them. */
  #takeLocks(lease: SessionLease): HeldLock[] {
    const locks = this.#locksOf.get(lease);
    if (!locks) return [];
    this.#locksOf.delete(lease);
    for (const [token, lock] of locks) {
      this.locks.delete(token);
      if (lock.limit) this.#limited.delete(token);
    }
    return [...locks.values()];
  }

  /**
   * The tokens to claim when the session resumes, whose leases are believed in: of locks that are held; of those whose
   * release or transfer is on its way, so that it finds what it is to release; of those that were taken away and are not
   * given back yet, since the server takes what is not claimed for given back.
   */
  claims(nowMs: number): number[] {
    const claims: number[] = [];
    for (const [token, lock] of [...this.locks]) if (lock.lease.believed(nowMs)) claims.push(token);
    return claims;
  }

  /** The server says that this grant is no more, or is being taken away. False: it is not known here. */
  holdEnded({ token, reason, confirm, message }: leasehold.v1.HoldEnd.$Properties): boolean {
    const lock = this.locks.get(token ?? 0);
    lock?.holdEnded(lostReason(reason), !confirm, message ?? "");
    return lock !== undefined;
  }

  /** The server does not know this grant, which was claimed. */
  claimLost(token: number): void {
    this.locks.get(token)?.holdEnded("unknown_to_server", true);
  }

  leaseLost(lease: SessionLease, reason: LostReason): void {
    lease.listener?.lost(reason);
    for (const lock of this.#takeLocks(lease)) lock.lost(reason);
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
    for (const lock of [...this.#limited.values()]) nextMs = Math.min(nextMs, lock.onAlarm(nowMs));
    return nextMs;
  }
}
