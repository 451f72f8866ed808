/** What the checker remembers of the core's state between two steps. */
import type { Hold, State, Ticket } from "../../../src/server/core/state.js";
import type { Route } from "../../../src/server/core/types.js";

export interface LeaseSnap {
  readonly id: string;
  readonly dead: boolean;
  readonly own: boolean;
  readonly ttlMs: number;
  readonly session: string;
  readonly seq: number;
  /** Holds and tickets. */
  readonly attachments: number;
}

export interface HoldSnap {
  readonly token: number;
  readonly timestamp: number;
  readonly lock: string;
  readonly leaseId: string;
  /** Of the Acquire that made it; "" when it cannot be repeated. */
  readonly identity: string;
  readonly session: string;
  readonly seq: number;
}

export interface TicketSnap {
  readonly serial: number;
  readonly lock: string;
  readonly leaseId: string;
  readonly identity: string;
  readonly session: string;
  readonly seq: number;
  readonly route: Route | null;
  readonly waitUntilMs: number;
}

export interface Snapshot {
  readonly leases: Map<string, LeaseSnap>;
  readonly holds: Map<number, HoldSnap>;
  readonly tickets: Map<number, TicketSnap>;
}

export const callIdentity = (leaseId: string, requestId: string): string =>
  requestId === "" ? "" : `call ${leaseId}/${requestId}`;
export const sessionIdentity = (sessionId: string, seq: number): string => `session ${sessionId}/${seq}`;

function identityOf(entry: Hold | Ticket): string {
  const { lease, seq, requestId } = entry;
  if (seq > 0) return sessionIdentity(lease.session?.id ?? "", seq);
  return callIdentity(lease.own ? "" : lease.id, requestId);
}

export function snapshot(state: Readonly<State>): Snapshot {
  const leases = new Map<string, LeaseSnap>();
  for (const [id, { dead, own, ttlMs, session, seq, holds, tickets }] of state.leases) {
    const attachments = holds.size + tickets.size;
    leases.set(id, { id, dead: dead !== null, own, ttlMs, session: session?.id ?? "", seq, attachments });
  }
  const holds = new Map<number, HoldSnap>();
  for (const [token, hold] of state.holds) {
    const session = hold.seq > 0 ? (hold.lease.session?.id ?? "") : "";
    const { timestamp, seq } = hold;
    const identity = identityOf(hold);
    holds.set(token, { token, timestamp, lock: hold.lock.name, leaseId: hold.lease.id, identity, session, seq });
  }
  const tickets = new Map<number, TicketSnap>();
  for (const lock of state.locks.values()) {
    for (let ticket = lock.head; ticket !== null; ticket = ticket.next) {
      const { serial, seq, route, waitUntilMs, lease } = ticket;
      const session = seq > 0 ? (lease.session?.id ?? "") : "";
      const identity = identityOf(ticket);
      tickets.set(serial, { serial, lock: lock.name, leaseId: lease.id, identity, session, seq, route, waitUntilMs });
    }
  }
  return { leases, holds, tickets };
}
