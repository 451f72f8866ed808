/** The delay before the n-th try is drawn evenly from 0 to this much times 2^n ("full jitter"), so that clients spread. */
const BASE_MS = 100;
/** Well below the default TTL, so that a server that comes back is found before leases run out. */
const CAP_MS = 2_000;

/** Milliseconds to wait after `failures` failed tries. `random` is from 0 to 1. */
export function backoffMs(failures: number, random: number): number {
  return random * Math.min(CAP_MS, BASE_MS * 2 ** Math.min(failures, 16));
}
