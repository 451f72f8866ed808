/**
 * How the state is written down: one entry per lease, session, hold, ticket, lock delay and remembered request, so that
 * a change writes no more than what changed.
 *
 *     !                  [token, ceiling, serial, incarnation, servedTotalMs]     once per batch
 *     i/<incarnation>    served time of all earlier incarnations when this one began
 *     l/<lease id>       lease              s/<session id>    session
 *     h/<token>          hold               t/<serial>        ticket
 *     d/<name>           lock delay         q/<request key>   a unary Acquire that is over
 *     r/quiet            after a restore: [until when nothing is granted]
 *
 * Values are JSON arrays. What a plain exclusive Acquire does not have is in one more element, which is left out when
 * there is nothing in it. Times that go on over a restart are in served time, summed over all incarnations. Text comes
 * validated (no control characters) or JSON-escaped, as the journal asks.
 */
import type { Hold, Lease, PastRequest, Session, SessionOutcome, State, Ticket } from "./state.js";
import type { Effects, LockMode } from "./types.js";

export const HEADER_KEY = "!";
export const QUIET_KEY = "r/quiet";

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
  more?: LeaseMore,
];
/** `diedServedMs`: 0 while it lives. */
export type LeaseMore = [progressEveryMs: number, progressedIn: number, diedServedMs: number, principal?: string];
export type HoldRecord = [
  name: string,
  leaseId: string,
  seq: number,
  requestId: string,
  timestamp: number,
  owner: string,
  metadata: string,
  grantedWallMs: number,
  more?: HoldMore,
];
/** `setSize`: 0 for an Acquire. `maxHoldServedMs`: 0 for no maximum. */
export type HoldMore = [
  mode: LockMode,
  permits: number,
  permitLimit: number,
  slots: readonly number[],
  lockDelayMs: number,
  maxHoldServedMs: number,
  revoking: string | null,
  firstToken: number,
  setSize: number,
  contenderId: string,
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
  more?: TicketMore,
];
export type TicketMore = [
  items: [name: string, mode: LockMode, permits: number, permitLimit: number][],
  all: 0 | 1,
  lockDelayMs: number,
  maxHoldMs: number,
  contenderId: string,
  heldTokens: readonly number[],
];
/** `released` is most of what a busy session remembers, so it is kept short: sequence numbers alone. */
export type SessionRecord = [
  epoch: number,
  ackedBelow: number,
  released: number[],
  others: [seq: number, kind: Exclude<SessionOutcome["kind"], "released">, token: number][],
  principal?: string,
];
export type RequestRecord = [end: PastRequest["end"], token: number];

function put(fx: Effects, key: string, record: readonly unknown[]): void {
  fx.mutations.push(key, JSON.stringify(record));
}

/** A time of this incarnation as served time. Rounded up: nothing may end early for having been written down. */
const toServed = (state: State, ms: number): number => Math.ceil(state.servedOffsetMs + ms);

export function putHeader(state: State, fx: Effects, nowMs: number): void {
  const servedTotalMs = Math.floor(state.servedOffsetMs + nowMs);
  const record: HeaderRecord = [state.token, state.clock.ceiling, state.serial, state.incarnation, servedTotalMs];
  put(fx, HEADER_KEY, record);
}

export function deleteQuiet(fx: Effects): void {
  fx.mutations.push(QUIET_KEY, null);
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
  if (lease.progressEveryMs > 0 || lease.dead !== null || lease.principal !== "") {
    const diedServedMs = lease.dead === null ? 0 : toServed(state, lease.diedAtMs);
    const more: LeaseMore = [lease.progressEveryMs, lease.progressedIn, diedServedMs];
    if (lease.principal !== "") more.push(lease.principal);
    record.push(more);
  }
  put(fx, `l/${lease.id}`, record);
}

export function deleteLease(fx: Effects, lease: Lease): void {
  fx.mutations.push(`l/${lease.id}`, null);
}

export function putHold(state: State, fx: Effects, hold: Hold): void {
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
  if (!isPlainHold(hold)) record.push(moreOfHold(state, hold));
  put(fx, `h/${hold.token}`, record);
}

function isPlainHold(hold: Hold): boolean {
  return (
    hold.mode === "exclusive" &&
    hold.set === null &&
    hold.contenderId === "" &&
    hold.lockDelayMs === 0 &&
    hold.maxHoldUntilMs === Number.POSITIVE_INFINITY &&
    hold.revoking === null
  );
}

function moreOfHold(state: State, hold: Hold): HoldMore {
  const { maxHoldUntilMs, set } = hold;
  return [
    hold.mode,
    hold.permits,
    hold.permitLimit,
    hold.slots,
    hold.lockDelayMs,
    maxHoldUntilMs === Number.POSITIVE_INFINITY ? 0 : toServed(state, maxHoldUntilMs),
    hold.revoking,
    set?.firstToken ?? 0,
    set?.size ?? 0,
    hold.contenderId,
  ];
}

export function deleteHold(fx: Effects, hold: Hold): void {
  fx.mutations.push(`h/${hold.token}`, null);
}

export function putTicket(fx: Effects, ticket: Ticket): void {
  const { places, all, lockDelayMs, maxHoldMs, contenderId, heldTokens } = ticket;
  const items = places.map(({ item }): TicketMore[0][number] => [item.name, item.mode, item.permits, item.permitLimit]);
  const [name, mode] = items[0] as TicketMore[0][number];
  const record: TicketRecord = [
    name,
    ticket.lease.id,
    ticket.seq,
    ticket.requestId,
    ticket.owner,
    ticket.metadata,
    ticket.waitMs,
    ticket.queuedWallMs,
  ];
  const plain = !all && mode === "exclusive" && lockDelayMs === 0 && maxHoldMs === 0;
  if (!plain || contenderId !== "" || heldTokens.length > 0) {
    record.push([items, all ? 1 : 0, lockDelayMs, maxHoldMs, contenderId, heldTokens]);
  }
  put(fx, `t/${ticket.serial}`, record);
}

export function deleteTicket(fx: Effects, ticket: Ticket): void {
  fx.mutations.push(`t/${ticket.serial}`, null);
}

export function putDelay(state: State, fx: Effects, name: string, untilMs: number): void {
  put(fx, `d/${name}`, [toServed(state, untilMs)]);
}

export function deleteDelay(fx: Effects, name: string): void {
  fx.mutations.push(`d/${name}`, null);
}

export function putSession(fx: Effects, session: Session): void {
  const released: SessionRecord[2] = [];
  const others: SessionRecord[3] = [];
  for (const [seq, effect] of session.unacked) {
    switch (effect.kind) {
      case "lease":
      case "hold":
      case "ticket":
        break; // has a record of its own
      case "released":
        released.push(seq);
        break;
      default:
        others.push([seq, effect.kind, "token" in effect ? effect.token : 0]);
    }
  }
  const record: SessionRecord = [session.epoch, session.ackedBelow, released, others];
  if (session.principal !== "") record.push(session.principal);
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
