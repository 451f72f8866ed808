/** Leases: made, renewed, shown. */
import type { Meaning } from "./meaning.js";
import { deadlineMs, type ModelLease, untilThen } from "./state.js";
import type { Step } from "./step.js";

type NewLease = Pick<ModelLease, "id" | "ttlMs" | "progressEveryMs" | "sessionId" | "seq" | "own" | "principal">;

export function newLease(step: Step, init: NewLease): ModelLease {
  const { state, nowMs } = step;
  const { incarnation } = state;
  const { ttlMs, progressEveryMs } = init;
  const lease: ModelLease = {
    ...init,
    serial: ++state.serial,
    ttlUntilMs: nowMs + ttlMs,
    progressUntilMs: progressEveryMs === 0 ? Number.POSITIVE_INFINITY : nowMs + progressEveryMs,
    renewedIn: incarnation,
    progressIn: incarnation,
    extended: false,
  };
  state.leases.push(lease);
  return lease;
}

/** A report of progress for a lease that asks for none is a renewal. */
export function renew({ state, nowMs }: Step, lease: ModelLease, progress: boolean): void {
  lease.ttlUntilMs = nowMs + lease.ttlMs;
  lease.renewedIn = state.incarnation;
  lease.extended = false;
  if (!progress || lease.progressEveryMs === 0) return;
  lease.progressUntilMs = nowMs + lease.progressEveryMs;
  lease.progressIn = state.incarnation;
}

export function viewLease(step: Step, lease: ModelLease): Meaning {
  const { state, nowMs } = step;
  const { id, ttlMs, progressEveryMs, extended } = lease;
  const places = state.tickets.filter(({ leaseId }) => leaseId === id).flatMap(({ items }) => items);
  return {
    kind: "lease",
    leaseId: id,
    ttlMs,
    remainingMs: untilThen(deadlineMs(lease), nowMs),
    holds: state.holds.filter(({ grant }) => grant.leaseId === id).length,
    waits: places.length,
    progressEveryMs,
    extended,
  };
}
