/** What unary calls tell of their clients' wall clocks: those that create or renew a lease. */
import type { Outcome, Request } from "../core/types.js";
import type { ClientClocks, ClockReading } from "../skew/client-clocks.js";

/** What is needed of them here. */
export type LeaseClocks = Pick<ClientClocks, "lease" | "leaseEnded">;

/** A call that arrived at `arrivedAtMs` was answered. `reading`: what it tells, if it may tell anything. */
export function noteClock(
  clocks: LeaseClocks,
  request: Request,
  outcome: Outcome,
  reading: ClockReading | undefined,
  arrivedAtMs: number,
): void {
  if (request.kind === "revokeLease" && request.lease.kind === "lease") clocks.leaseEnded(request.lease.leaseId);
  if (reading === undefined || reading.wallClockMs === 0) return;
  if (outcome.kind === "lease") clocks.lease(outcome.lease, reading, arrivedAtMs);
  else if (outcome.kind === "renewed" && request.kind === "renewLease") {
    const { displayId, owner, ttlMs } = outcome;
    clocks.lease({ leaseId: request.leaseId, displayId, owner, ttlMs }, reading, arrivedAtMs);
  }
}
