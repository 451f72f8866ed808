/**
 * A belief that can be handed to another process: "when this stamp was taken, the lock was ours for so many more
 * milliseconds". Its end lies at a fixed moment of a clock that all processes of one machine share, so a message that
 * lay in a pipe, or a reader that was stopped, makes it no longer.
 *
 * Elapsed time is the monotonic clock plus, on Linux, the time that the machine slept: there the monotonic clock stands
 * still during sleep and the uptime does not. The uptime counts in steps of 10 ms, hence the tolerance of 20. On macOS
 * the monotonic clock counts sleep itself. The client library keeps time by the same rule; it is stated again here
 * because the guardian loads nothing but Node's own modules.
 */
import { uptime } from "node:os";

/** A moment, as every process of this machine would have stamped it. */
export interface Stamp {
  readonly monotonicMs: number;
  /** Uptime less monotonic time: it grows by what the machine sleeps. 0 where the monotonic clock counts sleep. */
  readonly sleptMs: number;
}

export interface Belief {
  readonly stamp: Stamp;
  /** Milliseconds from the stamp on for which the lock is ours. */
  readonly remainingMs: number;
}

const UPTIME_TOLERANCE_MS = 20;
const COUNTS_NO_SLEEP = process.platform === "linux";

const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;

/** The present moment. */
export function stamp(): Stamp {
  const nowMs = monotonicMs();
  if (!COUNTS_NO_SLEEP) return { monotonicMs: nowMs, sleptMs: 0 };
  // Two clocks are read one after the other: if the process was held up in between, they are read again.
  let sleptMs = 0;
  let narrowestMs = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 3 && narrowestMs > 1; i++) {
    const beforeMs = monotonicMs();
    const upMs = uptime() * 1_000;
    const widthMs = monotonicMs() - beforeMs;
    if (widthMs < narrowestMs) {
      narrowestMs = widthMs;
      sleptMs = upMs - beforeMs;
    }
  }
  return { monotonicMs: nowMs, sleptMs };
}

/** Milliseconds from one moment to a later one, the machine's sleep included. */
export function elapsedMs(from: Stamp, to: Stamp): number {
  return to.monotonicMs - from.monotonicMs + Math.max(0, to.sleptMs - from.sleptMs - UPTIME_TOLERANCE_MS);
}

/** Milliseconds of the belief that are left; negative when it is over. */
export function remainingMs(belief: Belief, now: Stamp): number {
  return belief.remainingMs - elapsedMs(belief.stamp, now);
}

/** How long before the end of the belief the command is asked, and then forced, to end. */
export interface Plan {
  /** Between SIGTERM and SIGKILL. */
  readonly graceMs: number;
  /** Between SIGKILL and the end of the belief. */
  readonly marginMs: number;
}

/**
 * The plan for a lock, or why there is none: with a TTL below three times grace plus margin, the command would be ended
 * when one renewal is late.
 */
export function planFor(
  ttlMs: number,
  graceMs: number,
): { ok: true; plan: Plan } | { ok: false; marginMs: number; ttlMsMin: number } {
  const marginMs = Math.max(100, Math.ceil(ttlMs / 100));
  const ttlMsMin = 3 * (graceMs + marginMs);
  return ttlMs < ttlMsMin ? { ok: false, marginMs, ttlMsMin } : { ok: true, plan: { graceMs, marginMs } };
}
