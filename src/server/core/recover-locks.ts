/** Holds, tickets and lock delays, from their records. */
import { markRevoking } from "./force.js";
import { addDelay, ensureLock, isAlive } from "./holders.js";
import { addHold } from "./holds.js";
import type { HoldMore, HoldRecord, TicketMore, TicketRecord } from "./records.js";
import type { Hold, HoldSet, Lease, Lock, State } from "./state.js";
import { addTicket, detachTicket, makeTicket } from "./tickets.js";
import type { LockItem } from "./types.js";

function findLease(state: State, leaseId: string, what: string): Lease {
  const lease = state.leases.get(leaseId);
  if (lease === undefined) throw new Error(`${what} names a lease that is not there`);
  return lease;
}

const PLAIN_HOLD: HoldMore = ["exclusive", 0, 0, [], 0, 0, null, 0, 0, ""];

/** Reads holds, in the order of their tokens. */
export class HoldReader {
  readonly #state: State;
  readonly #nowMs: number;
  readonly #sets = new Map<number, HoldSet>();

  constructor(state: State, nowMs: number) {
    this.#state = state;
    this.#nowMs = nowMs;
  }

  read(token: number, record: HoldRecord): void {
    const state = this.#state;
    const [name, leaseId, seq, requestId, timestamp, owner, metadata, grantedWallMs, more = PLAIN_HOLD] = record;
    const [mode, permits, permitLimit, slots, lockDelayMs, maxHoldServedMs, revoking, firstToken, setSize] = more;
    const hold: Hold = {
      kind: "hold",
      token,
      timestamp,
      lock: ensureLock(state, name),
      lease: findLease(state, leaseId, `the hold with token ${token}`),
      seq,
      requestId,
      owner,
      metadata,
      contenderId: more[9],
      grantedWallMs,
      grantedAtMs: this.#nowMs,
      mode,
      permits,
      permitLimit,
      slots,
      lockDelayMs,
      set: setSize > 0 ? this.#set(firstToken, setSize) : null,
      told: Number.POSITIVE_INFINITY,
      unfetchedUntilMs: Number.POSITIVE_INFINITY,
      maxHoldUntilMs: maxHoldServedMs > 0 ? maxHoldServedMs - state.servedOffsetMs : Number.POSITIVE_INFINITY,
      revoking: null,
      revokingUntilMs: Number.POSITIVE_INFINITY,
      claimers: null,
      previous: null,
      next: null,
      dueMs: 0,
      heapIndex: -1,
    };
    if (revoking !== null) markRevoking(hold, revoking);
    addHold(state, hold);
    const { session } = hold.lease;
    if (seq > 0 && session !== null && seq >= session.ackedBelow) {
      session.unacked.set(seq, hold.set?.holds[0] ?? hold);
    }
  }

  #set(firstToken: number, size: number): HoldSet {
    let set = this.#sets.get(firstToken);
    if (set === undefined) {
      set = { firstToken, size, holds: [] };
      this.#sets.set(firstToken, set);
    }
    return set;
  }
}

/** Two holds that do not go together prove that the entries are wrong. */
export function checkHolders(lock: Lock): void {
  let first: Hold | null = null;
  let [permits, limit] = [0, Number.POSITIVE_INFINITY];
  const slots = new Set<number>();
  for (let hold = lock.first; hold !== null; hold = hold.next) {
    if (!isAlive(hold)) continue;
    permits += hold.permits;
    limit = Math.min(limit, hold.permitLimit);
    const free = hold.slots.every((slot) => !slots.has(slot));
    for (const slot of hold.slots) slots.add(slot);
    if (first === null) first = hold;
    else if (hold.mode === "exclusive" || hold.mode !== first.mode || permits > limit || !free) {
      throw new Error(`tokens ${first.token} and ${hold.token} both hold ${JSON.stringify(lock.name)}`);
    }
  }
}

export function recoverTicket(state: State, serial: number, record: TicketRecord, nowMs: number): void {
  const [name, leaseId, seq, requestId, owner, metadata, waitMs, queuedWallMs, more] = record;
  const plain: TicketMore = [[[name, "exclusive", 0, 0]], 0, 0, 0, "", []];
  const [items, all, lockDelayMs, maxHoldMs, contenderId, heldTokens] = more ?? plain;
  const lease = findLease(state, leaseId, `ticket T${serial}`);
  const wanted = items.map(([itemName, mode, permits, permitLimit]) => {
    const item: LockItem = { name: itemName, mode, permits, permitLimit };
    return { lock: ensureLock(state, itemName), item };
  });
  const bid = { lease, seq, requestId, owner, metadata, contenderId, lockDelayMs, maxHoldMs };
  const ticket = makeTicket(serial, wanted, bid, { all: all === 1, heldTokens, waitMs, queuedWallMs }, nowMs);
  addTicket(state, ticket);
  detachTicket(state, ticket, nowMs);
  // A search for a deadlock may have been left for a step that never came.
  for (const hold of ticket.claims ?? []) state.suspects.add(hold);
}

export function recoverDelay(state: State, name: string, untilServedMs: number): void {
  addDelay(state, ensureLock(state, name), untilServedMs - state.servedOffsetMs);
}
