/** Every bound that the core enforces. */
export interface CoreLimits {
  readonly nameBytesMax: number;
  readonly metadataBytesMax: number;
  readonly ownerBytesMax: number;
  readonly ttlMsMin: number;
  readonly ttlMsMax: number;
  readonly ttlMsDefault: number;
  readonly waitMsMax: number;
  readonly leasesMax: number;
  readonly locksMax: number;
  readonly waitersPerLockMax: number;
  readonly holdersPerLockMax: number;
  /** Names of one AcquireAll. */
  readonly locksPerAcquireMax: number;
  readonly permitLimitMax: number;
  readonly contenderBytesMax: number;
  readonly heldTokensMax: number;
  readonly lockDelayMsMax: number;
  readonly maxHoldMsMax: number;
  /** Bytes of an administrator's reason. */
  readonly forceMessageBytesMax: number;
  /** Tickets and holds that one search for a deadlock looks at. */
  readonly deadlockSearchMax: number;
  /** Hops over which DescribeLock follows who blocks whom. */
  readonly blockerHopsMax: number;
  /** Holds and waits of one lease, and leases of one session. */
  readonly holdsPerLeaseMax: number;
  readonly sessionsMax: number;
  /** Unanswered or unacknowledged commands of one session. */
  readonly commandsPerSessionMax: number;
  /** Ids of unary requests that are remembered after their end, so that a late duplicate has no effect. */
  readonly requestsRememberedMax: number;
  readonly requestRememberedMs: number;
  /** How long a waiter whose connection broke keeps its place. */
  readonly resumeMs: number;
  /** Timestamps per Tick. */
  readonly tickCountMax: number;
  /** By how much observed timestamps may move the Lamport clock, per second of served time. */
  readonly clockJumpPerSecondMax: number;
  /** Leases, holds and tickets that one `expire` command works off. */
  readonly expirySliceMax: number;
}
