/** PostgreSQL as the storage of the conformance suite: registers in a table, written through the fence in both styles. */
import { type Fenced, type FencedLock, FenceError, holdOf, holdsOf } from "@leasehold/fence";
import {
  type PostgresClient,
  type PostgresFence,
  type PostgresIsolation,
  type PostgresPool,
  postgresFence,
} from "@leasehold/fence/postgres";
import pg from "pg";
import type { Subject } from "./conformance.js";
import { startHolder } from "./holder.js";

/** What a subject may have changed: the text of a statement on its way to the server. */
type Rewrite = (text: string) => string;

/** A pool that counts what is sent by it, and may change it. */
export class CountingPool implements PostgresPool {
  sent = 0;
  /** The most statements that one of its connections has had at once: the driver wants one after the other. */
  atOnceMax = 0;

  constructor(
    readonly pool: pg.Pool,
    private readonly rewrite: Rewrite = (text) => text,
  ) {}

  query(text: string, values?: unknown[]) {
    this.sent++;
    return this.pool.query(this.rewrite(text), values);
  }

  async connect(): Promise<PostgresClient> {
    const client = await this.pool.connect();
    let atOnce = 0;
    return {
      query: (text, values) => {
        this.sent++;
        this.atOnceMax = Math.max(this.atOnceMax, ++atOnce);
        return client.query(this.rewrite(text), values).finally(() => atOnce--);
      },
      on: (event, listener) => client.on(event, listener),
      removeListener: (event, listener) => client.removeListener(event, listener),
      release: (error) => client.release(error),
    };
  }
}

/** A lock whose end the test moves. */
export class MovingLock implements FencedLock {
  readonly grant = {};
  readonly signal = new AbortController().signal;
  remainingMs = 10_000;
  constructor(
    readonly name: string,
    readonly number: number,
  ) {}
  get token() {
    if (this.remainingMs > 0) return this.number;
    throw Object.assign(new Error("lost"), { code: "LOST" });
  }
  get state() {
    return { is: "held" as const, remainingMs: this.remainingMs };
  }
}

export interface SubjectOptions {
  readonly isolation?: PostgresIsolation | undefined;
  /** SQL that runs after the migration. `SCHEMA` in it is the schema of the fence. */
  readonly sabotage?: string | undefined;
  readonly rewrite?: Rewrite | undefined;
}

let schemas = 0;

interface Opened {
  readonly pool: pg.Pool;
  readonly counting: CountingPool;
  readonly fence: PostgresFence;
  readonly schema: string;
}

/** A schema of its own on the server, with the fence and a table of registers in it. */
async function open(url: string, { sabotage = "", rewrite }: SubjectOptions): Promise<Opened> {
  const schema = `subject_${++schemas}`;
  const pool = new pg.Pool({ connectionString: url, max: 20 });
  await pool.query(`create schema ${schema}`);
  const counting = new CountingPool(pool, rewrite);
  const fence = postgresFence(counting, { schema });
  await fence.migrate();
  await pool.query(`create table ${schema}.registers (
    resource text collate "C" primary key, value text, token bigint not null default 0)`);
  if (sabotage !== "") await pool.query(sabotage.replaceAll("SCHEMA", schema));
  return { pool, counting, fence, schema };
}

const holders = new URL("./holders/postgres.mjs", import.meta.url).href;

function common({ pool, counting, schema }: Opened) {
  return {
    read: async (resource: string) => {
      const { rows } = await pool.query(`select value from ${schema}.registers where resource = $1`, [resource]);
      return rows[0]?.value as string | undefined;
    },
    recreate: async (by: Fenced) => {
      const { resource } = holdOf(by);
      await pool.query(`delete from ${schema}.registers where resource = $1`, [resource]);
      await pool.query(`insert into ${schema}.registers (resource, value) values ($1, 'anew')`, [resource]);
    },
    sent: () => counting.sent,
    close: () => pool.end(),
  };
}

/** Writes by `tx`. */
export async function openTx(url: string, options: SubjectOptions = {}): Promise<Subject> {
  const opened = await open(url, options);
  const { fence, schema } = opened;
  const { isolation } = options;
  return {
    ...common(opened),
    fence,
    write: (by, value) =>
      fence.tx(
        by,
        async (tx) => {
          const text = `insert into ${schema}.registers as register (resource, value) values ($1, $2)
            on conflict (resource) do update set value = excluded.value`;
          await tx.query(text, [holdOf(by).resource, value]);
        },
        { isolation },
      ),
    holder: (name, token, remainingMs, value) =>
      startHolder(holders, { url, schema, style: "tx", isolation }, name, token, remainingMs, value),
  };
}

/** Writes by `updateRow`; a register that is not there is made by `insertRow`. */
export async function openRows(url: string, options: SubjectOptions = {}): Promise<Subject> {
  const opened = await open(url, options);
  const { fence, pool, counting, schema } = opened;
  const table = `${schema}.registers`;
  const insert = async (by: Fenced, value: string | null) => {
    try {
      await fence.insertRow(by, { table, values: { resource: holdOf(by).resource, value } });
    } catch (error) {
      if ((error as { code?: unknown }).code !== "23505") throw error; // somebody else has just made it
    }
  };
  const orMade = async (by: Fenced, act: () => Promise<void>) => {
    try {
      await act();
    } catch (error) {
      if (!FenceError.is(error, "NOT_FOUND")) throw error;
      await insert(by, null);
      await act();
    }
  };
  return {
    ...common(opened),
    write: (by, value) =>
      orMade(by, () => fence.updateRow(by, { table, set: { value }, where: { resource: holdOf(by).resource } })),
    fence: {
      raise: async (lock) => {
        for (const hold of holdsOf(lock)) {
          await orMade(hold, () => fence.raiseRow(hold, { table, where: { resource: hold.resource } }));
        }
      },
      inspect: async (resource) => {
        const text = `select token from ${table} where resource = $1`;
        const { rows } = await counting.query(text, [holdOf({ name: resource, token: 0 }).resource]);
        return { resource, floor: Number(rows[0]?.token ?? 0) };
      },
      reset: async (resource) => {
        await counting.query(`update ${table} set token = 0 where resource = $1`, [
          holdOf({ name: resource, token: 0 }).resource,
        ]);
      },
    },
    read: async (resource) => {
      const { rows } = await pool.query(`select value from ${table} where resource = $1`, [resource]);
      return (rows[0]?.value ?? undefined) as string | undefined;
    },
    holder: (name, token, remainingMs, value) =>
      startHolder(holders, { url, schema, style: "row" }, name, token, remainingMs, value),
  };
}
