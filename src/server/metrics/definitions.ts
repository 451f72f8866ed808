/** Bounds of histograms and values of labels. All labels are known in advance: never a name, a holder or a token. */
import type { CoreEvent, HoldEnd, LeaseEndReason, LockMode, Refusal, Request } from "../core/types.js";
import type { JournalObserver } from "../journal/journal.js";
import type { WireReason } from "../rpc/errors.js";
import type { AuthFailure } from "../security/failures.js";

/** 0.1 ms to 5 s, in seconds. */
export const SHORT_BOUNDS = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
] as const;
/** 1 ms to 30 min, in seconds. */
export const ACQUIRE_BOUNDS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 30, 60, 300, 900, 1_800,
] as const;
/** 10 ms to 6 h, in seconds. */
export const HOLD_BOUNDS = [0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 1_800, 3_600, 10_800, 21_600] as const;
/** 1 ms to 10 s, in seconds. */
export const LAG_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const;
export const BATCH_BOUNDS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384] as const;
export const RATIO_BOUNDS = [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1] as const;

type Event<K extends CoreEvent["kind"]> = Extract<CoreEvent, { kind: K }>;

/** Lists every member of a union of texts: one that is missing or too many does not compile. */
const all =
  <T extends string>() =>
  (values: Readonly<Record<T, true>>): readonly T[] =>
    Object.keys(values) as T[];

export const lockModes = all<LockMode>()({ exclusive: true, shared: true, semaphore: true });

export type AcquireOutcome = Event<"acquireEnded">["outcome"] | "granted";
export const acquireOutcomes = all<AcquireOutcome>()({
  granted: true,
  busy: true,
  timeout: true,
  cancelled: true,
  expired: true,
  deadlock: true,
});

export const holdEnds = all<HoldEnd>()({
  released: true,
  expired: true,
  revoked: true,
  cancelled: true,
  undelivered: true,
  transferred: true,
  max_hold: true,
  forced: true,
});

/** hung: it was renewed, but its holder reported no progress. */
export type LeaseEnd = LeaseEndReason | "hung";
export const leaseEnds = all<LeaseEnd>()({ expired: true, revoked: true, hung: true });
export const renewalResults = all<Event<"leaseRenewed">["result"]>()({ ok: true, unknown: true });

export type ResumeResult = Exclude<Event<"sessionAttached">["result"], "new">;
export const resumeResults = all<ResumeResult>()({ resumed: true, unknown: true, stale: true });

/** What a request may be refused for. */
export const refusalReasons = all<WireReason>()({
  INVALID: true,
  LIMIT: true,
  UNKNOWN_LEASE: true,
  UNKNOWN_SESSION: true,
  SESSION_REPLACED: true,
  CLUSTER_MISMATCH: true,
  STALE_TOKEN: true,
  NOT_WAITING: true,
  DEADLOCK: true,
  CANCELLED_REQUEST: true,
  CLOCK_JUMP: true,
  DENIED: true,
  UNAUTHENTICATED: true,
  STORE_DOWN: true,
  CLOSED: true,
  OUTCOME_UNKNOWN: true,
  INTERNAL: true,
});

/** What is wrong with who asks. denied: it is known who it is, but it may not do that. */
export type AuthFailureReason = AuthFailure["kind"] | "denied";
export const authFailureReasons = all<AuthFailureReason>()({
  missing: true,
  malformed: true,
  unknown: true,
  expired: true,
  denied: true,
});

export const rpcs = [
  ...["CreateLease", "RenewLease", "RevokeLease", "GetLease", "ListLeases"],
  ...["Acquire", "AcquireAll", "CancelAcquire", "Release", "Transfer", "Downgrade", "SetMetadata"],
  ...["Watch", "Validate", "DescribeLock", "ListLocks"],
  ...["Tick", "Attach", "Status", "ForceRelease", "TopLocks", "Backup", "SetLogLevel"],
  "other",
] as const;
export type Rpc = (typeof rpcs)[number];

const rpcOfKind = {
  createLease: "CreateLease",
  renewLease: "RenewLease",
  revokeLease: "RevokeLease",
  getLease: "GetLease",
  listLeases: "ListLeases",
  acquire: "Acquire",
  cancelAcquire: "CancelAcquire",
  release: "Release",
  transfer: "Transfer",
  downgrade: "Downgrade",
  setMetadata: "SetMetadata",
  forceRelease: "ForceRelease",
  validate: "Validate",
  describeLock: "DescribeLock",
  listLocks: "ListLocks",
  topLocks: "TopLocks",
  tick: "Tick",
  status: "Status",
  refused: "other", // what it would have been is not known any more
} as const satisfies Record<(Request | Refusal)["kind"], Rpc>;

/** As what a request of a session is counted. */
export const rpcOfRequest = (request: Request | Refusal): Rpc =>
  request.kind === "acquire" && request.all ? "AcquireAll" : rpcOfKind[request.kind];

/** What a holder may ask for with a token that is stale. */
export const staleTokenRpcs = {
  release: "Release",
  transfer: "Transfer",
  downgrade: "Downgrade",
  setMetadata: "SetMetadata",
} as const satisfies Record<Event<"staleToken">["rpc"], Rpc>;

export type JournalOperation = Parameters<NonNullable<JournalObserver["error"]>>[0];
export const journalOperations = all<JournalOperation>()({ append: true, checkpoint: true, open: true, close: true });
