/** Through which lease an acquire holds: the client's own, one that the caller named, or one made for this lock alone. */

import type { Session } from "./session.js";
import { CreateLease, RevokeLease, SessionLease } from "./session-lease.js";

export interface LeaseProvider {
  /** Made for the locks of one acquire, and ends with the last of them. */
  readonly own: boolean;
  /** When it dies before there is a grant, another one does as well. */
  readonly renewable: boolean;
  /** The lease for an attempt. */
  take(): SessionLease;
  /** The attempt came to nothing. */
  giveBack(lease: SessionLease): void;
}

function create(session: Session, ttlMs: number, owner: string, kept: boolean, progressEveryMs = 0): SessionLease {
  const lease = new SessionLease(session, ttlMs, owner, kept, progressEveryMs);
  session.submit(new CreateLease(lease));
  return lease;
}

/** The lease that all locks share unless something else is asked for; made when it is first needed. */
export class DefaultLease implements LeaseProvider {
  readonly own = false;
  readonly renewable = true;
  readonly #session: Session;
  readonly #ttlMs: number;
  readonly #owner: string;
  #lease: SessionLease | null = null;

  constructor(session: Session, ttlMs: number, owner: string) {
    this.#session = session;
    this.#ttlMs = ttlMs;
    this.#owner = owner;
  }

  take(): SessionLease {
    if (this.#lease === null || !this.#lease.alive(this.#session.time.nowMs())) {
      this.#lease = create(this.#session, this.#ttlMs, this.#owner, false);
    }
    return this.#lease;
  }

  giveBack(): void {}
}

/** A lease for what one acquire takes. */
export class OwnLease implements LeaseProvider {
  readonly own = true;
  readonly renewable = true;
  readonly #session: Session;
  readonly #ttlMs: number;
  readonly #owner: string;

  constructor(session: Session, ttlMs: number, owner: string) {
    this.#session = session;
    this.#ttlMs = ttlMs;
    this.#owner = owner;
  }

  take(): SessionLease {
    return create(this.#session, this.#ttlMs, this.#owner, false);
  }

  giveBack(lease: SessionLease): void {
    drop(lease);
  }
}

/** A lease that the caller has. */
export class GivenLease implements LeaseProvider {
  readonly own = false;
  readonly renewable = false;
  readonly #lease: SessionLease;

  constructor(lease: SessionLease) {
    this.#lease = lease;
  }

  take(): SessionLease {
    this.#lease.check(this.#lease.session.time.nowMs());
    return this.#lease;
  }

  giveBack(): void {}
}

/** A lease that the caller asks for by itself. */
export const createKept = (session: Session, ttlMs: number, owner: string, progressEveryMs: number): SessionLease =>
  create(session, ttlMs, owner, true, progressEveryMs);

/** Ends a lease on behalf of somebody who does not wait for it. */
export function drop(lease: SessionLease): void {
  const { session, seq } = lease;
  if (!lease.alive(session.time.nowMs())) return;
  lease.release();
  if (seq > 0) session.submit(new RevokeLease(session, seq, Number.POSITIVE_INFINITY, null));
}

/** Ends a lease. Resolves whether this ended it; false also when the server has not confirmed it before it ran out. */
export function revoke(lease: SessionLease): Promise<boolean> {
  const { session, seq } = lease;
  if (!lease.alive(session.time.nowMs())) return Promise.resolve(false);
  const deadlineMs = lease.belief?.deadlineMs ?? session.time.nowMs() + lease.ttlMs;
  lease.release();
  if (seq === 0) return Promise.resolve(true);
  return new Promise((resolve) => {
    session.keep();
    const waiter = (revoked: boolean) => {
      session.unkeep();
      resolve(revoked);
    };
    session.submit(new RevokeLease(session, seq, deadlineMs, waiter));
  });
}
