/**
 * Leading again and again.
 *
 * Stand, and run the callback while leading. If the leadership is lost, wait until the callback has settled, and stand
 * again. If the callback ends by itself, that is the end. A campaign that fails for a reason that may pass is repeated,
 * with a growing, random delay. (With a lease of the user's own that has ended, none would ever succeed.)
 */
import type { Client } from "../api.js";
import type { TimeSource } from "../clock/elapsed.js";
import { LeaseholdError } from "../errors.js";
import type { Lock } from "../lock.js";
import { backoffMs } from "../session/backoff.js";
import { acquireOptions, type LeadOptions } from "./campaign.js";
import { type Leadership, Term } from "./leadership.js";

export type Lead = (leadership: Leadership) => Promise<unknown> | unknown;

export interface LeadSurroundings {
  readonly client: Client;
  readonly time: TimeSource;
  /** From 0 to 1. */
  readonly random: () => number;
}

export async function lead(around: LeadSurroundings, name: string, options: LeadOptions, f: Lead): Promise<void> {
  const acquire = acquireOptions(options);
  const signal = options.signal ?? null;
  for (let failures = 0; !signal?.aborted; ) {
    let lock = null as Lock | null;
    try {
      await around.client.withLock(name, acquire, async (granted) => {
        lock = granted;
        await f(new Term(granted, signal));
      });
      return;
    } catch (error) {
      if (lock !== null && lock.state.is !== "lost") {
        if (signal?.aborted && isAbort(error, signal)) return;
        throw error;
      }
      if (signal?.aborted) return;
      if (lock !== null) failures = 0;
      else if (mayPass(error, options)) await pause(around, error, failures++, signal);
      else throw error;
    }
  }
}

/** The callback ended because it was asked to. */
function isAbort(error: unknown, signal: AbortSignal): boolean {
  return error === signal.reason || (error instanceof Error && error.name === "AbortError");
}

function mayPass(error: unknown, { lease }: LeadOptions): error is LeaseholdError {
  if (!LeaseholdError.is(error) || !error.retryable) return false;
  return lease === undefined || lease.state.is === "held" || lease.state.is === "jeopardy";
}

/** Resolves when it is time to try again, or the signal is aborted. */
function pause(
  { time, random }: LeadSurroundings,
  { retryAfterMs }: LeaseholdError,
  failures: number,
  signal: AbortSignal | null,
): Promise<void> {
  return new Promise((resolve) => {
    const go = () => {
      timer.cancel();
      signal?.removeEventListener("abort", go);
      resolve();
    };
    const timer = time.setTimer(Math.max(retryAfterMs, backoffMs(failures, random())), go, true);
    signal?.addEventListener("abort", go, { once: true });
  });
}
