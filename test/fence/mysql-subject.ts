/** MariaDB as the storage of the conformance suite: registers in a table, written through the fence in both styles. */
import { type Fenced, FenceError, holdOf, holdsOf } from "@leasehold/fence";
import {
  type MysqlConnection,
  type MysqlFence,
  type MysqlIsolation,
  type MysqlPool,
  mysqlFence,
} from "@leasehold/fence/mysql";
import mysql from "mysql2/promise";
import type { Subject } from "./conformance.js";
import { startHolder } from "./holder.js";

/** What a subject may have changed: the text of a statement on its way to the server. */
type Rewrite = (text: string) => string;

/** A pool that counts what is sent by it, and may change it. */
export class CountingPool implements MysqlPool {
  sent = 0;

  constructor(
    readonly pool: mysql.Pool,
    private readonly rewrite: Rewrite = (text) => text,
  ) {}

  query(text: string, values?: unknown[]) {
    this.sent++;
    return this.pool.query(this.rewrite(text), values);
  }

  async getConnection(): Promise<MysqlConnection> {
    const connection: MysqlConnection = await this.pool.getConnection();
    return {
      query: (text, values) => {
        this.sent++;
        return connection.query(this.rewrite(text), values);
      },
      on: (event, listener) => connection.on(event, listener),
      removeListener: (event, listener) => connection.removeListener(event, listener),
      release: () => connection.release(),
      destroy: () => connection.destroy(),
    };
  }
}

/** The rows of an answer. */
export const rowsIn = <Row = Record<string, unknown>>([rows]: readonly [unknown, unknown]): Row[] => rows as Row[];

export interface SubjectOptions {
  readonly isolation?: MysqlIsolation | undefined;
  /** Statements that run after the migration. `SCHEMA` in them is the database of the fence. */
  readonly sabotage?: readonly string[] | undefined;
  readonly rewrite?: Rewrite | undefined;
}

let databases = 0;

interface Opened {
  readonly pool: mysql.Pool;
  readonly counting: CountingPool;
  readonly fence: MysqlFence;
  readonly schema: string;
}

/** A database of its own on the server, with the fence and a table of registers in it. */
async function open(url: string, { sabotage = [], rewrite }: SubjectOptions): Promise<Opened> {
  const schema = `subject_${++databases}`;
  const pool = mysql.createPool({ uri: url, connectionLimit: 20 });
  await pool.query(`create database ${schema}`);
  const counting = new CountingPool(pool, rewrite);
  const fence = mysqlFence(counting, { database: schema });
  await fence.migrate();
  await pool.query(`create table ${schema}.registers (
    resource varchar(523) character set utf8mb4 collate utf8mb4_nopad_bin primary key,
    value text, token bigint not null default 0)`);
  for (const text of sabotage) await pool.query(text.replaceAll("SCHEMA", schema));
  return { pool, counting, fence, schema };
}

const holders = new URL("./holders/mysql.mjs", import.meta.url).href;

function common({ pool, counting, schema }: Opened) {
  return {
    read: async (resource: string) => {
      const answer = await pool.query(`select value from ${schema}.registers where resource = ?`, [resource]);
      return rowsIn<{ value: string }>(answer)[0]?.value;
    },
    recreate: async (by: Fenced) => {
      const { resource } = holdOf(by);
      await pool.query(`delete from ${schema}.registers where resource = ?`, [resource]);
      await pool.query(`insert into ${schema}.registers (resource, value) values (?, 'anew')`, [resource]);
    },
    sent: () => counting.sent,
    close: () => pool.end(),
  };
}

/**
 * Inserts of one new row by several at once end in a deadlock when the first of them is rolled back: InnoDB gives those who
 * waited locks on the gap, all of them. Who is not overtaken tries again, as programs on MySQL must.
 */
async function afterDeadlocks(write: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await write();
      return;
    } catch (error) {
      if ((error as { code?: unknown }).code !== "ER_LOCK_DEADLOCK" || attempt === 50) throw error;
    }
  }
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
      afterDeadlocks(() =>
        fence.tx(
          by,
          async (tx) => {
            const text = `insert into ${schema}.registers (resource, value) values (?, ?)
              on duplicate key update value = values(value)`;
            await tx.query(text, [holdOf(by).resource, value]);
          },
          { isolation },
        ),
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
      if ((error as { code?: unknown }).code !== "ER_DUP_ENTRY") throw error; // somebody else has just made it
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
        const text = `select token from ${table} where resource = ?`;
        const answer = await counting.query(text, [holdOf({ name: resource, token: 0 }).resource]);
        return { resource, floor: Number(rowsIn(answer)[0]?.token ?? 0) };
      },
      reset: async (resource) => {
        await counting.query(`update ${table} set token = 0 where resource = ?`, [
          holdOf({ name: resource, token: 0 }).resource,
        ]);
      },
    },
    read: async (resource) => {
      const answer = await pool.query(`select value from ${table} where resource = ?`, [resource]);
      return rowsIn<{ value: string | null }>(answer)[0]?.value ?? undefined;
    },
    holder: (name, token, remainingMs, value) =>
      startHolder(holders, { url, schema, style: "row" }, name, token, remainingMs, value),
  };
}
