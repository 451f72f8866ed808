/** What of the core's state is durable, as plain data: to compare a recovered core with the one it continues. */
import type { Lock, Session, State } from "../../../src/server/core/state.js";
import { ensure } from "./violation.js";

export interface Dump {
  readonly token: number;
  readonly serial: number;
  readonly ceiling: number;
  readonly leases: Record<string, unknown>;
  readonly holds: Record<string, unknown>;
  readonly tickets: Record<string, unknown>;
  /** Ticket numbers by lock, in the order of the queue. */
  readonly queues: Record<string, unknown>;
  readonly delays: Record<string, unknown>;
  readonly pastRequests: Record<string, unknown>;
  readonly sessions: Record<string, SessionDump>;
}

interface SessionDump {
  readonly principal: string;
  readonly epoch: number;
  readonly ackedBelow: number;
  /** What a repeated command meets, by sequence number. */
  readonly unacked: Record<number, string>;
}

/** `nowMs`: times are told as what was left then. */
export function dump(state: State, nowMs: number): Dump {
  const leases: Record<string, unknown> = {};
  for (const l of state.leases.values()) {
    const { displayId, ttlMs, progressEveryMs, owner, metadata, seq, own, dead, renewedIn, progressedIn, principal } =
      l;
    const lived = progressEveryMs > 0 ? { renewedIn, progressedIn } : { renewedIn };
    const of = { session: l.session?.id ?? "", seq, own, dead };
    leases[l.id] = { displayId, ttlMs, progressEveryMs, owner, metadata, principal, ...of, ...lived };
  }
  const holds: Record<string, unknown> = {};
  for (const h of state.holds.values()) {
    const { timestamp, seq, requestId, owner, metadata, grantedWallMs, contenderId, mode, permits, permitLimit } = h;
    const { slots, lockDelayMs, set, revoking } = h;
    const held = { lock: h.lock.name, lease: h.lease.id, mode, permits, permitLimit, slots };
    const of = { timestamp, seq, requestId, owner, metadata, grantedWallMs, contenderId };
    const maxHoldMs = Number.isFinite(h.maxHoldUntilMs) ? Math.floor(h.maxHoldUntilMs - nowMs) : 0;
    const together = set === null ? [] : [set.firstToken, set.size, ...set.holds.map(({ token }) => token)];
    holds[h.token] = { ...held, ...of, lockDelayMs, maxHoldMs, revoking, together };
  }
  const tickets: Record<string, unknown> = {};
  for (const t of state.tickets.values()) {
    const { serial, seq, requestId, owner, metadata, waitMs, queuedWallMs, contenderId, heldTokens, all } = t;
    const of = { lease: t.lease.id, seq, requestId, owner, metadata, waitMs, queuedWallMs };
    const asks = { all, contenderId, lockDelayMs: t.lockDelayMs, maxHoldMs: t.maxHoldMs };
    const alive = heldTokens.filter((token) => state.holds.has(token));
    tickets[serial] = { serial, ...of, ...asks, items: t.places.map(({ item }) => item), alive };
  }
  const pastRequests: Record<string, unknown> = {};
  for (const [key, r] of state.requests) if (r.kind === "request") pastRequests[key] = [r.end, r.token];
  const queues: Record<string, number[]> = {};
  const delays: Record<string, number> = {};
  for (const lock of state.locks.values()) {
    if (lock.head !== null) queues[lock.name] = queueOf(lock);
    if (lock.delay !== null) delays[lock.name] = Math.floor(lock.delay.untilMs - nowMs);
  }
  const sessions: Record<string, SessionDump> = {};
  // A session without leases is over as soon as it is detached, and a restart detaches it.
  for (const s of state.sessions.values()) if (s.leases.size > 0) sessions[s.id] = dumpSession(s);
  const { token, serial, clock } = state;
  return { token, serial, ceiling: clock.ceiling, leases, holds, tickets, queues, delays, pastRequests, sessions };
}

function queueOf(lock: Lock): number[] {
  const queue: number[] = [];
  for (let place = lock.head; place !== null; place = place.next) queue.push(place.ticket.serial);
  return queue;
}

function dumpSession(session: Session): SessionDump {
  const unacked: Record<number, string> = {};
  for (const [seq, effect] of session.unacked) {
    // The effect of a command on a dead lease is refused, however it is remembered.
    if (effect.kind === "lease") unacked[seq] = effect.dead === null ? `lease ${effect.id}` : "over";
    else if (effect.kind === "hold") unacked[seq] = effect.lease.dead === null ? `hold ${effect.token}` : "over";
    else if (effect.kind === "ticket") unacked[seq] = `ticket ${effect.serial}`;
    else if (effect.kind === "transferred") unacked[seq] = `transferred ${effect.token}`;
    else unacked[seq] = effect.kind === "ended" || effect.kind === "cancelled" ? "over" : effect.kind;
  }
  return { principal: session.principal, epoch: session.epoch, ackedBelow: session.ackedBelow, unacked };
}

/** Throws unless the recovered state is what the durable records say. */
export function compareDumps(before: Dump, after: Dump): void {
  for (const part of ["leases", "holds", "tickets", "queues", "delays", "pastRequests"] as const) {
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
  ensure(was.principal === is.principal, () => `recovery gave session ${id} from ${was.principal} to ${is.principal}`);
  for (const [seq, effect] of Object.entries(was.unacked)) {
    const found = is.unacked[Number(seq)];
    ensure(found === effect, () => `session ${id} forgot what command ${seq} did: ${effect} became ${found}`);
  }
}

function sorted(record: Record<string, unknown>): [string, unknown][] {
  return Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1));
}
