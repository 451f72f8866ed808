/**
 * Timestamps that come from outside. The client's clock follows whatever it is told, and the server refuses what is absurdly
 * far ahead of its own. One absurd number from an application would thus leave the whole sidecar with a clock that the
 * server does not accept any more. So what is too far ahead is refused here, before it has an effect.
 */
import { type Clock, LeaseholdError } from "@leasehold/client";

/** The server's clock takes a quarter of an hour for that, at the fastest that it lets itself be moved. */
const AHEAD_MAX = 1_000_000_000;

/** Takes note of a timestamp and returns that of its receipt. Throws CLOCK_JUMP, INVALID. */
export function follow(clock: Clock, timestamp: number): number {
  if (timestamp - clock.now() > AHEAD_MAX) {
    const message = `the timestamp ${timestamp} is more than ${AHEAD_MAX} ahead of the sidecar's clock`;
    throw new LeaseholdError("CLOCK_JUMP", message);
  }
  return clock.observe(timestamp);
}

const DIGITS = /^\d{1,16}$/;

/** A timestamp in a header of somebody's; what is none, or too far ahead, is passed over. */
export function followHeader(clock: Clock, value: string | readonly string[] | undefined): void {
  if (typeof value !== "string" || !DIGITS.test(value)) return;
  try {
    follow(clock, Number(value));
  } catch (error) {
    if (!LeaseholdError.is(error)) throw error;
  }
}
