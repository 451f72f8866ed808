/** Causal sessions through failovers of a real PostgreSQL, and with a replica that is frozen. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { postgresCausal } from "@leasehold/fence/causal";
import type { Pool, PoolClient } from "pg";
import { afterEach, expect, it } from "vitest";
import { need } from "../services/packages.mjs";
import { onFreePorts } from "../services/ports.mjs";
import { startPostgres } from "../services/postgres.mjs";
import { removeFolder, run, ServerProcess, temporaryFolder, until } from "../services/processes.mjs";
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
  redirectable,
  textOf,
} from "./causal-support.js";

interface Server {
  readonly url: string;
  readonly port: number;
  psql(sql: string): Promise<string>;
}

const conninfo = ({ port }: { port: number }) => `host=127.0.0.1 port=${port} user=postgres application_name=follower`;

/** A second replica of the primary. */
async function startFollower(primary: Postgres): Promise<Server & { stop(): Promise<void> }> {
  const bin = dirname(await need("postgres"));
  const id = async (flag: string) => Number(await run(["id", flag, "postgres"]));
  const user = process.getuid?.() === 0 ? { uid: await id("-u"), gid: await id("-g") } : undefined;
  return onFreePorts(1, async (port) => {
    const folder = temporaryFolder("follower", user);
    const data = join(folder, "data");
    const flags = ["-R", "-X", "stream", "-c", "fast", "--no-sync", "--no-manifest"];
    await run([join(bin, "pg_basebackup"), "-d", conninfo(primary), "-D", data, ...flags], { user });
    const own = {
      listen_addresses: "127.0.0.1",
      port: `${port}`,
      unix_socket_directories: folder,
      max_connections: "200",
    };
    const settings = { ...own, ...QUIET };
    const command = [join(bin, "postgres"), "-D", data, "-c", "dynamic_shared_memory_type=mmap"];
    for (const [key, value] of Object.entries(settings)) command.push("-c", `${key}=${value}`);
    const ready = (log: string) => log.includes("started streaming WAL");
    const server = await ServerProcess.start({ name: "follower", folder, user, command, ready, endSignal: "SIGQUIT" });
    const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
    const psql = async (sql: string) => {
      const flags = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set", "ON_ERROR_STOP=1"];
      return (await run([join(bin, "psql"), ...flags, url], { input: sql })).trim();
    };
    const stop = async () => {
      await server.end();
      await removeFolder(folder);
    };
    return { url, port, psql, stop };
  });
}

/** Makes the replica receive from another server, or from nobody. */
async function follow(replica: Server, from: { port: number } | undefined): Promise<void> {
  await replica.psql(`alter system set primary_conninfo = '${from === undefined ? "" : conninfo(from)}'`);
  await replica.psql("select pg_reload_conf()");
  const sender = `select count(*) from pg_stat_wal_receiver where status = 'streaming'
    and sender_port = ${from?.port ?? "sender_port"}`;
  const changed = async () => (await replica.psql(sender)) === (from === undefined ? "0" : "1");
  await until(changed, { what: "the replica's new source", limitMs: LIMIT_MS });
}

async function promote(replica: Server): Promise<void> {
  expect(await replica.psql("select pg_promote()")).toBe("t");
}

/** A server and all its processes. */
function signalAll(pid: number, signal: NodeJS.Signals): void {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean).map(Number);
  for (const one of [pid, ...children]) process.kill(one, signal);
}

describeWithServices("causal sessions when PostgreSQL fails", ["postgres"], () => {
  const endings: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const end of endings.splice(0).reverse()) await end();
  });
  const pool = (server: { url: string }, user = "postgres", max = 5): Pool => {
    const made = poolOf(server.url.replace("postgres@", `${user}@`), { max });
    endings.push(() => made.end());
    return made;
  };
  const start = async () => {
    const postgres = await startPostgres({ replica: true, settings: QUIET });
    endings.push(() => postgres.stop());
    const id = await addNote(postgres);
    await postgres.psql("create role app login; grant all on notes to app");
    await postgres.psql("create role monitor login in role pg_read_all_stats, app");
    await caughtUp(postgres, postgres.replica as PostgresReplica);
    return { postgres, replica: postgres.replica as PostgresReplica, id };
  };

  it("they follow the new primary on its timeline, and its replicas as soon as these can be seen to follow it", async () => {
    const { postgres, replica, id } = await start();
    const follower = await startFollower(postgres);
    endings.push(() => follower.stop());
    const primary = redirectable(pool(postgres));
    const causal = postgresCausal({ primary, replicas: [pool(follower, "monitor")], waitMs: LIMIT_MS });
    const ordinary = postgresCausal({ primary, replicas: [pool(follower, "app")], waitMs: LIMIT_MS });
    const session = causal.session();
    await session.write(change(id, "before"));
    expect(session.position).toMatch(/^pg:\d+:1:/);
    expect(await session.read(textOf(id))).toBe("before");
    expect(session.lastRead).toMatchObject({ on: "replica" });
    await caughtUp(postgres, replica);

    await postgres.kill9();
    await promote(replica);
    primary.to = pool(replica);
    await follow(follower, replica);
    const before = causal.session(session.position);
    expect(await before.read(textOf(id))).toBe("before");
    await session.write(change(id, "after"));
    expect(session.position).toMatch(/^pg:\d+:2:/);
    expect(await session.read(textOf(id))).toBe("after");
    expect(session.lastRead).toMatchObject({ on: "replica", why: "applied" });
    // An ordinary user does not see what the replica receives; its last checkpoint is of the old timeline.
    const cautious = ordinary.session(session.position);
    expect(await cautious.read(textOf(id))).toBe("after");
    expect(cautious.lastRead).toMatchObject({ on: "primary", why: "other_history", covered: true });
    await replica.psql("checkpoint");
    await caughtUp(replica, follower as unknown as PostgresReplica);
    await follower.psql("checkpoint");
    expect(await cautious.read(textOf(id))).toBe("after");
    expect(cautious.lastRead).toMatchObject({ on: "replica", why: "applied" });
  });

  it("they do not take another history for their own, however far it has come, and tell that a write is lost", async () => {
    const { postgres, replica, id } = await start();
    const primary = redirectable(pool(postgres));
    const causal = postgresCausal({ primary, replicas: [pool(replica)], waitMs: LIMIT_MS });
    const session = causal.session();
    await follow(replica, undefined);
    await session.write(change(id, "lost"));
    const position = session.position as string;

    await postgres.kill9();
    await promote(replica);
    primary.to = pool(replica);
    // The new primary is past that LSN, with something else.
    await replica.psql("create table filler as select * from generate_series(1, 10000)");
    const lsn = position.split(":")[3];
    expect(await replica.psql(`select pg_current_wal_insert_lsn() > '${lsn}'`)).toBe("t");
    expect(await session.read(textOf(id))).toBe("old");
    expect(session.lastRead).toMatchObject({ on: "primary", why: "other_history", covered: false });
    expect(session.lastRead?.waitedMs).toBeLessThan(10_000); // at once: nothing to wait for
    expect(session.position).toMatch(/^pg:\d+:2:/);
    await session.read(textOf(id)); // the server that was the replica has it, being the primary
    expect(session.lastRead).toMatchObject({ why: "applied", covered: true });

    // The old primary comes back, and does not know that it was deposed. Its word does not count.
    await session.write(change(id, "kept"));
    const kept = session.position;
    await postgres.restart();
    primary.to = pool(postgres);
    const deposed = postgresCausal({ primary, replicas: [], waitMs: LIMIT_MS }).session(kept);
    await deposed.read(textOf(id));
    expect(deposed.lastRead).toMatchObject({ on: "primary", covered: false });
    expect(deposed.position).toBe(kept);
  });

  it("they leave a frozen replica alone after its first silence, and come back to it", async () => {
    const { postgres, replica, id } = await start();
    const [primary, replicas] = [pool(postgres), pool(replica, "postgres", 3)];
    const session = postgresCausal({ primary, replicas: [replicas], waitMs: 500 }).session();
    await session.write(change(id));
    expect(await session.read(textOf(id))).toBe("new"); // connected
    signalAll(replica.pid, "SIGSTOP");
    try {
      expect(await session.read(textOf(id))).toBe("new");
      expect(session.lastRead).toMatchObject({ on: "primary", why: "unreachable" });
      expect(replicas.totalCount).toBe(0); // the connection was given up, with the question
      const reads = Array.from({ length: 20 }, () => session.read(textOf(id)));
      expect(new Set(await Promise.all(reads))).toEqual(new Set(["new"]));
      expect(session.lastRead).toMatchObject({ on: "primary", why: "unreachable" });
      const beganMs = performance.now();
      for (let i = 0; i < 40; i++) expect(await session.read(textOf(id))).toBe("new");
      expect(performance.now() - beganMs).toBeLessThan(40 * 250); // they do not wait 500 ms each
      expect(replicas.waitingCount).toBeLessThan(21); // nothing was added to its queue
    } finally {
      signalAll(replica.pid, "SIGCONT");
    }
    const where = async (): Promise<string | undefined> => {
      expect(await session.read(textOf(id))).toBe("new");
      return session.lastRead?.on;
    };
    await expect.poll(where, { timeout: LIMIT_MS }).toBe("replica");
  });

  it("they go to the primary when the replica is dead, and come back when it lives", async () => {
    const { postgres, replica, id } = await start();
    const replicas = pool(replica);
    const causal = postgresCausal({ primary: pool(postgres), replicas: [replicas], waitMs: LIMIT_MS });
    const session = causal.session();
    await session.write(change(id));
    expect(await session.read(textOf(id))).toBe("new");
    const inside = session.read(async (db: PoolClient) => {
      await replica.kill9();
      return textOf(id)(db);
    });
    await expect(inside).rejects.toThrow(); // the callback's own error: it may not be repeated
    expect(await session.read(textOf(id))).toBe("new");
    expect(session.lastRead).toMatchObject({ on: "primary", why: "unreachable" });
    expect(session.lastRead?.waitedMs).toBeLessThan(LIMIT_MS);
    await replica.restart();
    expect(await session.read(textOf(id))).toBe("new");
    expect(session.lastRead).toMatchObject({ on: "replica" });

    // It dies while it is waited for: nothing is left to wait for.
    await replica.pause();
    await session.write(change(id, "newer"));
    const waiting = session.read(textOf(id));
    await expect.poll(() => replicas.idleCount, { timeout: LIMIT_MS }).toBe(0); // it is asked again and again
    await replica.kill9();
    expect(await waiting).toBe("newer");
    expect(session.lastRead).toMatchObject({ on: "primary", why: "behind" });
    expect(session.lastRead?.waitedMs).toBeLessThan(LIMIT_MS / 2);
  });
});
