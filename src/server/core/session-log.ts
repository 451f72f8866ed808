/**
 * What a session remembers of its commands, so that each has one effect however often it is sent.
 *
 * An effect that is still there (a lease, a hold, a ticket) is its own memory. One that is over leaves a
 * `SessionOutcome` until the client acknowledges the answer. Commands without an effect, refusals among them, leave
 * nothing: sent again, they are simply answered again.
 */
import { deleteSession } from "./records.js";
import type { Session, SessionOutcome, State } from "./state.js";
import type { Effects } from "./types.js";

/** Remembers how the command `seq` ended, unless its answer has been acknowledged. */
export function storeOutcome(state: State, session: Session, seq: number, outcome: SessionOutcome): void {
  if (seq < session.ackedBelow) {
    session.unacked.delete(seq); // its answer was acknowledged before there was one
    return;
  }
  session.unacked.set(seq, outcome);
  markDirty(state, session);
}

/** Has the session's record written with the batch that is being built. */
export function markDirty(state: State, session: Session): void {
  if (session.dirty) return;
  session.dirty = true;
  state.dirtySessions.add(session);
}

/** The client has the answers to all commands below `ackedBelow`: forgets those whose effect is over or recorded. */
export function acknowledge(session: Session, ackedBelow: number): void {
  if (ackedBelow <= session.ackedBelow) return;
  const { unacked } = session;
  if (ackedBelow - session.ackedBelow <= unacked.size) {
    for (let seq = session.ackedBelow; seq < ackedBelow; seq++) forgetUnlessWaiting(session, seq);
  } else {
    for (const seq of unacked.keys()) if (seq < ackedBelow) forgetUnlessWaiting(session, seq);
  }
  session.ackedBelow = ackedBelow;
}

/**
 * The client has these answers as well, although not all below: an Acquire that waits for an hour must not keep alive the
 * memory of all that was answered meanwhile.
 */
export function acknowledgeEach(session: Session, acked: readonly number[]): void {
  for (const seq of acked) forgetUnlessWaiting(session, seq);
}

/** A ticket has no answer yet, whatever the client says. */
function forgetUnlessWaiting(session: Session, seq: number): void {
  if (session.unacked.get(seq)?.kind !== "ticket") session.unacked.delete(seq);
}

/** A session is over when it is not attached and no lease of it is alive. */
export function dropSessionIfOver(state: State, fx: Effects, session: Session): void {
  if (session.route !== null || session.leases.size > 0) return;
  if (!state.sessions.delete(session.id)) return;
  state.dirtySessions.delete(session);
  deleteSession(fx, session);
}
