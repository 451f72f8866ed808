/** Causal sessions on a real PostgreSQL with a replica that streams from it, and whose replay the tests stop and resume. */
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { postgresCausal } from "@leasehold/fence/causal";
import type { Pool, PoolClient } from "pg";
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished } from "vitest";
import { startPostgres } from "../services/postgres.mjs";
import { describeWithServices } from "../services/vitest.js";
import {
  addNote,
  caughtUp,
  change,
  LIMIT_MS,
  type Postgres,
  type PostgresReplica,
  poolOf,
  QUIET,
  sabotaged,
  textOf,
} from "./causal-support.js";

const coded = (code: string) => expect.objectContaining({ code });
/** How often a wrong variant is tried until it is caught: only a background writer's record at that moment saves it. */
const ATTEMPTS = 10;

describeWithServices("causal sessions on PostgreSQL", ["postgres"], () => {
  let postgres: Postgres;
  let replica: PostgresReplica;
  let primaryPool: Pool;
  let replicaPool: Pool;

  beforeAll(async () => {
    postgres = await startPostgres({ replica: true, settings: QUIET });
    replica = postgres.replica as PostgresReplica;
    await postgres.psql("create table parts (id int primary key, of int, unique (of) deferrable initially deferred)");
    primaryPool = poolOf(postgres.url);
    replicaPool = poolOf(replica.url);
  });
  afterAll(async () => {
    await Promise.all([primaryPool?.end(), replicaPool?.end()]);
    await postgres?.stop();
  });
  beforeEach(() => replica.resume());

  const sessions = (over: Partial<Parameters<typeof postgresCausal<PoolClient>>[0]> = {}) =>
    postgresCausal({ primary: primaryPool, replicas: [replicaPool], waitMs: LIMIT_MS, ...over });
  /** A note that says "old", also on the replica, which is paused then. */
  const pausedNote = async () => {
    const id = await addNote(postgres);
    await caughtUp(postgres, replica);
    await replica.pause();
    return id;
  };
  /** All connections are back in their pools. */
  const expectAllBack = () => {
    for (const { waitingCount, idleCount, totalCount } of [primaryPool, replicaPool]) {
      expect([waitingCount, idleCount]).toEqual([0, totalCount]);
    }
  };

  it("wait for the replica, which shows the old value meanwhile", async () => {
    const id = await pausedNote();
    const session = sessions().session();
    await session.write(change(id));
    const read = session.read(textOf(id));
    let settled = false;
    read.finally(() => {
      settled = true;
    });
    expect(await textOf(id)(replicaPool)).toBe("old"); // what a naive read shows
    expect(settled).toBe(false);
    await replica.resume();
    expect(await read).toBe("new");
    expect(session.lastRead).toMatchObject({ on: "replica", replica: 0, why: "applied", covered: true });
    expectAllBack();
  });

  it("go to the primary when the replica does not get there in time", async () => {
    const id = await pausedNote();
    const session = sessions({ waitMs: 200 }).session();
    await session.write(change(id));
    expect(await session.read(textOf(id))).toBe("new");
    expect(session.lastRead).toMatchObject({ on: "primary", why: "behind", covered: true });
    expect(session.lastRead?.waitedMs).toBeGreaterThan(190);
    expect(session.lastRead?.waitedMs).toBeLessThan(10_000);
    expectAllBack();
  });

  it("ask nothing and wait for nothing when nothing was written", async () => {
    const id = await pausedNote();
    await postgres.psql(`update notes set text = 'of another' where id = ${id}`);
    const session = sessions().session();
    expect(session.position).toBeUndefined();
    expect(await session.read(textOf(id))).toBe("old");
    expect(session.lastRead).toMatchObject({ on: "replica", why: "no_position" });
  });

  it("cover writes that were made elsewhere, and single statements", async () => {
    const id = await pausedNote();
    const causal = sessions({ waitMs: 100 });
    const [noted, single] = [causal.session(), causal.session()];
    await change(id, "elsewhere")(primaryPool);
    await noted.noteWrite();
    expect(await noted.read(textOf(id))).toBe("elsewhere");
    await single.write(change(id, "single"), { transaction: false });
    expect(await single.read(textOf(id))).toBe("single");
    await replica.resume();
    const patient = sessions().session(single.position);
    expect(await patient.read(textOf(id))).toBe("single");
    expect(patient.lastRead).toMatchObject({ on: "replica" });
    expectAllBack();
  });

  it("pass positions between services in a header", async () => {
    const id = await pausedNote();
    // Two services: one writes and asks the other one, which reads from a replica.
    const reader = createHttpServer(async (request, response) => {
      const session = sessions().session();
      if (request.url === "/causal") session.extract(request.headers);
      response.end(await session.read(textOf(id)));
    });
    const writer = createHttpServer(async (request, response) => {
      const session = sessions().session();
      await session.write(change(id));
      const headers = session.inject(new Headers());
      const answer = await fetch(`${addressOf(reader)}${request.url}`, { headers });
      response.end(await answer.text());
    });
    for (const server of [reader, writer]) {
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      onTestFinished(() => void server.close());
    }
    expect(await (await fetch(`${addressOf(writer)}/naive`)).text()).toBe("old");
    const answer = fetch(`${addressOf(writer)}/causal`);
    await new Promise<void>((resolve) => reader.once("request", () => resolve()));
    await replica.resume();
    expect(await (await answer).text()).toBe("new");
  });
  const addressOf = (server: { address(): unknown }) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  /** Whether a session over this primary reads the old value back after its write. */
  async function readsOldBack(primary: Pool, work: (id: number) => (db: PoolClient) => Promise<unknown>) {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const id = await pausedNote();
      const session = sessions({ primary, waitMs: 100 }).session();
      await session.write(work(id));
      const text = await session.read(textOf(id));
      await replica.resume();
      if (text === "old") return true;
    }
    return false;
  }
  const unwaited = (id: number) => async (db: PoolClient) => {
    await db.query("set local synchronous_commit = off");
    await change(id)(db);
  };

  it("take the position after the commit: one from before it does not cover the write", async () => {
    expect(await readsOldBack(primaryPool, change)).toBe(false);
    const early = sabotaged(primaryPool, {
      sends: (text) => text.replace(/commit;(.*)$/s, "$1; commit"),
      returns: (result) => (Array.isArray(result) ? [result[0], result[2], result[1]] : result),
    });
    expect(await readsOldBack(early, change)).toBe(true);
  });

  it("cover commits that were not waited for: what is flushed does not", async () => {
    expect(await readsOldBack(primaryPool, unwaited)).toBe(false);
    const blind = sabotaged(primaryPool, {
      sends: (text) => text.replace("current_setting('synchronous_commit')", "'on'"),
    });
    expect(await readsOldBack(blind, unwaited)).toBe(true);
  });

  it("find a commit that was not waited for on the replica, as soon as it is flushed", async () => {
    const id = await addNote(postgres);
    const session = sessions().session();
    await session.write(unwaited(id));
    const read = session.read(textOf(id));
    await addNote(postgres); // a commit that is waited for flushes all before it
    expect(await read).toBe("new");
    expect(session.lastRead).toMatchObject({ on: "replica" });
  });

  it("reach their position on a primary that is idle, also where a page of the log is just full", async () => {
    const id = await addNote(postgres);
    const session = sessions().session();
    let boundaries = 0;
    for (let i = 0; i < 5_000 && boundaries < 2; i++) {
      await change(id, `text ${i}`)(primaryPool);
      const { rows } = await primaryPool.query(
        "select pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn() as gap",
      );
      if (Number(rows[0]?.gap) === 0) continue;
      boundaries++;
      await session.noteWrite();
      expect(await session.read(textOf(id))).toBe(`text ${i}`);
      expect(session.lastRead).toMatchObject({ on: "replica" });
      expect(session.lastRead?.waitedMs).toBeLessThan(10_000);
    }
    expect(boundaries).toBe(2);
  });

  it("ask the connection that reads: behind one address there may be several servers", async () => {
    const id = await pausedNote();
    let turn = 0;
    const balancer = { connect: () => (turn++ % 2 === 0 ? replicaPool : primaryPool).connect() } as unknown as Pool;
    const session = sessions({ replicas: [balancer] }).session();
    await session.write(change(id));
    for (let i = 0; i < 10; i++) {
      expect(await session.read(textOf(id))).toBe("new");
      expect(session.lastRead).toMatchObject({ on: "replica" }); // that is: the one of the two that has it
      turn += i % 2;
    }
    expectAllBack();
  });

  it.each([
    ["a position far in the future", (text: string) => text.replace(/[^:]+$/, "FFFFFFFF/FFFFFFF0"), "behind"],
    ["another cluster", (text: string) => text.replace(/:\d+:/, ":1:"), "other_history"],
    ["a timeline that never was", (text: string) => text.replace(/:1:/, ":4000000000:"), "other_history"],
  ])("a forged header (%s) makes a read go to the primary, within its time", async (_, forge, why) => {
    const id = await addNote(postgres);
    const causal = sessions({ waitMs: 200 });
    const honest = causal.session();
    await honest.write(change(id));
    const session = causal.session();
    session.extract({ "causal-position": forge(honest.position as string) });
    expect(await session.read(textOf(id))).toBe("new");
    expect(session.lastRead).toMatchObject({ on: "primary", why, covered: false });
    expect(session.lastRead?.waitedMs).toBeLessThan(10_000);
    // Its own writes are still read back.
    await session.write(change(id, "own"));
    expect(await session.read(textOf(id))).toBe("own");
  });

  it("go on from the primary's position after one that the primary does not have", async () => {
    const id = await addNote(postgres);
    const session = sessions({ waitMs: 100 }).session();
    await session.noteWrite();
    const real = session.position as string;
    session.merge(real.replace(/[^:]+$/, "FFFFFFFF/FFFFFFF0"));
    await session.read(textOf(id));
    expect(session.lastRead).toMatchObject({ on: "primary" });
    await caughtUp(postgres, replica);
    await session.read(textOf(id));
    expect(session.lastRead).toMatchObject({ on: "replica", why: "applied" });
  });

  it("can be told to wait no longer, and give everything back", async () => {
    const id = await pausedNote();
    const session = sessions().session();
    await session.write(change(id));
    const enough = new AbortController();
    const read = session.read(textOf(id), { signal: enough.signal });
    const after = expect(read).rejects.toThrow("enough");
    await expect.poll(() => replicaPool.totalCount, { timeout: LIMIT_MS }).toBeGreaterThan(0);
    const abortedMs = performance.now();
    enough.abort(new Error("enough"));
    await after;
    expect(performance.now() - abortedMs).toBeLessThan(10_000);
    await expect.poll(() => replicaPool.idleCount, { timeout: LIMIT_MS }).toBe(replicaPool.totalCount);
    const aborted = session.write(async (db) => {
      await change(id, "never")(db);
      enough.signal.throwIfAborted();
    });
    await expect(aborted).rejects.toThrow("enough");
    expect(await textOf(id)(primaryPool)).toBe("new");
    expectAllBack();
  });

  it("do not commit what failed, and remember nothing of it", async () => {
    const id = await addNote(postgres);
    const session = sessions().session();
    const fails = session.write(async (db) => {
      await change(id)(db);
      throw new Error("mine");
    });
    await expect(fails).rejects.toThrow("mine");
    const swallowed = session.write(async (db) => {
      await change(id)(db);
      await db.query("select 1 / 0").catch(() => undefined);
    });
    await expect(swallowed).rejects.toEqual(coded("INVALID"));
    const deferred = session.write((db) => db.query(`insert into parts values (${id}, 1), (-${id}, 1)`));
    await expect(deferred).rejects.toEqual(coded("23505"));
    expect(await textOf(id)(primaryPool)).toBe("old");
    expect((await primaryPool.query("select * from parts")).rows).toEqual([]);
    expect(session.position).toBeUndefined();
    expectAllBack();
  });

  it("keep a connection on which something failed, without what was left open on it", async () => {
    const id = await addNote(postgres);
    const pools = [postgres.url, replica.url].map((url) => poolOf(url, { max: 1 })) as [Pool, Pool];
    onTestFinished(async () => void (await Promise.all(pools.map((pool) => pool.end()))));
    const session = sessions({ primary: pools[0], replicas: [pools[1]] }).session();
    const backend = async (db: PoolClient) => {
      const { rows } = await db.query("select pg_backend_pid() as pid, now() = statement_timestamp() as fresh");
      return rows[0] as { pid: number; fresh: boolean };
    };
    const [writer, reader] = [await session.write(backend), await session.read(backend)];
    const fails = async (db: PoolClient) => {
      await db.query("begin"); // inside of the session's transaction only a warning
      await db.query("select 1 / 0");
    };
    await expect(session.write(fails)).rejects.toEqual(coded("22012"));
    expect(await session.write(backend, { transaction: false })).toEqual({ pid: writer.pid, fresh: true });
    await expect(session.write(fails, { transaction: false })).rejects.toEqual(coded("22012"));
    expect(await session.write(backend, { transaction: false })).toEqual({ pid: writer.pid, fresh: true });
    const other = sessions({ replicas: [pools[1]] }).session();
    await expect(other.read(fails)).rejects.toEqual(coded("22012"));
    expect(await other.read(backend)).toEqual({ pid: reader.pid, fresh: true });
    expect(await session.write((db) => textOf(id)(db))).toBe("old");
  });

  it("give up a connection that cannot be rolled back", async () => {
    const pool = poolOf(postgres.url, { max: 1 });
    onTestFinished(() => pool.end());
    const session = sessions({ primary: pool, replicas: [] }).session();
    const fails = session.write(async (db) => {
      db.query("select pg_sleep(60)").catch(() => undefined); // it is still at it
      throw new Error("mine");
    });
    await expect(fails).rejects.toThrow("mine");
    expect(pool.totalCount).toBe(0);
    await session.write((db) => db.query("select 1"));
    await postgres.psql(
      "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()",
    );
  });

  it("read from the primary after a commit whose end is not known, until the next one", async () => {
    const id = await pausedNote();
    const cut = await cutter(postgres.port, "commit;");
    const proxied = poolOf(postgres.url.replace(`:${postgres.port}/`, `:${cut.port}/`));
    onTestFinished(async () => {
      await proxied.end();
      cut.close();
    });
    const causal = sessions({ primary: redirected(proxied) });
    const session = causal.session();
    await expect(session.write(change(id))).rejects.toEqual(coded("OUTCOME_UNKNOWN"));
    const other = causal.session();
    other.extract(session.inject({}));
    for (const one of [session, other]) {
      await expect.poll(() => one.read(textOf(id)), { timeout: LIMIT_MS }).toBe("new");
      expect(one.lastRead).toMatchObject({ on: "primary" });
    }
    expect(session.position).toMatch(/^pg:\d+:1:/); // it went on from the primary's
  });
  /** To the proxy for the first connection, to the primary itself from then on. */
  const redirected = (first: Pool) => {
    let used = false;
    const connect = () => {
      const pool = used ? primaryPool : first;
      used = true;
      return pool.connect();
    };
    return { connect } as unknown as Pool;
  };

  it("refuse to take a replica for the primary", async () => {
    const id = await pausedNote();
    const causal = sessions({ primary: replicaPool, replicas: [], waitMs: 100 });
    const session = sessions().session();
    await session.write(change(id));
    const confused = causal.session(session.position);
    await expect(confused.read(textOf(id))).rejects.toEqual(coded("UNREACHABLE"));
    await replica.resume();
    await caughtUp(postgres, replica);
    expect(await confused.read(textOf(id))).toBe("new"); // it has it, so it may as well answer
    expectAllBack();
  });

  it("need no more than an ordinary user's rights", async () => {
    const id = await pausedNote();
    await postgres.psql("create role app login; grant all on notes to app");
    await replica.resume();
    await caughtUp(postgres, replica);
    const pools = [postgres.url, replica.url].map((url) => poolOf(url.replace("postgres@", "app@")));
    onTestFinished(async () => void (await Promise.all(pools.map((pool) => pool.end()))));
    const session = sessions({ primary: pools[0] as Pool, replicas: [pools[1] as Pool] }).session();
    await session.write(change(id));
    expect(await session.read(textOf(id))).toBe("new");
    expect(session.lastRead).toMatchObject({ on: "replica", why: "applied" });
  });
});

/** Passes bytes on to the port, and cuts a connection as soon as its client has sent the word, which still arrives. */
async function cutter(port: number, word: string) {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
    }
    upstream.pipe(client);
    client.on("data", (data) => {
      upstream.write(data);
      if (!data.includes(word)) return;
      upstream.unpipe(client);
      client.destroy();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const close = () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  };
  return { port: (server.address() as AddressInfo).port, close };
}
