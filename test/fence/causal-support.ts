/** For the tests of causal sessions: notes in PostgreSQL, and clients that do not do what they are told. */
import { Pool, type PoolClient } from "pg";
import type { startPostgres } from "../services/postgres.mjs";
import { until } from "../services/processes.mjs";

export const LIMIT_MS = 30_000;

export type Postgres = Awaited<ReturnType<typeof startPostgres>>;
export type PostgresReplica = NonNullable<Postgres["replica"]>;

/** Nothing writes to the log but the tests, and what is not waited for is flushed with the next commit that is. */
export const QUIET = { autovacuum: "off", wal_writer_delay: "10s", checkpoint_timeout: "1h" };

export function poolOf(url: string, over: { user?: string; max?: number } = {}): Pool {
  const pool = new Pool({ connectionString: url, max: 5, ...over });
  pool.on("error", () => undefined); // servers are killed here
  return pool;
}

/** What both a pool and one of its clients can do. */
interface Queryable {
  query<R extends Record<string, unknown>>(text: string, values?: unknown[]): Promise<{ rows: R[] }>;
}

let notes = 0;

/** A note that says "old". */
export async function addNote(on: { psql(sql: string): Promise<string> }): Promise<number> {
  const id = ++notes;
  await on.psql(`create table if not exists notes (id int primary key, text text not null)`);
  await on.psql(`insert into notes values (${id}, 'old')`);
  return id;
}

export const change =
  (id: number, text = "new") =>
  (db: Queryable) =>
    db.query("update notes set text = $2 where id = $1", [id, text]);

export const textOf = (id: number) => async (db: Queryable) =>
  (await db.query<{ text: string }>("select text from notes where id = $1", [id])).rows[0]?.text;

/** Resolves when the replica has replayed all that its primary has flushed. */
export function caughtUp(primary: { psql(sql: string): Promise<string> }, replica: PostgresReplica): Promise<void> {
  const there = async () => {
    const flushed = await primary.psql("select pg_current_wal_flush_lsn()");
    return (await replica.psql("select pg_last_wal_replay_lsn()")) === flushed;
  };
  return until(there, { what: "the replica caught up", limitMs: LIMIT_MS });
}

export interface Sabotage {
  readonly sends?: (text: string) => string;
  readonly returns?: (result: unknown) => unknown;
}

/** A pool whose clients send other statements than they were given, or return other results than they got. */
export function sabotaged(pool: Pool, { sends = (text) => text, returns = (result) => result }: Sabotage): Pool {
  const connect = async (): Promise<PoolClient> => {
    const client = await pool.connect();
    return new Proxy(client, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        if (name !== "query") return value.bind(target);
        return async (text: string, values?: unknown[]) => returns(await target.query(sends(text), values));
      },
    });
  };
  return { connect } as unknown as Pool;
}

/** A pool that leads to another one as soon as it is told so: the address of whoever is the primary. */
export function redirectable(to: Pool): Pool & { to: Pool } {
  const pool = { to, connect: () => pool.to.connect() };
  return pool as unknown as Pool & { to: Pool };
}
