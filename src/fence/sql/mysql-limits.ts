/**
 * How long a fenced transaction may take: as postgres-limits.ts has it, in a server that counts in whole seconds.
 *
 *     remaining 4 s: 2 s for a statement; 1 s for a pause of the client, and for a wait for a lock
 *     remaining 2.9 s, no renewal came: before the next statement 1.2 s and 1 s are set
 *     the process is stopped while that statement runs
 *     remaining 0.7 s, at the latest: the server ends the transaction
 *
 * So the shortest pause that can be told from a stopped process is one second, and a hold must have some more than that.
 *
 * MySQL has no limit for statements that write, only one for each of their waits for a lock. MariaDB has one for all.
 */
import { FenceError, show } from "../errors.js";
import { type Held, remainingMs } from "./postgres-limits.js";

export interface Limits {
  /** For a pause of the client, and for a wait for a lock, in seconds. */
  readonly waitS: number;
  readonly statementMs: number;
}

/** With less than this it is too late to begin anything that the client may pause in. */
const OPEN_MS_MIN = 1_500;

/** For what the client may pause in. Throws LOST when a hold is over, or too short for a limit. */
export function limitsOf(held: readonly Held[], unknownMs: number): Limits {
  const restMs = remainingMs(held, unknownMs);
  if (restMs < OPEN_MS_MIN) {
    const names = held.map(({ resource }) => show(resource)).join(", ");
    const [first, second] = held;
    const which = first && !second ? { resource: first.resource, token: first.token } : {};
    const message = `only ${Math.floor(restMs)} ms are left for ${names}; a transaction needs ${OPEN_MS_MIN}`;
    throw new FenceError("LOST", message, which);
  }
  const waitS = Math.max(1, Math.floor(restMs / 4_000));
  return { waitS, statementMs: Math.floor(Math.min(restMs / 2, (restMs * 3) / 4 - waitS * 1_000)) };
}

/** For the last statement: no pause comes after it. Throws LOST when a hold is over. */
export const lastLimitsOf = (held: readonly Held[], unknownMs: number): Limits => ({
  waitS: 1,
  statementMs: Math.floor(remainingMs(held, unknownMs) / 2),
});

/** The longest time until an answer comes, or until a stopped client's transaction is ended. */
export const spanMs = ({ waitS, statementMs }: Limits): number => waitS * 1_000 + statementMs;
