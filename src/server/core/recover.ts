/**
 * From the journal's entries back to the state.
 *
 * Nobody is attached after a restart: every session and every ticket is detached, and has `resumeMs` to come back.
 *
 * How long a lease lives on is the delicate part. It must live at least as long as its client was promised, and a server
 * that restarts again and again must not keep it alive for ever. When it was last renewed is not written down (renewals
 * write nothing), but in which incarnation it was, is. If that was the last one, the renewal may have come in its last
 * moment: the lease gets its full TTL. If it was an earlier one, the time that all incarnations since then have served
 * has passed for certain and is taken off. So restarts lengthen a life by at most one TTL in all.
 */
import { LamportClock } from "./lamport.js";
import { addLease } from "./leases.js";
import { addHold, addTicket, detachTicket, ensureLock } from "./locks.js";
import {
  deleteIncarnation,
  HEADER_KEY,
  type HeaderRecord,
  type HoldRecord,
  type LeaseRecord,
  putIncarnation,
  type RequestRecord,
  type SessionRecord,
  type TicketRecord,
} from "./records.js";
import { newSession } from "./session.js";
import { dropSessionIfOver } from "./session-log.js";
import { emptyState, type Lease, type PastRequest, type State } from "./state.js";
import type { CoreLimits, Effects } from "./types.js";

/** Numbers that were handed out by an incarnation whose last append failed, and must not be handed out again. */
export interface Floors {
  readonly token: number;
  readonly timestamp: number;
  readonly serial: number;
}

export interface RecoverInit {
  readonly limits: CoreLimits;
  readonly clusterId: string;
  readonly nowMs: number;
  readonly floors?: Floors;
}

export interface Recovered {
  readonly state: State;
  /** Served time of all incarnations before this one. */
  readonly servedBeforeMs: number;
}

/** Rebuilds the state and begins a new incarnation, whose record is put into `fx`. Throws when entries contradict. */
export function recover(entries: Map<string, string>, init: RecoverInit, fx: Effects): Recovered {
  const header = readHeader(entries);
  const [token, ceiling, serial, lastIncarnation, servedBeforeMs] = header;
  const state = emptyState({
    limits: init.limits,
    clock: new LamportClock(
      Math.max(ceiling, init.floors?.timestamp ?? 0),
      init.limits.clockJumpPerSecondMax,
      init.nowMs,
    ),
    incarnation: lastIncarnation + 1,
    token: Math.max(token, init.floors?.token ?? 0),
    serial: Math.max(serial, init.floors?.serial ?? 0),
    clusterId: init.clusterId,
  });
  const byKind = group(entries);
  for (const [id, record] of byKind.s) recoverSession(state, id, record as SessionRecord);
  const remaining = remainingTimes(byKind.i, lastIncarnation, servedBeforeMs);
  for (const [id, record] of byKind.l) recoverLease(state, id, record as LeaseRecord, remaining, init.nowMs);
  for (const [key, record] of byKind.h) recoverHold(state, Number(key), record as HoldRecord, init.nowMs);
  byKind.t.sort((a, b) => Number(a[0]) - Number(b[0]));
  for (const [key, record] of byKind.t) recoverTicket(state, Number(key), record as TicketRecord, init.nowMs);
  for (const [key, record] of byKind.q) recoverRequest(state, key, record as RequestRecord, init.nowMs);
  for (const session of state.sessions.values()) dropSessionIfOver(state, fx, session);
  beginIncarnation(state, fx, byKind.i, servedBeforeMs);
  return { state, servedBeforeMs };
}

function readHeader(entries: Map<string, string>): HeaderRecord {
  const text = entries.get(HEADER_KEY);
  if (text !== undefined) return JSON.parse(text) as HeaderRecord;
  if (entries.size > 0) throw new Error("the store has entries but no header");
  return [0, 0, 0, 0, 0];
}

type Kind = "i" | "s" | "l" | "h" | "t" | "q";

function group(entries: Map<string, string>): Record<Kind, [string, unknown][]> {
  const byKind: Record<Kind, [string, unknown][]> = { i: [], s: [], l: [], h: [], t: [], q: [] };
  for (const [key, text] of entries) {
    if (key === HEADER_KEY) continue;
    const list = key[1] === "/" ? byKind[key[0] as Kind] : undefined;
    if (list === undefined) throw new Error(`the store has an entry of an unknown kind: ${key}`);
    list.push([key.slice(2), JSON.parse(text)]);
  }
  return byKind;
}

/** What is left of a TTL, by the incarnation of the last renewal. */
function remainingTimes(
  incarnations: readonly [string, unknown][],
  lastIncarnation: number,
  servedTotalMs: number,
): (renewedIn: number, ttlMs: number) => number {
  const servedBefore = new Map(incarnations.map(([key, record]) => [Number(key), (record as [number])[0]]));
  return (renewedIn, ttlMs) => {
    if (renewedIn >= lastIncarnation) return ttlMs;
    const endedAt = servedBefore.get(renewedIn + 1);
    if (endedAt === undefined) throw new Error(`the store does not say when incarnation ${renewedIn + 1} began`);
    return ttlMs - (servedTotalMs - endedAt);
  };
}

function recoverSession(state: State, id: string, [epoch, ackedBelow, released, others]: SessionRecord): void {
  const session = newSession(id, epoch);
  session.ackedBelow = ackedBelow;
  for (const seq of released) session.unacked.set(seq, { kind: "released" });
  for (const [seq, kind, token] of others) session.unacked.set(seq, kind === "ended" ? { kind, token } : { kind });
  state.sessions.set(id, session);
}

function recoverLease(
  state: State,
  id: string,
  [displayId, ttlMs, owner, metadata, sessionId, seq, own, renewedIn, dead]: LeaseRecord,
  remaining: (renewedIn: number, ttlMs: number) => number,
  nowMs: number,
): void {
  const session = sessionId === "" ? null : state.sessions.get(sessionId);
  if (session === undefined) throw new Error(`lease ${displayId} names a session that is not there`);
  const lease: Lease = {
    kind: "lease",
    id,
    displayId,
    ttlMs,
    owner,
    metadata,
    session,
    seq,
    own: own === 1,
    deadlineMs: nowMs + remaining(renewedIn, ttlMs),
    dead: dead === "" ? null : dead,
    renewedIn,
    restartExtensionMs: ttlMs,
    holds: new Set(),
    tickets: new Set(),
    batch: 0,
    dueMs: 0,
    heapIndex: -1,
  };
  addLease(state, lease);
  if (lease.dead === null) state.deadlines.set(lease, lease.deadlineMs);
  else state.collecting.add(lease);
  if (session !== null && seq >= session.ackedBelow) session.unacked.set(seq, lease);
}

function findLease(state: State, leaseId: string, what: string): Lease {
  const lease = state.leases.get(leaseId);
  if (lease === undefined) throw new Error(`${what} names a lease that is not there`);
  return lease;
}

function recoverHold(
  state: State,
  token: number,
  [name, leaseId, seq, requestId, timestamp, owner, metadata, grantedWallMs]: HoldRecord,
  nowMs: number,
): void {
  const lock = ensureLock(state, name);
  const lease = findLease(state, leaseId, `the hold with token ${token}`);
  if (lock.hold !== null) throw new Error(`tokens ${lock.hold.token} and ${token} both hold ${JSON.stringify(name)}`);
  const hold = {
    kind: "hold" as const,
    token,
    timestamp,
    lock,
    lease,
    seq,
    requestId,
    owner,
    metadata,
    grantedWallMs,
    grantedAtMs: nowMs,
    told: Number.POSITIVE_INFINITY,
    dueMs: 0,
    heapIndex: -1,
  };
  addHold(state, hold);
  if (seq > 0 && lease.session !== null && seq >= lease.session.ackedBelow) lease.session.unacked.set(seq, hold);
}

function recoverTicket(
  state: State,
  serial: number,
  [name, leaseId, seq, requestId, owner, metadata, waitMs, queuedWallMs]: TicketRecord,
  nowMs: number,
): void {
  const ticket = {
    kind: "ticket" as const,
    serial,
    lock: ensureLock(state, name),
    lease: findLease(state, leaseId, `ticket T${serial}`),
    seq,
    requestId,
    owner,
    metadata,
    waitMs,
    queuedWallMs,
    queuedAtMs: nowMs,
    waitUntilMs: nowMs + waitMs,
    pollUntilMs: Number.POSITIVE_INFINITY,
    route: null,
    previous: null,
    next: null,
    dueMs: 0,
    heapIndex: -1,
  };
  addTicket(state, ticket);
  detachTicket(state, ticket, nowMs);
}

function recoverRequest(state: State, key: string, [end, token]: RequestRecord, nowMs: number): void {
  const request: PastRequest = { kind: "request", key, end, token, dueMs: 0, heapIndex: -1 };
  state.requests.set(key, request);
  state.pastRequests++;
  state.deadlines.set(request, nowMs + state.limits.requestRememberedMs);
}

/** Writes down when this incarnation begins, and forgets the beginnings that no living lease needs any more. */
function beginIncarnation(
  state: State,
  fx: Effects,
  incarnations: readonly [string, unknown][],
  servedBeforeMs: number,
): void {
  putIncarnation(fx, state.incarnation, servedBeforeMs);
  let oldest = state.incarnation;
  for (const lease of state.leases.values()) oldest = Math.min(oldest, lease.renewedIn);
  for (const [key] of incarnations) if (Number(key) <= oldest) deleteIncarnation(fx, Number(key));
}
