/**
 * From the journal's entries back to the state.
 *
 * Nobody is attached after a restart: every session and every ticket is detached, and has `resumeMs` to come back.
 *
 * How long a lease lives on is the delicate part. It must live at least as long as its client was promised, and a server
 * that restarts again and again must not keep it alive for ever. When it was last renewed is not written down (renewals
 * write nothing), but in which incarnation it was, is. If that was the last one, the renewal may have come in its last
 * moment: the lease gets its full TTL. If it was an earlier one, the time that all incarnations since then have served
 * has passed for certain and is taken off. So restarts lengthen a life by at most one TTL in all. Progress is counted in
 * the same way, by the incarnation of its last report.
 */
import { LamportClock } from "./lamport.js";
import { addLease } from "./leases.js";
import {
  deleteIncarnation,
  deleteQuiet,
  HEADER_KEY,
  type HeaderRecord,
  type HoldRecord,
  type LeaseRecord,
  putIncarnation,
  QUIET_KEY,
  type RequestRecord,
  type SessionRecord,
  type TicketRecord,
} from "./records.js";
import { checkHolders, HoldReader, recoverDelay, recoverTicket } from "./recover-locks.js";
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

/** Rebuilds the state and begins a new incarnation, whose record is put into `fx`. Throws when entries contradict. */
export function recover(entries: Map<string, string>, init: RecoverInit, fx: Effects): State {
  const header = readHeader(entries);
  const [token, ceiling, serial, lastIncarnation, servedBeforeMs] = header;
  const { limits, nowMs, floors } = init;
  const state = emptyState({
    limits,
    clock: new LamportClock(Math.max(ceiling, floors?.timestamp ?? 0), limits.clockJumpPerSecondMax, nowMs),
    incarnation: lastIncarnation + 1,
    servedOffsetMs: servedBeforeMs - nowMs,
    token: Math.max(token, floors?.token ?? 0),
    serial: Math.max(serial, floors?.serial ?? 0),
    clusterId: init.clusterId,
    quietUntilMs: readQuiet(entries) - (servedBeforeMs - nowMs),
  });
  const byKind = group(entries);
  for (const [id, record] of byKind.s) recoverSession(state, id, record as SessionRecord);
  const remaining = remainingTimes(byKind.i, lastIncarnation, servedBeforeMs);
  for (const [id, record] of byKind.l) recoverLease(state, id, record as LeaseRecord, remaining, nowMs);
  const holds = new HoldReader(state, nowMs);
  for (const [key, record] of inOrder(byKind.h)) holds.read(key, record as HoldRecord);
  for (const lock of state.locks.values()) checkHolders(lock);
  for (const [key, record] of inOrder(byKind.t)) recoverTicket(state, key, record as TicketRecord, nowMs);
  for (const [name, record] of byKind.d) recoverDelay(state, name, (record as [number])[0]);
  for (const [key, record] of byKind.q) recoverRequest(state, key, record as RequestRecord, nowMs);
  for (const session of state.sessions.values()) dropSessionIfOver(state, fx, session);
  beginIncarnation(state, fx, byKind.i, servedBeforeMs);
  if (byKind.r.length > 0 && state.quietUntilMs <= nowMs) deleteQuiet(fx);
  for (const lease of state.leases.values()) {
    // One that was last renewed before has been extended before.
    if (lease.dead !== null || lease.renewedIn < lastIncarnation) continue;
    fx.events.push({ kind: "leaseExtended", extensionMs: lease.restartExtensionMs });
  }
  return state;
}

function readHeader(entries: Map<string, string>): HeaderRecord {
  const text = entries.get(HEADER_KEY);
  if (text !== undefined) return JSON.parse(text) as HeaderRecord;
  if (entries.size > 0) throw new Error("the store has entries but no header");
  return [0, 0, 0, 0, 0];
}

/** Until when nothing is granted, in served time. */
function readQuiet(entries: Map<string, string>): number {
  const text = entries.get(QUIET_KEY);
  return text === undefined ? Number.NEGATIVE_INFINITY : (JSON.parse(text) as [number])[0];
}

type Kind = "i" | "s" | "l" | "h" | "t" | "d" | "q" | "r";

function group(entries: Map<string, string>): Record<Kind, [string, unknown][]> {
  const byKind: Record<Kind, [string, unknown][]> = { i: [], s: [], l: [], h: [], t: [], d: [], q: [], r: [] };
  for (const [key, text] of entries) {
    if (key === HEADER_KEY) continue;
    const list = key[1] === "/" ? byKind[key[0] as Kind] : undefined;
    if (list === undefined) throw new Error(`the store has an entry of an unknown kind: ${key}`);
    list.push([key.slice(2), JSON.parse(text)]);
  }
  return byKind;
}

/** Entries with numbers as keys, in the order of those. */
const inOrder = (entries: readonly [string, unknown][]): [number, unknown][] =>
  entries.map(([key, record]): [number, unknown] => [Number(key), record]).sort((a, b) => a[0] - b[0]);

/** What is left of a time, by the incarnation in which it was last started anew. */
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

function recoverSession(
  state: State,
  id: string,
  [epoch, ackedBelow, released, others, principal = ""]: SessionRecord,
): void {
  const session = newSession(id, principal, epoch);
  session.ackedBelow = ackedBelow;
  for (const seq of released) session.unacked.set(seq, { kind: "released" });
  for (const [seq, kind, token] of others) {
    session.unacked.set(seq, kind === "ended" || kind === "transferred" ? { kind, token } : { kind });
  }
  state.sessions.set(id, session);
}

function recoverLease(
  state: State,
  id: string,
  [displayId, ttlMs, owner, metadata, sessionId, seq, own, renewedIn, dead, more]: LeaseRecord,
  remaining: (renewedIn: number, ttlMs: number) => number,
  nowMs: number,
): void {
  const session = sessionId === "" ? null : state.sessions.get(sessionId);
  if (session === undefined) throw new Error(`lease ${displayId} names a session that is not there`);
  const [progressEveryMs, progressedIn, diedServedMs, principal = ""] = more ?? [0, renewedIn, 0];
  const ttlUntilMs = nowMs + remaining(renewedIn, ttlMs);
  const progressUntilMs =
    progressEveryMs > 0 ? nowMs + remaining(progressedIn, progressEveryMs) : Number.POSITIVE_INFINITY;
  const lease: Lease = {
    kind: "lease",
    id,
    displayId,
    ttlMs,
    progressEveryMs,
    owner,
    metadata,
    principal,
    session,
    seq,
    own: own === 1,
    ttlUntilMs,
    progressUntilMs,
    deadlineMs: Math.min(ttlUntilMs, progressUntilMs),
    dead: dead === "" ? null : dead,
    diedAtMs: diedServedMs - state.servedOffsetMs,
    renewedIn,
    progressedIn,
    restartExtensionMs: ttlMs,
    holds: new Set(),
    tickets: new Set(),
    waits: 0,
    revoking: null,
    contenders: null,
    batch: 0,
    dueMs: 0,
    heapIndex: -1,
  };
  addLease(state, lease);
  if (lease.dead === null) state.deadlines.set(lease, lease.deadlineMs);
  else state.collecting.add(lease);
  if (session !== null && seq >= session.ackedBelow) session.unacked.set(seq, lease);
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
  for (const { renewedIn, progressedIn, progressEveryMs } of state.leases.values()) {
    oldest = Math.min(oldest, renewedIn, progressEveryMs > 0 ? progressedIn : renewedIn);
  }
  for (const [key] of incarnations) if (Number(key) <= oldest) deleteIncarnation(fx, Number(key));
}
