/** A PostgreSQL server as causal sessions see it: what it says of where it is. Which of it counts is told in `postgres.ts`. */
import { FenceError } from "../errors.js";
import { decodePosition, encodePosition, laterPosition, type PgPosition, parseLsn } from "./lsn.js";
import type { Lent, Server, System } from "./system.js";

/** A client of a pool: a `PoolClient` of `pg` is one. */
export interface PgClient {
  query(text: string): Promise<unknown>;
  release(destroy?: boolean): void;
  on(event: "error", listener: (error: Error) => void): unknown;
  removeListener(event: "error", listener: (error: Error) => void): unknown;
}

/** A pool of clients: a `Pool` of `pg` is one. */
export interface PgPool<C extends PgClient> {
  connect(): Promise<C>;
  // `pg` has this one too, and TypeScript infers the type of the client only if both are here.
  connect(callback: never): void;
}

/** Where a server is. */
export interface PgState extends PgPosition {
  readonly standby: boolean;
  /** On a primary: what is flushed. */
  readonly flushed: bigint;
}

/**
 * For primaries and replicas alike; everything as text, whatever type parsers the driver was given. Without joins, whose
 * planning takes longer than all the rest. A server that is promoted meanwhile gives no timeline, and is asked again.
 */
export const STATE = `
  select system_identifier::text as system, pg_is_in_recovery()::text as standby,
    (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end)::text as lsn,
    (case when not pg_is_in_recovery() then pg_current_wal_flush_lsn() end)::text as flushed,
    (case when not pg_is_in_recovery() then pg_walfile_name(pg_current_wal_insert_lsn()) end)::text as file,
    (case when pg_is_in_recovery() then coalesce(
      (select received_tli from pg_stat_get_wal_receiver()),
      greatest((pg_control_recovery()).min_recovery_end_timeline, (pg_control_checkpoint()).timeline_id)
    ) end)::text as timeline
  from pg_control_system()`;

/** For a rollback. A connection that takes longer is stuck in something. */
const ROLLBACK_MS = 1_000;
const PAGE_HEADER_BYTES = 24n;

type Row = Readonly<Record<string, unknown>>;

/** The first row of a result of the driver's. Throws UNREACHABLE if there is none. */
export function firstRow(result: unknown): Row {
  const rows = (result as { readonly rows?: readonly Row[] } | undefined)?.rows;
  const row = rows?.[0];
  if (row === undefined) throw new FenceError("UNREACHABLE", "PostgreSQL did not say where it is");
  return row;
}

export function stateOf(row: Row): PgState {
  const standby = row.standby === "true";
  const timeline = standby ? Number(row.timeline) : Number.parseInt(String(row.file).slice(0, 8), 16);
  const lsn = row.lsn === null && standby ? 0n : parseLsn(row.lsn); // null: it has replayed nothing yet
  const flushed = standby ? 0n : parseLsn(row.flushed);
  if (typeof row.system !== "string" || lsn === undefined || flushed === undefined || !(timeline > 0)) {
    throw new FenceError("UNREACHABLE", "PostgreSQL did not say where it is in a form that is known");
  }
  return { system: row.system, timeline, lsn, standby, flushed };
}

/** Covers every commit that returned before this state was seen, whether it was waited for or not. */
export function inserted({ system, timeline, lsn, flushed }: PgState): PgPosition {
  return { system, timeline, lsn: lsn - flushed === PAGE_HEADER_BYTES ? flushed : lsn };
}

export const ignore = (): void => {};

class PgServer<C extends PgClient> implements Server<C, PgState> {
  readonly #pool: PgPool<C>;

  constructor(pool: PgPool<C>) {
    this.#pool = pool;
  }

  async lend(): Promise<Lent<C>> {
    const db = await this.#pool.connect();
    // A connection that breaks while nothing is asked would end the process; the next question tells.
    db.on("error", ignore);
    let released = false;
    const release = (broken = false) => {
      if (released) return;
      released = true;
      db.removeListener("error", ignore);
      db.release(broken);
    };
    const failed = async () => {
      // What was left open ends with it, whether there was a transaction or not. A connection that cannot be rolled back
      // is closed, which does the same.
      const timer = setTimeout(() => release(true), ROLLBACK_MS);
      await db.query("rollback").then(
        () => release(),
        () => release(true),
      );
      clearTimeout(timer);
    };
    return { db, release, failed };
  }

  async look(db: C): Promise<PgState> {
    return stateOf(firstRow(await db.query(STATE)));
  }
}

export class PgSystem<C extends PgClient> implements System<C, PgState, PgPosition> {
  readonly kind = "pg";
  readonly primary: PgServer<C>;
  readonly replicas: readonly PgServer<C>[];
  readonly encode = encodePosition;
  readonly decode = decodePosition;
  readonly later = laterPosition;

  constructor(primary: PgPool<C>, replicas: readonly PgPool<C>[]) {
    this.primary = new PgServer(primary);
    this.replicas = replicas.map((pool) => new PgServer(pool));
  }

  readonly covers: System<C, PgState, PgPosition>["covers"] = (state, position) => {
    if (state.system !== position.system || state.timeline !== position.timeline) return "other";
    return state.lsn >= position.lsn ? "applied" : "behind";
  };

  readonly standby = (state: PgState): boolean => state.standby;
  readonly positionOf = (state: PgState): PgPosition => inserted(state);

  /** Not if the position is of a later timeline: then this primary was deposed, and its position would be the older one. */
  readonly supersedes = (state: PgState, position: PgPosition): boolean =>
    state.system !== position.system || state.timeline >= position.timeline;
}
