import { checkKeys, checkWhole } from "../token.js";

/** What all causal sessions can be told. */
export interface CausalOptions {
  /**
   * For how many milliseconds a read may look for a replica that has the session's position, before it goes to the
   * primary; from 1 to 60,000. Default: 500.
   */
  readonly waitMs?: number | undefined;
  /** How many milliseconds lie between two looks at a replica that is waited for, at most; from 1 to 10,000. Default: 20. */
  readonly pollMs?: number | undefined;
  /** The header that carries positions. Default: `Causal-Position`. Two clusters need two. */
  readonly header?: string | undefined;
}

export interface Timing {
  readonly waitMs: number;
  readonly pollMs: number;
}

export const CAUSAL_KEYS = ["primary", "replicas", "waitMs", "pollMs", "header"];

export const checkWaitMs = (waitMs: unknown): number => checkWhole(waitMs, "waitMs", 1, 60_000);

/** Throws INVALID. */
export function checkTiming({ waitMs = 500, pollMs = 20 }: CausalOptions): Timing {
  return { waitMs: checkWaitMs(waitMs), pollMs: checkWhole(pollMs, "pollMs", 1, 10_000) };
}

/** How a single read is done. */
export interface ReadOptions {
  /** In place of the sessions' own, for this read. */
  readonly waitMs?: number | undefined;
  /** Ends the waiting: the read rejects with the signal's reason. A read that has begun is not interrupted. */
  readonly signal?: AbortSignal | undefined;
  /** Is told where the read is done, before it begins. */
  readonly report?: ((report: ReadReport) => void) | undefined;
}

export const checkReadOptions = (options: ReadOptions): void =>
  checkKeys(options, ["waitMs", "signal", "report"], "the options of a read");

/**
 * Why a read was done where it was done.
 *
 * - `no_position`: the session has none; any replica will do.
 * - `applied`: the replica has applied it.
 * - `behind`: no replica had it in time.
 * - `other_history`: what replicas answered is of another history: another cluster, or there was a failover.
 * - `unreachable`: no replica answered in time, or there is none.
 * - `unknown`: a write's position could not be taken, or positions met that cannot be compared.
 */
export type ReadReason = "no_position" | "applied" | "behind" | "other_history" | "unreachable" | "unknown";

/** Where a read was done. */
export interface ReadReport {
  readonly on: "replica" | "primary";
  /** The index of the replica. */
  readonly replica: number | undefined;
  readonly why: ReadReason;
  /** How many milliseconds passed before it began. */
  readonly waitedMs: number;
  /**
   * False: the primary itself does not have the position. It is forged, or the primary has lost writes in a failover, or
   * is not the primary any more.
   */
  readonly covered: boolean;
}
