/** What the checker remembers of the core's state between two steps. */
import type { Hold, State, Ticket } from "../../../src/server/core/state.js";
import type { LockItem, Route } from "../../../src/server/core/types.js";
import type { Held } from "../model/compatible.js";

export interface LeaseSnap {
  readonly id: string;
  readonly dead: boolean;
  readonly own: boolean;
  readonly principal: string;
  readonly ttlMs: number;
  readonly progressEveryMs: number;
  readonly session: string;
  readonly seq: number;
}

export interface HoldSnap extends Held {
  readonly token: number;
  readonly timestamp: number;
  readonly lock: string;
  readonly leaseId: string;
  /** Of the Acquire that made it; "" when it cannot be repeated. */
  readonly identity: string;
  readonly session: string;
  readonly seq: number;
  readonly slots: readonly number[];
  readonly contenderId: string;
  readonly lockDelayMs: number;
  readonly maxHoldUntilMs: number;
  /** Not NaN: it is being taken away, until then at the latest. */
  readonly revokingUntilMs: number;
  /** All that the Acquire was granted is held, and nothing of it being taken away. */
  readonly whole: boolean;
}

export interface TicketSnap {
  readonly serial: number;
  readonly items: readonly LockItem[];
  readonly leaseId: string;
  readonly identity: string;
  readonly session: string;
  readonly seq: number;
  readonly route: Route | null;
  readonly waitUntilMs: number;
  readonly contenderId: string;
  readonly heldTokens: readonly number[];
}

export interface Snapshot {
  readonly leases: Map<string, LeaseSnap>;
  readonly holds: Map<number, HoldSnap>;
  readonly tickets: Map<number, TicketSnap>;
}

export const emptySnapshot = (): Snapshot => ({ leases: new Map(), holds: new Map(), tickets: new Map() });

export const callIdentity = (leaseId: string, principal: string, requestId: string): string =>
  requestId === "" ? "" : `call ${leaseId === "" ? `by ${principal}` : leaseId}/${requestId}`;
export const sessionIdentity = (sessionId: string, seq: number): string => `session ${sessionId}/${seq}`;

function identityOf(entry: Hold | Ticket): string {
  const { lease, seq, requestId } = entry;
  if (seq > 0) return sessionIdentity(lease.session?.id ?? "", seq);
  return callIdentity(lease.own ? "" : lease.id, lease.principal, requestId);
}

export function snapshot(state: Readonly<State>): Snapshot {
  const leases = new Map<string, LeaseSnap>();
  for (const [id, { dead, own, principal, ttlMs, progressEveryMs, session, seq }] of state.leases) {
    const life = { dead: dead !== null, own, principal, ttlMs, progressEveryMs };
    leases.set(id, { id, ...life, session: session?.id ?? "", seq });
  }
  const holds = new Map<number, HoldSnap>();
  for (const [token, hold] of state.holds) holds.set(token, snapHold(hold));
  const tickets = new Map<number, TicketSnap>();
  for (const [serial, ticket] of state.tickets) tickets.set(serial, snapTicket(ticket));
  return { leases, holds, tickets };
}

const sessionOf = ({ seq, lease }: Hold | Ticket): string => (seq > 0 ? (lease.session?.id ?? "") : "");

function snapHold(hold: Hold): HoldSnap {
  const { token, timestamp, seq, mode, permits, permitLimit, slots, contenderId, lockDelayMs, maxHoldUntilMs } = hold;
  const { set } = hold;
  const together = set?.holds ?? [hold];
  return {
    token,
    timestamp,
    lock: hold.lock.name,
    leaseId: hold.lease.id,
    identity: identityOf(hold),
    session: sessionOf(hold),
    seq,
    mode,
    permits,
    permitLimit,
    slots,
    contenderId,
    lockDelayMs,
    maxHoldUntilMs,
    revokingUntilMs: hold.revoking === null ? Number.NaN : hold.revokingUntilMs,
    whole: (set?.size ?? 1) === together.length && together.every(({ revoking }) => revoking === null),
  };
}

function snapTicket(ticket: Ticket): TicketSnap {
  const { serial, seq, route, waitUntilMs, lease, places, contenderId, heldTokens } = ticket;
  const items = places.map(({ item }) => item);
  const identity = identityOf(ticket);
  const session = sessionOf(ticket);
  return { serial, items, leaseId: lease.id, identity, session, seq, route, waitUntilMs, contenderId, heldTokens };
}
