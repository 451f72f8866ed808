/** Every bound of the server that an operator may move, with its default. */
import { z } from "zod";
import type { CoreLimits } from "../core/types.js";
import { bytes, count, duration } from "./options.js";
import { rpcLimitOptions, watchLimitOptions } from "./rpc-limits.js";
import { formatBytes, formatDurationMs } from "./units.js";

const MILLION = 1_000_000;

const core = {
  nameBytesMax: bytes(512, 1, 4_096, "Longest name of a lock."),
  metadataBytesMax: bytes(4_096, 0, 65_536, "Largest metadata of a lease or an acquire."),
  ownerBytesMax: bytes(256, 0, 4_096, "Longest owner text of a lease or an acquire."),
  ttlMsMin: duration(500, 10, "Shortest TTL that a lease may have."),
  ttlMsMax: duration(24 * 3_600_000, 10, "Longest TTL that a lease may have."),
  ttlMsDefault: duration(15_000, 10, "TTL of a lease whose client names none."),
  waitMsMax: duration(24 * 3_600_000, 0, "Longest wait that an acquire may ask for."),
  leasesMax: count(MILLION, 1, 100 * MILLION, "Leases that live at the same time."),
  locksMax: count(MILLION, 1, 100 * MILLION, "Locks that are held or waited for at the same time."),
  waitersPerLockMax: count(100_000, 0, 10 * MILLION, "Waiters in the queue of one lock."),
  holdersPerLockMax: count(10_000, 1, 100_000, "Holders that share one lock, or hold permits of it, at the same time."),
  locksPerAcquireMax: count(64, 1, 1_024, "Locks that one AcquireAll may ask for."),
  permitLimitMax: count(
    10_000,
    1,
    MILLION,
    "Most permits that a semaphore may have, and that one AcquireAll may take of all its locks together.",
  ),
  contenderBytesMax: bytes(128, 0, 4_096, "Longest contender id of an acquire."),
  heldTokensMax: count(64, 0, 10_000, "Tokens that one acquire may name as kept while it waits."),
  lockDelayMsMax: duration(24 * 3_600_000, 0, "Longest lock delay that an acquire may ask for."),
  maxHoldMsMax: duration(24 * 3_600_000, 0, "Longest maximum hold that an acquire may ask for."),
  forceMessageBytesMax: bytes(256, 0, 4_096, "Longest reason that an administrator may give for taking a lock away."),
  deadlockSearchMax: count(
    10_000,
    1,
    MILLION,
    "Waits and holds that one search for a deadlock looks at; beyond that it is given up, and the wait goes on.",
  ),
  blockerHopsMax: count(32, 1, 1_000, "How far a description follows who blocks whom, in locks."),
  holdsPerLeaseMax: count(
    100_000,
    1,
    10 * MILLION,
    "Locks that one lease holds or waits for at the same time, and leases that one session has.",
  ),
  sessionsMax: count(100_000, 1, 10 * MILLION, "Sessions, attached or waiting to be resumed."),
  commandsPerSessionMax: count(8_192, 1, MILLION, "Unanswered or unacknowledged commands of one session."),
  requestsRememberedMax: count(
    MILLION,
    1,
    100 * MILLION,
    "Finished unary requests whose ids are remembered, so that a late duplicate has no effect.",
  ),
  requestRememberedMs: duration(300_000, 1_000, "How long the id of a finished unary request is remembered."),
  resumeMs: duration(5_000, 0, "How long a waiter whose connection broke keeps its place in the queue.", 3_600_000),
  tickCountMax: count(MILLION, 1, MILLION, "Timestamps that one Tick may ask for."),
  clockJumpPerSecondMax: count(
    MILLION,
    1,
    1_000 * MILLION,
    "How far observed timestamps may move the Lamport clock, per second and over all clients.",
  ),
  expirySliceMax: count(1_000, 1, MILLION, "Leases, holds and waiters that one step of expiry works off."),
} satisfies Record<keyof CoreLimits, z.ZodType<number>>;

const sequencer = {
  commandsInFlightMax: count(100_000, 1, 10 * MILLION, "Commands that wait for the sequencer or for the disk."),
};

/** What one principal may have and ask for, unless the policy says otherwise for it. Without authentication, nothing. */
const principal = {
  principalLeasesMax: count(MILLION, 0, 100 * MILLION, "Leases of one principal, unless the policy says otherwise."),
  principalLocksMax: count(
    MILLION,
    0,
    100 * MILLION,
    "Locks that one principal holds, unless the policy says otherwise.",
  ),
  principalWaitersMax: count(
    MILLION,
    0,
    100 * MILLION,
    "Places in queues of one principal, unless the policy says otherwise.",
  ),
  principalRequestsPerSecond: count(
    0,
    0,
    100 * MILLION,
    "Requests a second of one principal, unless the policy says otherwise; 0: as many as it likes.",
  ),
  principalRequestsBurst: count(
    10_000,
    1,
    100 * MILLION,
    "Requests that one principal may make at once after a pause, unless the policy says otherwise.",
  ),
};

export const limitsSchema = z.strictObject({
  ...core,
  ...sequencer,
  ...principal,
  ...rpcLimitOptions,
  ...watchLimitOptions,
});

/** Every bound. Has the shape that each part of the server asks for. */
export type Limits = Readonly<z.output<typeof limitsSchema>>;

/** What must hold between limits: undefined, or which one is wrong and why. */
export function checkLimits(limits: Limits): { readonly path: string; readonly message: string } | undefined {
  const { ttlMsMin: min, ttlMsMax: max, ttlMsDefault: fallback } = limits;
  const text = formatDurationMs;
  if (min > max) return { path: "ttlMsMin", message: `${text(min)} is longer than limits.ttlMsMax, ${text(max)}` };
  if (fallback < min || fallback > max) {
    const range = `limits.ttlMsMin and ttlMsMax, ${text(min)} and ${text(max)}`;
    return { path: "ttlMsDefault", message: `${text(fallback)} is not between ${range}` };
  }
  for (const [path, most] of [
    ["pageSizeDefault", "pageSizeMax"],
    ["waitersListedDefault", "waitersListedMax"],
    ["topDefault", "topMax"],
  ] as const) {
    if (limits[path] > limits[most]) {
      return { path, message: `${limits[path]} is more than limits.${most}, ${limits[most]}` };
    }
  }
  return checkSizes(limits);
}

/** A slot in a grant takes at most three bytes. */
const SLOT_BYTES = 3;

/** What one answer holds must fit into a frame, with room for the rest of it. */
function checkSizes(limits: Limits): { readonly path: string; readonly message: string } | undefined {
  const { frameBytesMax: frame, listBytesMax: list, permitLimitMax: permits } = limits;
  if (list * 2 > frame) {
    const message = `${formatBytes(list)} is more than half of limits.frameBytesMax, ${formatBytes(frame)}`;
    return { path: "listBytesMax", message };
  }
  if (permits * SLOT_BYTES * 2 > frame) {
    const message = `the slots of ${permits} permits may fill more than half of limits.frameBytesMax, ${formatBytes(frame)}`;
    return { path: "permitLimitMax", message };
  }
  return undefined;
}
