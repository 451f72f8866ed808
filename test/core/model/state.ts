/**
 * All that the model knows: arrays of leases, sessions, tickets and holds, in the order in which they came. Whatever one
 * wants to know is found by looking through them.
 */
import type { CoreLimits, LockItem, LockMode, Route } from "../../../src/server/core/types.js";
import { ModelClock } from "./clock.js";

export interface ModelLease {
  readonly id: string;
  readonly serial: number;
  readonly ttlMs: number;
  /** 0: none is asked for. */
  readonly progressEveryMs: number;
  /** "": made by a unary call. */
  readonly sessionId: string;
  readonly seq: number;
  readonly own: boolean;
  /** Whose it is; "": nobody's. */
  readonly principal: string;
  ttlUntilMs: number;
  progressUntilMs: number;
  /** The incarnations of the last renewal and of the last report of progress. */
  renewedIn: number;
  progressIn: number;
  /** The server was restarted since the last renewal. */
  extended: boolean;
}

/** What an Acquire brought, whether it waits or holds. */
interface Origin {
  readonly leaseId: string;
  /** "" and 0: by a unary call. */
  readonly sessionId: string;
  readonly seq: number;
  /** Of a unary Acquire that can be repeated, else "". */
  readonly key: string;
  readonly all: boolean;
  readonly contenderId: string;
  readonly lockDelayMs: number;
}

export interface ModelTicket extends Origin {
  readonly serial: number;
  readonly items: readonly LockItem[];
  /** What its Acquire named as kept while it waits, and held something when it came. */
  readonly heldTokens: readonly number[];
  readonly maxHoldMs: number;
  readonly waitMs: number;
  waitUntilMs: number;
  /** Who is told; null: detached. */
  route: Route | null;
  /** When the request came that a grant would answer. */
  askedMs: number;
  /** Until when a unary call is held open. */
  pollUntilMs: number;
  /** When it was detached. */
  detachedMs: number;
}

/** What an Acquire was granted: one hold, or those of an AcquireAll. */
export interface ModelGrant extends Origin {
  readonly names: readonly string[];
  readonly tokens: readonly number[];
  readonly timestamp: number;
  /** How many unary calls were told and are not known to be gone. Infinity after a restart. */
  told: number;
  /** All those calls are gone: when it is taken back. */
  fetchUntilMs: number;
}

export interface ModelHold {
  readonly token: number;
  readonly name: string;
  mode: LockMode;
  readonly permits: number;
  readonly permitLimit: number;
  readonly slots: readonly number[];
  readonly grant: ModelGrant;
  maxHoldUntilMs: number;
  /** Being taken away, until then at the latest. */
  revoking: { readonly untilMs: number; readonly message: string } | null;
}

/** What a session remembers of a command. */
export type ModelEffect =
  | { readonly kind: "lease"; readonly leaseId: string }
  | { readonly kind: "ticket"; readonly serial: number }
  | { readonly kind: "grant"; readonly token: number }
  | { readonly kind: "released" | "downgraded" | "metadataSet" | "cancelled" }
  | { readonly kind: "transferred"; readonly token: number }
  /** A grant, or (0) a lease, that is over. */
  | { readonly kind: "ended"; readonly token: number };

export interface ModelSession {
  readonly id: string;
  principal: string;
  epoch: number;
  route: Route | null;
  ackedBelow: number;
  unacked: Map<number, ModelEffect>;
}

/** A unary Acquire that is over. */
export interface ModelPast {
  readonly key: string;
  readonly end: "cancelled" | "ended" | "timedOut" | "deadlock";
  readonly forgetMs: number;
}

export interface ModelDelay {
  readonly name: string;
  readonly untilMs: number;
}

export interface ModelState {
  readonly limits: CoreLimits;
  readonly clusterId: string;
  readonly clock: ModelClock;
  readonly incarnation: number;
  /** Served time when each incarnation began, by its number. */
  readonly servedAt: readonly number[];
  /** The time of the process when this incarnation began. */
  readonly startedMs: number;
  token: number;
  serial: number;
  halted: boolean;
  leases: ModelLease[];
  sessions: ModelSession[];
  /** In the order of their numbers. */
  tickets: ModelTicket[];
  holds: ModelHold[];
  pasts: ModelPast[];
  delays: ModelDelay[];
}

/** What is on the disk. */
export interface SavedModel {
  readonly state: ModelState;
  readonly sealedMs: number;
}

/** Numbers only have to rise; where they go on after a restart is the core's choice, and is checked elsewhere. */
export interface ModelFloors {
  readonly token: number;
  readonly timestamp: number;
  readonly serial: number;
}

export function emptyModel(limits: CoreLimits, clusterId: string): SavedModel {
  const clock = new ModelClock(0, limits.clockJumpPerSecondMax, 0);
  const numbers = { incarnation: 0, servedAt: [0], startedMs: 0, token: 0, serial: 0, halted: false };
  const lists = { leases: [], sessions: [], tickets: [], holds: [], pasts: [], delays: [] };
  return { state: { limits, clusterId, clock, ...numbers, ...lists }, sealedMs: 0 };
}

/** A copy that does not change with the original. Routes mean nothing to it: nobody is attached after a restart. */
export function save(state: ModelState, nowMs: number): SavedModel {
  const copies = new Map<ModelGrant, ModelGrant>();
  const grantOf = (grant: ModelGrant): ModelGrant => {
    const copy = copies.get(grant) ?? { ...grant };
    copies.set(grant, copy);
    return copy;
  };
  return {
    state: {
      ...state,
      leases: state.leases.map((lease) => ({ ...lease })),
      sessions: state.sessions.map((session) => ({ ...session, route: null, unacked: new Map(session.unacked) })),
      tickets: state.tickets.map((ticket) => ({ ...ticket, route: null })),
      holds: state.holds.map((hold) => ({ ...hold, grant: grantOf(hold.grant) })),
      pasts: [...state.pasts],
      delays: [...state.delays],
    },
    sealedMs: nowMs,
  };
}

/** The server starts, at `nowMs` of its new process, with what was saved. */
export function restart(saved: SavedModel, nowMs: number, floors: ModelFloors): ModelState {
  const { state: was, sealedMs } = save(saved.state, saved.sealedMs);
  const servedMs = (was.servedAt[was.incarnation] ?? 0) + sealedMs - was.startedMs;
  const left = (lastIn: number, spanMs: number): number => {
    if (lastIn >= was.incarnation) return nowMs + spanMs;
    return nowMs + spanMs - (servedMs - (was.servedAt[lastIn + 1] as number));
  };
  const state: ModelState = {
    ...was,
    clock: new ModelClock(floors.timestamp, was.limits.clockJumpPerSecondMax, nowMs),
    incarnation: was.incarnation + 1,
    servedAt: [...was.servedAt, servedMs],
    startedMs: nowMs,
    token: floors.token,
    serial: floors.serial,
    halted: false,
  };
  for (const lease of state.leases) {
    lease.ttlUntilMs = left(lease.renewedIn, lease.ttlMs);
    if (lease.progressEveryMs > 0) lease.progressUntilMs = left(lease.progressIn, lease.progressEveryMs);
    lease.extended = true;
  }
  for (const ticket of state.tickets) {
    ticket.waitUntilMs = nowMs + ticket.waitMs;
    ticket.detachedMs = nowMs;
  }
  for (const hold of state.holds) {
    hold.grant.told = Number.POSITIVE_INFINITY;
    hold.grant.fetchUntilMs = Number.POSITIVE_INFINITY;
    hold.maxHoldUntilMs = nowMs + hold.maxHoldUntilMs - sealedMs;
    const lease = state.leases.find(({ id }) => id === hold.grant.leaseId) as ModelLease;
    if (hold.revoking !== null) hold.revoking = { ...hold.revoking, untilMs: deadlineMs(lease) };
  }
  state.delays = state.delays.map(({ name, untilMs }) => ({ name, untilMs: nowMs + untilMs - sealedMs }));
  state.pasts = state.pasts.map((past) => ({ ...past, forgetMs: nowMs + state.limits.requestRememberedMs }));
  state.sessions = state.sessions.filter(({ id }) => state.leases.some(({ sessionId }) => sessionId === id));
  return state;
}

/** The holds that the caller of a waiting Acquire keeps until it is answered. */
export function claimsOf(state: ModelState, ticket: ModelTicket): ModelHold[] {
  const { heldTokens, contenderId, sessionId, leaseId } = ticket;
  return state.holds.filter(({ token, grant }) => {
    if (heldTokens.includes(token)) return true;
    if (contenderId === "" || grant.contenderId !== contenderId) return false;
    return sessionId === "" ? grant.leaseId === leaseId : grant.sessionId === sessionId;
  });
}

export const deadlineMs = (lease: ModelLease): number => Math.min(lease.ttlUntilMs, lease.progressUntilMs);

/** Whole milliseconds until then. */
export const untilThen = (thenMs: number, nowMs: number): number => Math.max(0, Math.floor(thenMs - nowMs));
