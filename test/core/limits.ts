import type { CoreLimits } from "../../src/server/core/types.js";

/** Limits for tests: generous, with short times. */
export const testLimits: CoreLimits = {
  nameBytesMax: 512,
  metadataBytesMax: 4_096,
  ownerBytesMax: 256,
  ttlMsMin: 500,
  ttlMsMax: 86_400_000,
  ttlMsDefault: 15_000,
  waitMsMax: 86_400_000,
  leasesMax: 1_000_000,
  locksMax: 2_000_000,
  waitersPerLockMax: 100_000,
  holdersPerLockMax: 10_000,
  locksPerAcquireMax: 64,
  permitLimitMax: 10_000,
  contenderBytesMax: 128,
  heldTokensMax: 64,
  lockDelayMsMax: 86_400_000,
  maxHoldMsMax: 86_400_000,
  forceMessageBytesMax: 256,
  deadlockSearchMax: 10_000,
  blockerHopsMax: 32,
  holdsPerLeaseMax: 2_000_000,
  sessionsMax: 1_000,
  commandsPerSessionMax: 8_192,
  requestsRememberedMax: 100_000,
  requestRememberedMs: 300_000,
  resumeMs: 5_000,
  tickCountMax: 1_000_000,
  clockJumpPerSecondMax: 1_000_000,
  expirySliceMax: 1_000,
};

export const CLUSTER_ID = "c0ffee00c0ffee00c0ffee00c0ffee00";
