/**
 * After a restore nothing is granted for a while.
 *
 * The clients of the store that is gone may hold locks that the backup does not know. They believe in them no longer than
 * the longest lease that was permitted, so nobody else is granted anything for that long. It counts in served time, which
 * is never faster than real time, and goes on over restarts. Leases may be made and renewed meanwhile.
 */
import type { State } from "./state.js";
import type { Refusal } from "./types.js";

/** Whoever is refused may ask again after this long: at the end nobody should have to wait much longer than that. */
const RETRY_MS_MAX = 10_000;

/** How much is left of it, in whole milliseconds; 0: it is over. */
export const quietRemainingMs = (state: State, nowMs: number): number =>
  Math.max(0, Math.ceil(state.quietUntilMs - nowMs));

/** Null: locks may be granted. */
export function refuseQuiet(state: State, nowMs: number): Refusal | null {
  const remainingMs = quietRemainingMs(state, nowMs);
  if (remainingMs === 0) return null;
  const retryAfterMs = Math.min(remainingMs, RETRY_MS_MAX);
  return { kind: "refused", reason: "STORE_DOWN", message: quietText(remainingMs), retryAfterMs };
}

export function quietText(remainingMs: number): string {
  const seconds = Math.ceil(remainingMs / 1_000);
  const parts = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60, seconds % 60];
  const text = parts.map((n, i) => (n > 0 ? `${n} ${["h", "min", "s"][i]}` : "")).filter((part) => part !== "");
  return `the store was restored from a backup: nothing is granted for another ${text.join(" ")}`;
}
