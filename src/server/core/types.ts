/**
 * What goes into the core and what comes out of it.
 *
 * The core is a state machine: `step(command, nowMs)` changes its state and puts what follows from that into an
 * `Effects`. It does no I/O, reads no clock, sets no timer and draws no random number: time and fresh identifiers come
 * with the command. Replies and events must not leave the process before the mutations of the same batch are durable;
 * that is the caller's part of the contract.
 *
 * Expected refusals are values (`Refusal`). A throw from the core is a bug.
 */

import type { CoreEvent } from "./events.js";
import type { Reply } from "./outcomes.js";

export type * from "./commands.js";
export type * from "./events.js";
export type * from "./limits.js";
export type * from "./outcomes.js";

/** Why a command was refused; identical to the `reason` on the wire. */
export type Reason =
  | "INVALID"
  | "LIMIT"
  | "UNKNOWN_LEASE"
  | "UNKNOWN_SESSION"
  | "SESSION_REPLACED"
  | "CLUSTER_MISMATCH"
  | "STALE_TOKEN"
  | "NOT_WAITING"
  | "DEADLOCK"
  | "CANCELLED_REQUEST"
  | "CLOCK_JUMP"
  | "DENIED"
  | "STORE_DOWN";

export interface Refusal {
  readonly kind: "refused";
  readonly reason: Reason;
  readonly message: string;
  /** When it may be asked again, in ms; absent: as is usual for the reason. */
  readonly retryAfterMs?: number;
  /** DEADLOCK: the waits that wait for each other, the oldest first. */
  readonly knot?: readonly KnotWait[];
}

/** One of the waits of a deadlock. */
export interface KnotWait {
  readonly ticketId: string;
  readonly owner: string;
  readonly contenderId: string;
  /** Names of the locks that it waits for. */
  readonly waitsFor: readonly string[];
  /** Names of the locks that it holds and others of the knot wait for. */
  readonly holds: readonly string[];
}

/** Why a lease ended. */
export type LeaseEndReason = "expired" | "revoked";

export type LockMode = "exclusive" | "shared" | "semaphore";

/** Who asks, as the transport has authenticated it. What it makes belongs to it, and counts against its quota. */
export interface Principal {
  /** "": nobody in particular, since authentication is off. Then everything may be used by everybody. */
  readonly name: string;
  readonly quota: Quota;
}

/** What one principal may have at the same time. */
export interface Quota {
  readonly leasesMax: number;
  /** Grants that it holds. */
  readonly locksMax: number;
  /** Places in queues. */
  readonly waitersMax: number;
}

/** Everybody, while authentication is off. */
export const anybody: Principal = {
  name: "",
  quota: {
    leasesMax: Number.POSITIVE_INFINITY,
    locksMax: Number.POSITIVE_INFINITY,
    waitersMax: Number.POSITIVE_INFINITY,
  },
};

/**
 * Where a reply goes. Opaque to the core, which keeps it with a ticket until there is something to say. One object per
 * unary call and one per stream of a session.
 */
export interface Route {
  readonly kind: "call" | "stream";
}

/** What follows from a batch of commands. */
export interface Effects {
  /** Key, value, key, value, …; a null value deletes. See `journal.ts`. */
  readonly mutations: (string | null)[];
  readonly replies: Reply[];
  readonly events: CoreEvent[];
}
