/** What of the core's state is durable, as plain data: to compare a recovered core with the one it continues. */
import type { Lock, Session, State } from "../../../src/server/core/state.js";
import { ensure } from "./violation.js";

export interface Dump {
  readonly token: number;
  readonly serial: number;
  readonly ceiling: number;
  readonly leases: Record<string, unknown>;
  readonly holds: Record<string, unknown>;
  /** Tickets by lock, in the order of the queue. */
  readonly queues: Record<string, unknown[]>;
  readonly pastRequests: Record<string, unknown>;
  readonly sessions: Record<string, SessionDump>;
}

interface SessionDump {
  readonly epoch: number;
  readonly ackedBelow: number;
  /** What a repeated command meets, by sequence number. */
  readonly unacked: Record<number, string>;
}

export function dump(state: State): Dump {
  const leases: Record<string, unknown> = {};
  for (const l of state.leases.values()) {
    const { displayId, ttlMs, owner, metadata, seq, own, dead, renewedIn } = l;
    leases[l.id] = { displayId, ttlMs, owner, metadata, session: l.session?.id ?? "", seq, own, dead, renewedIn };
  }
  const holds: Record<string, unknown> = {};
  for (const h of state.holds.values()) {
    const { timestamp, seq, requestId, owner, metadata, grantedWallMs } = h;
    const held = { lock: h.lock.name, lease: h.lease.id };
    holds[h.token] = { ...held, timestamp, seq, requestId, owner, metadata, grantedWallMs };
  }
  const pastRequests: Record<string, unknown> = {};
  for (const [key, r] of state.requests) if (r.kind === "request") pastRequests[key] = [r.end, r.token];
  const queues: Record<string, unknown[]> = {};
  for (const lock of state.locks.values()) if (lock.head !== null) queues[lock.name] = queueOf(lock);
  const sessions: Record<string, SessionDump> = {};
  // A session without leases is over as soon as it is detached, and a restart detaches it.
  for (const s of state.sessions.values()) if (s.leases.size > 0) sessions[s.id] = dumpSession(s);
  const { token, serial, clock } = state;
  return { token, serial, ceiling: clock.ceiling, leases, holds, queues, pastRequests, sessions };
}

function queueOf(lock: Lock): unknown[] {
  const queue: unknown[] = [];
  for (let ticket = lock.head; ticket !== null; ticket = ticket.next) {
    const { serial, seq, requestId, owner, metadata, waitMs, queuedWallMs } = ticket;
    queue.push({ serial, lease: ticket.lease.id, seq, requestId, owner, metadata, waitMs, queuedWallMs });
  }
  return queue;
}

function dumpSession(session: Session): SessionDump {
  const unacked: Record<number, string> = {};
  for (const [seq, effect] of session.unacked) {
    // The effect of a command on a dead lease is refused, however it is remembered.
    if (effect.kind === "lease") unacked[seq] = effect.dead === null ? `lease ${effect.id}` : "over";
    else if (effect.kind === "hold") unacked[seq] = effect.lease.dead === null ? `hold ${effect.token}` : "over";
    else if (effect.kind === "ticket") unacked[seq] = `ticket ${effect.serial}`;
    else unacked[seq] = effect.kind === "released" ? "released" : "over";
  }
  return { epoch: session.epoch, ackedBelow: session.ackedBelow, unacked };
}

/** Throws unless the recovered state is what the durable records say. */
export function compareDumps(before: Dump, after: Dump): void {
  for (const part of ["leases", "holds", "queues", "pastRequests"] as const) {
    const was = JSON.stringify(sorted(before[part]));
    const is = JSON.stringify(sorted(after[part]));
    ensure(was === is, () => `recovery changed the ${part}: ${was} became ${is}`);
  }
  ensure(after.token >= before.token, () => `recovery took the token back from ${before.token} to ${after.token}`);
  ensure(after.serial >= before.serial, () => `recovery took the serial back to ${after.serial}`);
  ensure(after.ceiling >= before.ceiling, () => `recovery took the ceiling back to ${after.ceiling}`);
  const ids = Object.keys(before.sessions).sort().join();
  const idsAfter = Object.keys(after.sessions).sort().join();
  ensure(ids === idsAfter, () => `recovery changed the sessions: ${ids} became ${idsAfter}`);
  for (const [id, was] of Object.entries(before.sessions)) compareSessions(id, was, after.sessions[id] as SessionDump);
}

/** Acknowledgements write nothing, so a recovered session may remember more than it had to. */
function compareSessions(id: string, was: SessionDump, is: SessionDump): void {
  ensure(was.epoch === is.epoch, () => `recovery changed the epoch of ${id} from ${was.epoch} to ${is.epoch}`);
  for (const [seq, effect] of Object.entries(was.unacked)) {
    const found = is.unacked[Number(seq)];
    ensure(found === effect, () => `session ${id} forgot what command ${seq} did: ${effect} became ${found}`);
  }
}

function sorted(record: Record<string, unknown>): [string, unknown][] {
  return Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1));
}
