/**
 * Positions in PostgreSQL's log: of which cluster, on which timeline, and up to which byte (LSN).
 *
 * An LSN alone says nothing. After a failover the new primary goes on from where it was, on a new timeline, and writes
 * other things at the same LSNs:
 *
 *     timeline 1:  ---- 0/5000 ---- 0/6000 (never replicated; lost)
 *     timeline 2:       0/5000 ---- 0/6000 ---- 0/7000
 *
 * A replica on timeline 2 that is at 0/7000 has not got what timeline 1 had at 0/6000.
 */

/** An LSN has 64 bits, more than a number holds. */
export interface PgPosition {
  /** The system identifier of the cluster, the same for a primary and its replicas. */
  readonly system: string;
  readonly timeline: number;
  readonly lsn: bigint;
}

const PATTERN = /^pg:([1-9]\d{0,19}):(\d{1,10}):([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/;
const SYSTEM_MAX = 2n ** 64n - 1n;
const TIMELINE_MAX = 2 ** 32 - 1;

/** An LSN as PostgreSQL writes it, such as `0/16B3748`. Undefined: it is none. */
export function parseLsn(text: unknown): bigint | undefined {
  const [, high, low] = (typeof text === "string" && /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/.exec(text)) || [];
  return high === undefined ? undefined : (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}

export function formatLsn(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16)}/${(lsn & 0xffff_ffffn).toString(16)}`.toUpperCase();
}

export const encodePosition = ({ system, timeline, lsn }: PgPosition): string =>
  `pg:${system}:${timeline}:${formatLsn(lsn)}`;

/** Undefined: it is no position, or not spelt as `encodePosition` does. */
export function decodePosition(text: string): PgPosition | undefined {
  const [, system = "", timeline = "", high, low] = PATTERN.exec(text) ?? [];
  const lsn = parseLsn(`${high}/${low}`);
  if (lsn === undefined || BigInt(system) > SYSTEM_MAX || Number(timeline) > TIMELINE_MAX) return undefined;
  const position: PgPosition = { system, timeline: Number(timeline), lsn };
  return encodePosition(position) === text ? position : undefined;
}

/** A higher timeline began after every lower one. Undefined: they are of different clusters. */
export function laterPosition(a: PgPosition, b: PgPosition): PgPosition | undefined {
  if (a.system !== b.system) return undefined;
  if (a.timeline !== b.timeline) return a.timeline > b.timeline ? a : b;
  return a.lsn >= b.lsn ? a : b;
}
