/**
 * When a client should renew next.
 *
 * At a third of what remains: then two more tries fit before the lease is lost. Each answer is a little earlier or later
 * at random, so that clients that began together do not stay together. The busier the server, the later, but never
 * beyond half of what remains: renewals make way for grants, and two tries still fit into the other half.
 */

const SHARE = 1 / 3;
const SHARE_MAX = 1 / 2;
/** The random part, of the share. */
const JITTER = 0.1;
/** Jittered, this reaches up to `SHARE_MAX` and not beyond. */
const SHARE_LOADED = SHARE_MAX / (1 + JITTER);

export class RenewalPacing {
  /** `load`: 0 for idle, 1 for as busy as can be. `random`: from 0 to 1. */
  constructor(
    private readonly load: () => number,
    private readonly random: () => number,
  ) {}

  /** In whole milliseconds from now; 0 when so little remains that every millisecond counts. */
  renewAfterMs(remainingMs: number): number {
    const share = SHARE + (SHARE_LOADED - SHARE) * unit(this.load());
    const jitter = 1 + JITTER * (2 * unit(this.random()) - 1);
    return Math.max(0, Math.floor(Math.min(share * jitter, SHARE_MAX) * remainingMs));
  }
}

function unit(value: number): number {
  return value > 0 ? Math.min(value, 1) : 0;
}
