/**
 * What comes in and what goes out, as schemas: requests are checked by them, the description that programs read is made of
 * them, and the tests hold every answer against them.
 */
import { z } from "zod";

const INTEGER_MAX = Number.MAX_SAFE_INTEGER;
const natural = z.int().min(0).max(INTEGER_MAX);
const milliseconds = z.number().min(0);

const duration = z
  .union([z.int().min(0).max(INTEGER_MAX), z.string().regex(/^\d{1,15}(?:\.\d{1,9})?(?:ms|s|m|h)$/)])
  .describe('Whole milliseconds, or text such as "500ms", "15s", "1.5m", "2h".');

/** How a lock is asked for. */
const request = {
  mode: z.enum(["exclusive", "shared"]).optional().describe("Alone (default), or together with all who share it."),
  permits: z
    .int()
    .min(1)
    .optional()
    .describe("Makes it a semaphore of so many permits; the smallest number that a holder gives counts."),
  take: z.int().min(1).optional().describe("How many of the permits to take. Default: 1."),
  wait: duration.optional().describe("How long to wait for the lock. Default: 0, not at all."),
  ttl: duration
    .optional()
    .describe("The TTL of a lease of its own. Default: the lease that the sidecar's locks share."),
  maxHold: duration.optional().describe("The hold ends this long after the grant, whatever happens."),
  lockDelay: duration.optional().describe("Nobody gets the lock for so long after a hold that was lost. Default: 0."),
  owner: z.string().max(256).optional().describe("Who holds, for people. Default: the sidecar's."),
  metadata: z.string().max(4_096).optional().describe("What others may see of this hold."),
  holding: z
    .array(z.string().max(64))
    .max(64)
    .optional()
    .describe("Ids of holds that the caller keeps while it waits, so that a deadlock is found."),
};

export const holdRequest = z.strictObject(request);
export const acquireRequest = z.strictObject({
  ...request,
  heartbeat: duration
    .optional()
    .describe("The hold is lost when no /keep has come for so long. This or maxHold is required."),
  requestId: z
    .string()
    .min(1)
    .max(128)
    .optional()
    .describe("Repeated with the same id, the request is answered with the hold that it led to the first time."),
});
export type AcquireBody = z.output<typeof acquireRequest>;

export const releaseRequest = z.strictObject({ token: natural.describe("The token of the hold.") });
export const tickRequest = z.strictObject({
  observed: natural.optional().describe("A timestamp that came with a message; what is drawn is higher."),
  count: z.int().min(1).max(1_000_000).optional().describe("How many timestamps. Default: 1."),
});
export const observeRequest = z.strictObject({ timestamp: natural });

const mode = z.enum(["exclusive", "shared", "semaphore"]);
const lostReason = z
  .string()
  .describe(
    "expired, forced, revoked, max_hold, transferred, session_replaced, unknown_to_server, or closing: the sidecar stops.",
  );
const belief = {
  remainingMs: milliseconds.describe("For so long the lock is held at least, as of the writing of this answer."),
  untilMonotonicMs: milliseconds.describe(
    "The same as a moment of this machine's CLOCK_MONOTONIC, in milliseconds: it does not go stale on its way.",
  ),
};

export const hold = z.strictObject({
  holdId: z.string(),
  name: z.string(),
  mode,
  token: natural.describe("The fencing token: send it along with every write."),
  timestamp: natural.describe("The Lamport timestamp of the grant."),
  slots: z.array(natural).describe("Semaphores: which permits, numbered from 0."),
  state: z.enum(["held", "jeopardy", "lost", "released"]),
  ...belief,
  tie: z.enum(["connection", "heartbeat", "maxHold"]).describe("What ends it when the application is gone."),
  heartbeatMs: natural.optional(),
  lost: lostReason.optional(),
});
export type HoldBody = z.output<typeof hold>;

export const holdList = z.strictObject({ holds: z.array(hold), total: natural });
export const released = z.strictObject({
  released: z.boolean().describe("Whether this request released it; false: it was lost before."),
});

/** A line of the stream. */
export const streamEvent = z.discriminatedUnion("event", [
  z.strictObject({ event: z.literal("granted"), ...hold.shape }),
  z.strictObject({ event: z.literal("alive"), ...belief }),
  z.strictObject({ event: z.literal("jeopardy"), ...belief }),
  z.strictObject({ event: z.literal("recovered"), ...belief }),
  z.strictObject({ event: z.literal("yield"), ...belief, reason: z.enum(["max_hold", "closing"]) }),
  z.strictObject({ event: z.literal("lost"), reason: lostReason }),
  z.strictObject({ event: z.literal("released") }),
]);
export type StreamEvent = z.output<typeof streamEvent>;

const holder = z.strictObject({
  owner: z.string(),
  token: natural,
  mode,
  heldMs: milliseconds,
  leaseRemainingMs: milliseconds,
});
const taken = { holdersTotal: natural, reserved: z.boolean(), delayRemainingMs: milliseconds };

export const lock = z.strictObject({
  name: z.string(),
  holders: z.array(
    z.strictObject({
      ...holder.shape,
      timestamp: natural,
      metadata: z.string(),
      slots: z.array(natural),
      revoking: z.boolean(),
    }),
  ),
  waiters: z.array(
    z.strictObject({
      ticketId: z.string(),
      position: natural,
      owner: z.string(),
      mode,
      waitedMs: milliseconds,
      attached: z.boolean(),
    }),
  ),
  waitersTotal: natural,
  ...taken,
});
export type LockBody = z.output<typeof lock>;

export const status = z.strictObject({
  version: z.string(),
  uptimeMs: milliseconds,
  connection: z.string().describe("connected, idle (opened again when needed), connecting, disconnected, closed"),
  draining: z.boolean(),
  holds: natural,
  waits: natural,
  timestamp: natural,
});
export const range = z.strictObject({ first: natural, last: natural, timestamp: natural });
export const timestamp = z.strictObject({ timestamp: natural });
export const leader = z.strictObject({
  name: z.string(),
  isLeader: z.boolean().describe("Whether this sidecar leads, at this moment."),
  token: natural.nullable().describe("Its fencing token if it leads."),
  since: z.string().nullable().describe("For people: when it was elected, by this machine's clock."),
  leader: z
    .strictObject({ token: natural, owner: z.string(), value: z.string() })
    .nullable()
    .describe("Who leads, as the server last said; null: nobody, or not known yet."),
});

export const problem = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string().describe("As the client library's error codes; NOT_FOUND besides."),
  retryable: z.boolean().describe("Whether the same request may succeed later."),
  busy: z.strictObject({ name: z.string(), holders: z.array(holder), waiters: natural, ...taken }).optional(),
  lost: lostReason.optional(),
  knot: z
    .array(z.strictObject({ owner: z.string(), waitsFor: z.array(z.string()), holds: z.array(z.string()) }))
    .optional(),
});
export interface ProblemBody extends z.output<typeof problem> {}
