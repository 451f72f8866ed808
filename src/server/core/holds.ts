/**
 * Holds: granted, ended.
 *
 * A grant puts one hold on each lock of an Acquire, all in one step and with one Lamport timestamp. From then on each
 * ends by itself: the names of an AcquireAll are released one by one.
 */
import { dropClaimers, joinContender } from "./claims.js";
import { addHolder, delayLock, lowestFreeSlots, removeHolder, touch } from "./holders.js";
import { removeLease } from "./leases.js";
import { countUsage } from "./principals.js";
import { deleteHold, putHold } from "./records.js";
import { keyOf, rememberRequest } from "./requests.js";
import { storeOutcome } from "./session-log.js";
import type { Hold, HoldSet, Lease, Lock, State } from "./state.js";
import type { Effects, GrantedLock, HoldEnd, HoldFacts, LockItem, Outcome } from "./types.js";

/** What holds and tickets are made from. */
export interface Bid {
  readonly lease: Lease;
  readonly seq: number;
  readonly requestId: string;
  readonly owner: string;
  readonly metadata: string;
  readonly contenderId: string;
  readonly lockDelayMs: number;
  readonly maxHoldMs: number;
}

/** One of the locks of a bid. */
export interface Wanted {
  readonly lock: Lock;
  readonly item: LockItem;
}

/** Where a grant comes from, for the event. */
export interface Origin {
  readonly ticketId: string;
  readonly waitedMs: number;
  /** The hold that was handed over, or 0. */
  readonly transferredFrom: number;
}

export const AT_ONCE: Origin = { ticketId: "", waitedMs: 0, transferredFrom: 0 };

const NO_SLOTS: readonly number[] = [];

/** Grants all that is wanted, which must fit in. Returns the first hold. */
export function grant(
  state: State,
  fx: Effects,
  wanted: readonly Wanted[],
  all: boolean,
  bid: Bid,
  origin: Origin,
  wallMs: number,
  nowMs: number,
): Hold {
  if (state.token > Number.MAX_SAFE_INTEGER - wanted.length) throw new Error("the token range is used up");
  const timestamp = state.clock.take(1);
  const set: HoldSet | null = all ? { firstToken: state.token + 1, size: wanted.length, holds: [] } : null;
  let first: Hold | null = null;
  for (const { lock, item } of wanted) {
    const hold = makeHold(state, lock, item, bid, set, timestamp, wallMs, nowMs);
    first ??= hold;
    addHold(state, hold);
    putHold(state, fx, hold);
    fx.events.push({
      kind: "granted",
      name: lock.name,
      timestamp,
      token: hold.token,
      mode: hold.mode,
      waitedMs: origin.waitedMs,
      ticketId: origin.ticketId,
      transferredFrom: origin.transferredFrom,
      hold: factsOf(hold),
    });
  }
  if (first === null) throw new Error("a grant of nothing");
  if (bid.seq > 0) bid.lease.session?.unacked.set(bid.seq, first);
  return first;
}

function makeHold(
  state: State,
  lock: Lock,
  item: LockItem,
  bid: Bid,
  set: HoldSet | null,
  timestamp: number,
  wallMs: number,
  nowMs: number,
): Hold {
  return {
    kind: "hold",
    token: ++state.token,
    timestamp,
    lock,
    lease: bid.lease,
    seq: bid.seq,
    requestId: bid.requestId,
    owner: bid.owner,
    metadata: bid.metadata,
    contenderId: bid.contenderId,
    grantedWallMs: wallMs,
    grantedAtMs: nowMs,
    mode: item.mode,
    permits: item.permits,
    permitLimit: item.permitLimit,
    slots: item.mode === "semaphore" ? lowestFreeSlots(state, lock, item.permits) : NO_SLOTS,
    lockDelayMs: bid.lockDelayMs,
    set,
    told: 1,
    unfetchedUntilMs: Number.POSITIVE_INFINITY,
    maxHoldUntilMs: bid.maxHoldMs > 0 ? nowMs + bid.maxHoldMs : Number.POSITIVE_INFINITY,
    revoking: null,
    revokingUntilMs: Number.POSITIVE_INFINITY,
    claimers: null,
    previous: null,
    next: null,
    dueMs: 0,
    heapIndex: -1,
  };
}

/** Enters a hold into the indexes. */
export function addHold(state: State, hold: Hold): void {
  addHolder(hold.lock, hold);
  hold.lease.holds.add(hold);
  state.holds.set(hold.token, hold);
  state.held[hold.mode]++;
  countUsage(state, hold.lease.principal, "locks", 1);
  hold.set?.holds.push(hold);
  if (hold.seq > 0) hold.lease.session?.holds.add(hold);
  const key = keyOf(hold);
  if (key !== "") state.requests.set(key, hold.set?.holds[0] ?? hold);
  if (hold.contenderId !== "" && !hold.lease.own) joinContender(state, hold);
  schedule(state, hold);
}

/** Keeps one entry among the deadlines: the first moment at which the hold ends by itself. */
export function schedule(state: State, hold: Hold): void {
  const dueMs = Math.min(hold.unfetchedUntilMs, hold.maxHoldUntilMs, hold.revokingUntilMs);
  if (dueMs < Number.POSITIVE_INFINITY) state.deadlines.set(hold, dueMs);
  else state.deadlines.delete(hold);
}

/** What a hold that has become due ends by. */
export function dueEnd(hold: Hold): HoldEnd {
  if (hold.maxHoldUntilMs === hold.dueMs) return "max_hold";
  return hold.revokingUntilMs === hold.dueMs ? "forced" : "undelivered";
}

/**
 * Ends a hold. An own lease goes with its last hold. `confirmed`: the holder knows that it was taken away, by its own
 * word.
 */
export function endHold(state: State, fx: Effects, hold: Hold, end: HoldEnd, nowMs: number, confirmed = false): void {
  const { lock, lease } = hold;
  const endedAtMs = lease.dead === null ? nowMs : lease.diedAtMs;
  removeHold(state, hold);
  deleteHold(fx, hold);
  forgetRequest(state, fx, hold, nowMs);
  if (lease.own && lease.holds.size + lease.tickets.size === 0) removeLease(state, fx, lease);
  const unconfirmed = end === "expired" || end === "max_hold" || (end === "forced" && !confirmed);
  if (unconfirmed && endedAtMs + hold.lockDelayMs > nowMs) {
    delayLock(state, fx, lock, endedAtMs + hold.lockDelayMs);
  }
  const message = end === "forced" ? (hold.revoking ?? "") : "";
  fx.events.push({
    kind: "holdEnded",
    name: lock.name,
    // A transfer is one event with its grant, which follows.
    timestamp: end === "transferred" ? state.clock.now + 1 : state.clock.take(1),
    token: hold.token,
    mode: hold.mode,
    end,
    heldMs: Math.max(0, endedAtMs - hold.grantedAtMs), // a restart may lie between a death and its clearing
    message,
  });
  if (end === "max_hold" || (end === "forced" && !confirmed)) tellHolder(fx, hold, end, message, false);
  touch(state, lock);
}

/** Before somebody else is granted the lock: watchers are told that a dead lease's hold has ended before who is next. */
export function endDeadHolds(state: State, fx: Effects, lock: Lock, nowMs: number): void {
  for (let hold = lock.first; hold !== null; ) {
    const { next, lease } = hold;
    if (lease.dead !== null) endHold(state, fx, hold, lease.dead, nowMs);
    hold = next;
  }
}

function removeHold(state: State, hold: Hold): void {
  const { lease, set } = hold;
  removeHolder(hold.lock, hold);
  lease.holds.delete(hold);
  lease.revoking?.delete(hold);
  state.holds.delete(hold.token);
  state.held[hold.mode]--;
  countUsage(state, lease.principal, "locks", -1);
  state.deadlines.delete(hold);
  dropClaimers(state, hold);
  if (hold.seq > 0) lease.session?.holds.delete(hold);
  set?.holds.splice(set.holds.indexOf(hold), 1);
}

/** What the Acquire is remembered by passes on to another hold of its set, or becomes a remembered end. */
function forgetRequest(state: State, fx: Effects, hold: Hold, nowMs: number): void {
  const { lease, set, seq } = hold;
  const key = keyOf(hold);
  const other = set?.holds[0];
  const token = set?.firstToken ?? hold.token;
  if (seq > 0 && lease.session?.unacked.get(seq) === hold) {
    if (other !== undefined) lease.session.unacked.set(seq, other);
    else storeOutcome(state, lease.session, seq, { kind: "ended", token });
  }
  if (key === "") return;
  if (other !== undefined) state.requests.set(key, other);
  else rememberRequest(state, fx, key, "ended", token, nowMs);
}

/** Tells the session of a hold that it ends, or has ended, if it is there to hear it. */
export function tellHolder(
  fx: Effects,
  hold: Hold,
  reason: "forced" | "max_hold",
  message: string,
  confirm: boolean,
): void {
  const route = hold.seq > 0 ? hold.lease.session?.route : undefined;
  if (route) fx.replies.push({ kind: "holdEnd", route, token: hold.token, reason, confirm, message });
}

/** What events tell of a hold. */
export function factsOf(hold: Hold): HoldFacts {
  return {
    token: hold.token,
    timestamp: hold.timestamp,
    owner: hold.owner || hold.lease.owner,
    metadata: hold.metadata || hold.lease.metadata,
    mode: hold.mode,
    permits: hold.permits,
    permitLimit: hold.permitLimit,
    slots: hold.slots,
    leaseDisplayId: hold.lease.displayId,
    contenderId: hold.contenderId,
  };
}

const granted = (hold: Hold): GrantedLock => ({ name: hold.lock.name, token: hold.token, slots: hold.slots });

/**
 * The answer to the Acquire that this hold was granted to, as it is now. Its client counts from when it sent that
 * Acquire; so the maximum hold is told with the time that has passed since it came, at `askedAtMs`.
 */
export function grantOutcome(hold: Hold, nowMs: number, askedAtMs = nowMs): Outcome {
  const { lease, set } = hold;
  if (set !== null && set.holds.length < set.size) return ended(firstEnded(set));
  const revoking = set === null ? (hold.revoking === null ? undefined : hold) : set.holds.find(isRevoking);
  if (revoking !== undefined) return ended(revoking.token, "is being taken away");
  return {
    kind: "grant",
    grants: set === null ? [granted(hold)] : set.holds.map(granted),
    all: set !== null,
    timestamp: hold.timestamp,
    leaseId: lease.id,
    leaseTtlMs: lease.ttlMs,
    leaseRemainingMs: promisedMs(hold, nowMs),
    maxHoldRemainingMs: maxHoldRemainingMs(hold, askedAtMs),
  };
}

const isRevoking = (hold: Hold): boolean => hold.revoking !== null;

/** Whether an Acquire that asks again for what it was granted can still be told of it. */
export function isWhole(hold: Hold): boolean {
  const { set } = hold;
  return set === null ? !isRevoking(hold) : set.holds.length === set.size && !set.holds.some(isRevoking);
}

/**
 * How long the lease lasts, for one who was granted something. A unary caller may not know yet that another hold of the
 * lease is being taken away; it must not be led to believe in that one any longer than it does.
 */
function promisedMs({ lease, seq }: Hold, nowMs: number): number {
  let untilMs = lease.deadlineMs;
  if (seq === 0 && lease.revoking !== null) {
    for (const other of lease.revoking) untilMs = Math.min(untilMs, other.revokingUntilMs);
  }
  return Math.max(0, Math.floor(untilMs - nowMs));
}

/** What an Acquire is answered that was granted and asks again after the grant has ended. */
export function ended(token: number, how = "has ended"): Outcome {
  return { kind: "refused", reason: "STALE_TOKEN", message: `token ${token} was granted and ${how}` };
}

/** The lowest token of a set that has ended. */
function firstEnded(set: HoldSet): number {
  const index = set.holds.findIndex((hold, at) => hold.token !== set.firstToken + at);
  return set.firstToken + (index < 0 ? set.holds.length : index);
}

/** Whole milliseconds until the hold ends by its own maximum; 0: it has none. */
export function maxHoldRemainingMs(hold: Hold, nowMs: number): number {
  if (hold.maxHoldUntilMs === Number.POSITIVE_INFINITY) return 0;
  return Math.max(0, Math.floor(hold.maxHoldUntilMs - nowMs));
}
