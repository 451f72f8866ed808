/** What is told of the clocks of all clients: by the metrics, by Status, by `leasehold status`. */
import type { ClockOffset } from "./estimate.js";

/** Whose clock it is, for people. */
export interface ClockOwner {
  readonly owner: string;
  /** Name and version of the client library; "" for a lease that is renewed by unary calls. */
  readonly client: string;
  /** Of such a lease, else "". */
  readonly leaseDisplayId: string;
}

/** The clock of one client. */
export interface ClientClock extends ClockOffset, ClockOwner {}

export interface ClockSkewReport {
  /** Clients that tell their wall clock. */
  readonly measured: number;
  /** Those that are certainly off by more than `warnMs`. */
  readonly skewed: number;
  readonly warnMs: number;
  /** How far the one that is off most is certainly off; undefined: none tells its clock. */
  readonly certainMsMax: number | undefined;
  /** The most skewed, the worst first. */
  readonly clients: readonly ClientClock[];
  /** Not 0: this server's clock is ahead of most others' by about so much, and probably the one that is wrong. */
  readonly serverAheadMs: number;
}

/** Of fewer clients there is no majority worth the name. */
const CLIENTS_FOR_MAJORITY = 3;

/** `listedMax`: how many of the most skewed are listed. */
export function reportOf(clocks: readonly ClientClock[], warnMs: number, listedMax: number): ClockSkewReport {
  const worst: ClientClock[] = [];
  let skewed = 0;
  let certainMsMax: number | undefined;
  for (const clock of clocks) {
    const { certainMs } = clock;
    if (certainMsMax === undefined || certainMs > certainMsMax) certainMsMax = certainMs;
    if (certainMs <= warnMs) continue;
    skewed++;
    insert(worst, clock, listedMax);
  }
  const serverAheadMs = 0 - commonOffsetMs(clocks, warnMs); // not -0
  return { measured: clocks.length, skewed, warnMs, certainMsMax, clients: worst, serverAheadMs };
}

/** Into a list that is sorted, the worst first, and bounded. */
function insert(worst: ClientClock[], clock: ClientClock, listedMax: number): void {
  let at = worst.length;
  while (at > 0 && (worst[at - 1] as ClientClock).certainMs < clock.certainMs) at--;
  if (at >= listedMax) return;
  worst.splice(at, 0, clock);
  if (worst.length > listedMax) worst.pop();
}

/**
 * By how much more than half of the clients are off, if they agree within `warnMs`; else 0.
 *
 * The vote of Boyer and Moore: two clocks that disagree cancel each other out. If most agree, one of them, or one that is
 * close to them, is left over; whether most do agree is counted afterwards.
 */
function commonOffsetMs(clocks: readonly ClientClock[], warnMs: number): number {
  if (clocks.length < CLIENTS_FOR_MAJORITY) return 0;
  let candidateMs = 0;
  let votes = 0;
  for (const { offsetMs } of clocks) {
    if (votes === 0) candidateMs = offsetMs;
    votes += Math.abs(offsetMs - candidateMs) <= warnMs ? 1 : -1;
  }
  let agreeing = 0;
  let sumMs = 0;
  for (const { offsetMs, certainMs } of clocks) {
    if (certainMs <= warnMs || Math.abs(offsetMs - candidateMs) > 2 * warnMs) continue;
    agreeing++;
    sumMs += offsetMs;
  }
  return agreeing * 2 > clocks.length ? sumMs / agreeing : 0;
}

/**
 * Several leases of one program are one clock: of those with the same owner whose offsets are the same, give or take their
 * errors, only the best known is kept. Leases without an owner are each a client of their own.
 */
export function mergeLeases(leases: readonly ClientClock[]): ClientClock[] {
  const sorted = [...leases].sort(byOwnerAndOffset);
  const merged: ClientClock[] = [];
  for (const lease of sorted) {
    const last = merged.at(-1);
    if (last === undefined || lease.owner === "" || lease.owner !== last.owner || !agree(last, lease)) {
      merged.push(lease);
    } else if (lease.errorMs < last.errorMs || (lease.errorMs === last.errorMs && lease.agoMs < last.agoMs)) {
      merged[merged.length - 1] = lease;
    }
  }
  return merged;
}

function byOwnerAndOffset(a: ClientClock, b: ClientClock): number {
  if (a.owner !== b.owner) return a.owner < b.owner ? -1 : 1;
  return a.offsetMs - b.offsetMs;
}

/** Two unmeasured clocks differ by what their calls took on their way, which is seldom more than this. */
const UNMEASURED_MS = 1_000;

function agree(a: ClientClock, b: ClientClock): boolean {
  const slackMs = (clock: ClientClock) => Math.min(clock.errorMs, UNMEASURED_MS);
  return Math.abs(a.offsetMs - b.offsetMs) <= slackMs(a) + slackMs(b);
}
