/**
 * How the state is written down: one entry per lease, session, hold, ticket and remembered request, so that a change
 * writes no more than what changed.
 *
 *     !                  [token, ceiling, serial, incarnation, servedTotalMs]     once per batch
 *     i/<incarnation>    served time of all earlier incarnations when this one began
 *     l/<lease id>       lease              s/<session id>    session
 *     h/<token>          hold               t/<serial>        ticket
 *     q/<request key>    a unary Acquire that is over
 *
 * Values are JSON arrays. Text comes validated (no control characters) or JSON-escaped, as the journal asks.
 */
import type { Hold, Lease, PastRequest, Session, SessionOutcome, State, Ticket } from "./state.js";
import type { Effects } from "./types.js";

export const HEADER_KEY = "!";

export type HeaderRecord = [token: number, ceiling: number, serial: number, incarnation: number, servedTotalMs: number];
export type LeaseRecord = [
  displayId: string,
  ttlMs: number,
  owner: string,
  metadata: string,
  sessionId: string,
  seq: number,
  own: 0 | 1,
  renewedIn: number,
  dead: "" | "expired" | "revoked",
];
export type HoldRecord = [
  name: string,
  leaseId: string,
  seq: number,
  requestId: string,
  timestamp: number,
  owner: string,
  metadata: string,
  grantedWallMs: number,
];
export type TicketRecord = [
  name: string,
  leaseId: string,
  seq: number,
  requestId: string,
  owner: string,
  metadata: string,
  waitMs: number,
  queuedWallMs: number,
];
/** `released` is most of what a busy session remembers, so it is kept short: sequence numbers alone. */
export type SessionRecord = [
  epoch: number,
  ackedBelow: number,
  released: number[],
  others: [seq: number, kind: Exclude<SessionOutcome["kind"], "released">, token: number][],
];
export type RequestRecord = [end: PastRequest["end"], token: number];

function put(fx: Effects, key: string, record: readonly unknown[]): void {
  fx.mutations.push(key, JSON.stringify(record));
}

export function putHeader(state: State, fx: Effects, servedTotalMs: number): void {
  const record: HeaderRecord = [state.token, state.clock.ceiling, state.serial, state.incarnation, servedTotalMs];
  put(fx, HEADER_KEY, record);
}

export function putIncarnation(fx: Effects, incarnation: number, servedBeforeMs: number): void {
  put(fx, `i/${incarnation}`, [servedBeforeMs]);
}

export function deleteIncarnation(fx: Effects, incarnation: number): void {
  fx.mutations.push(`i/${incarnation}`, null);
}

export function putLease(state: State, fx: Effects, lease: Lease): void {
  lease.batch = state.batch;
  const record: LeaseRecord = [
    lease.displayId,
    lease.ttlMs,
    lease.owner,
    lease.metadata,
    lease.session?.id ?? "",
    lease.seq,
    lease.own ? 1 : 0,
    lease.renewedIn,
    lease.dead ?? "",
  ];
  put(fx, `l/${lease.id}`, record);
}

export function deleteLease(fx: Effects, lease: Lease): void {
  fx.mutations.push(`l/${lease.id}`, null);
}

export function putHold(fx: Effects, hold: Hold): void {
  const record: HoldRecord = [
    hold.lock.name,
    hold.lease.id,
    hold.seq,
    hold.requestId,
    hold.timestamp,
    hold.owner,
    hold.metadata,
    hold.grantedWallMs,
  ];
  put(fx, `h/${hold.token}`, record);
}

export function deleteHold(fx: Effects, hold: Hold): void {
  fx.mutations.push(`h/${hold.token}`, null);
}

export function putTicket(fx: Effects, ticket: Ticket): void {
  const record: TicketRecord = [
    ticket.lock.name,
    ticket.lease.id,
    ticket.seq,
    ticket.requestId,
    ticket.owner,
    ticket.metadata,
    ticket.waitMs,
    ticket.queuedWallMs,
  ];
  put(fx, `t/${ticket.serial}`, record);
}

export function deleteTicket(fx: Effects, ticket: Ticket): void {
  fx.mutations.push(`t/${ticket.serial}`, null);
}

export function putSession(fx: Effects, session: Session): void {
  const released: SessionRecord[2] = [];
  const others: SessionRecord[3] = [];
  for (const [seq, effect] of session.unacked) {
    if (effect.kind === "released") released.push(seq);
    else if (effect.kind === "cancelled") others.push([seq, "cancelled", 0]);
    else if (effect.kind === "ended") others.push([seq, "ended", effect.token]);
  }
  const record: SessionRecord = [session.epoch, session.ackedBelow, released, others];
  put(fx, `s/${session.id}`, record);
}

export function deleteSession(fx: Effects, session: Session): void {
  fx.mutations.push(`s/${session.id}`, null);
}

export function putRequest(fx: Effects, request: PastRequest): void {
  const record: RequestRecord = [request.end, request.token];
  put(fx, `q/${request.key}`, record);
}

export function deleteRequest(fx: Effects, request: PastRequest): void {
  fx.mutations.push(`q/${request.key}`, null);
}
