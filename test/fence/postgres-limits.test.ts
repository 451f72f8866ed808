/** The time limits of a transaction behind the fence: they end it before its hold ends. */
import { type PostgresFence, postgresFence } from "@leasehold/fence/postgres";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished, vi } from "vitest";
import { startPostgres } from "../services/postgres.mjs";
import { until } from "../services/processes.mjs";
import { describeWithServices } from "../services/vitest.js";
import { startHolder } from "./holder.js";
import { exclusive } from "./locks.js";
import { MovingLock } from "./postgres-subject.js";

const refused = (code: string) => expect.objectContaining({ code });
const thrownBy = (promise: Promise<unknown>) =>
  promise.then(
    (): Error & { code?: unknown } => new Error("nothing was thrown"),
    (error: unknown) => error as Error & { code?: unknown },
  );

describeWithServices("the time limits of PostgreSQL's fence", ["postgres"], () => {
  let postgres: Awaited<ReturnType<typeof startPostgres>>;
  let pool: pg.Pool;
  let fence: PostgresFence;
  let names = 0;
  let name = "";
  beforeAll(async () => {
    postgres = await startPostgres();
    pool = new pg.Pool({ connectionString: postgres.url, max: 20 });
    fence = postgresFence(pool);
    await fence.migrate();
    await pool.query("create table registers (resource text primary key, value text)");
  });
  afterAll(async () => {
    await pool?.end();
    await postgres?.stop();
  });
  beforeEach(async () => {
    name = `limits/${++names}`;
    await pool.query("insert into registers values ($1, 'before')", [name]);
  });

  const value = async () =>
    (await pool.query("select value from registers where resource = $1", [name])).rows[0]?.value as string;
  const write = "update registers set value = $2 where resource = $1";
  const gone = (pid: number) =>
    until(async () => (await pool.query("select from pg_stat_activity where pid = $1", [pid])).rowCount === 0, {
      what: `the end of the session ${pid}`,
    });
  const ownPid = "select pg_backend_pid() as pid";
  const settings = `select current_setting('lock_timeout') as lock, current_setting('statement_timeout') as statement,
    current_setting('idle_in_transaction_session_timeout') as pause`;

  it("fit into what remains of the hold, and shrink with it before the next statement", async () => {
    const lock = new MovingLock(name, 5);
    await fence.tx(lock, async (tx) => {
      expect((await tx.query(settings)).rows).toEqual([{ lock: "2500ms", statement: "5s", pause: "2500ms" }]);
      lock.remainingMs = 7_500;
      expect((await tx.query(settings)).rows).toEqual([{ lock: "2500ms", statement: "5s", pause: "2500ms" }]);
      lock.remainingMs = 7_400; // less than a statement and a pause together
      expect((await tx.query(settings)).rows).toEqual([{ lock: "1850ms", statement: "3700ms", pause: "1850ms" }]);
      await tx.query("savepoint s");
      lock.remainingMs = 1_000;
      expect((await tx.query(settings)).rows).toEqual([{ lock: "250ms", statement: "500ms", pause: "250ms" }]);
      await tx.query("rollback to s"); // takes the settings back, too
      expect((await tx.query(settings)).rows).toEqual([{ lock: "250ms", statement: "500ms", pause: "250ms" }]);
      lock.remainingMs = 20_000; // renewed
    });
  });

  it("are gone with the transaction", async () => {
    const one = new pg.Pool({ connectionString: postgres.url, max: 1 });
    const before = (await one.query(settings)).rows;
    const other = postgresFence(one);
    await other.raise(exclusive(name, 5));
    await other.tx(exclusive(name, 5), (tx) => tx.query("select 1"));
    expect((await one.query(settings)).rows).toEqual(before);
    await one.end();
  });

  it("do not loosen stricter ones of the session", async () => {
    const strict = ["100ms", "3s", "2min", "1h", "1d", "0"];
    for (const limit of strict) {
      const options = `-c lock_timeout=${limit} -c statement_timeout=${limit} -c idle_in_transaction_session_timeout=${limit}`;
      const one = new pg.Pool({ connectionString: postgres.url, max: 1, options });
      const found = await postgresFence(one).tx(
        { name, token: 5, remainingMs: 1_000_000 },
        async (tx) => (await tx.query<Record<string, string>>(settings)).rows[0],
      );
      if (["100ms", "3s", "2min"].includes(limit))
        expect(found).toEqual({ lock: limit, statement: limit, pause: limit });
      else expect(found?.statement).toMatch(/^(500s|4999\d\dms)$/);
      await one.end();
    }
  });

  it("are set as well on a connection that is known, and looked for again after a minute", async () => {
    const one = new pg.Pool({ connectionString: postgres.url, max: 1 });
    const sent: string[] = [];
    const client = await one.connect();
    const query = client.query.bind(client) as (...args: unknown[]) => unknown;
    client.query = ((...args: unknown[]) => {
      sent.push(String(args[0]));
      return query(...args);
    }) as typeof client.query;
    client.release();
    const other = postgresFence(one);
    const limits = async () => {
      sent.length = 0;
      const found = await other.tx(new MovingLock(name, 5), (tx) =>
        tx.query(`${settings},
        current_setting('tcp_user_timeout') as network`),
      );
      return { rows: found.rows, asked: sent[0]?.includes("_limits") };
    };
    const expected = { lock: "2500ms", statement: "5s", pause: "2500ms", network: "2500" };
    await other.raise(exclusive(name, 5));
    expect(await limits()).toEqual({ rows: [expected], asked: false }); // the raise has asked
    await one.query("set statement_timeout = '1s'");
    const now = performance.now();
    const clock = vi.spyOn(performance, "now").mockImplementation(() => now + 61_000);
    onTestFinished(() => clock.mockRestore());
    expect(await limits()).toEqual({ rows: [{ ...expected, statement: "1s" }], asked: true });
    clock.mockRestore();
    expect(await limits()).toEqual({ rows: [{ ...expected, statement: "1s" }], asked: true });
    await one.end();
  });

  it("are those of the option when nobody says how long the lock is held", async () => {
    const found = await postgresFence(pool, { limitMs: 8_000 }).tx({ name, token: 5 }, (tx) => tx.query(settings));
    expect(found.rows).toEqual([{ lock: "2s", statement: "4s", pause: "2s" }]);
  });

  it("refuse to begin what has no time left", async () => {
    const begin = fence.tx({ name, token: 5, remainingMs: 30 }, () => undefined);
    await expect(begin).rejects.toEqual(refused("LOST"));
    await expect(fence.raise({ name, token: 5, remainingMs: 30 })).rejects.toEqual(refused("LOST"));
  });

  it("end the session of a holder that pauses too long, before its hold ends; its pool goes on", async () => {
    const lock = new MovingLock(name, 5);
    lock.remainingMs = 800;
    const paused = fence.tx(lock, async (tx) => {
      await tx.query(write, [name, "late"]);
      const { rows } = await tx.query<{ pid: number }>(ownPid);
      const beganMs = performance.now();
      await gone(rows[0]?.pid ?? 0);
      expect(performance.now() - beganMs, "within a quarter of the hold, and some").toBeLessThan(5_000);
    });
    await expect(paused).rejects.toMatchObject({ code: "25P03" }); // as the driver says: the hold is not over
    const over = fence.tx(lock, async (tx) => {
      const { rows } = await tx.query<{ pid: number }>(ownPid);
      await gone(rows[0]?.pid ?? 0);
      lock.remainingMs = 0;
    });
    await expect(over).rejects.toEqual(refused("LOST"));
    expect(await value()).toBe("before");
    await fence.tx(exclusive(name, 6), (tx) => tx.query(write, [name, "after"]));
    expect(await value()).toBe("after");
  });

  it("end a statement, and a wait for a lock, and say LOST if the hold is over by then", async () => {
    const lock = new MovingLock(name, 5);
    lock.remainingMs = 600;
    await expect(fence.tx(lock, (tx) => tx.query("select pg_sleep(30)"))).rejects.toMatchObject({ code: "57014" });

    const blocker = await pool.connect();
    await blocker.query("begin");
    await blocker.query(write, [name, "blocking"]);
    await expect(fence.tx(lock, (tx) => tx.query(write, [name, "late"]))).rejects.toMatchObject({ code: "55P03" });
    const losing = fence.tx(lock, async (tx) => {
      const waiting = tx.query(write, [name, "late"]);
      lock.remainingMs = 500;
      queueMicrotask(() => setImmediate(() => (lock.remainingMs = 0)));
      await waiting;
    });
    await expect(losing).rejects.toMatchObject({ code: "LOST", cause: { code: "55P03" } });
    await blocker.query("rollback");
    blocker.release();
    expect(pool.idleCount).toBe(pool.totalCount);
  });

  it("count for each statement anew, also those of the client for the answer", async () => {
    const patient = postgresFence(pool, { limitMs: 4_000 });
    await patient.tx({ name, token: 5 }, async (tx) => {
      for (let i = 0; i < 3; i++) await tx.query("select pg_sleep(1.3)"); // longer than 4 s altogether
    });
  });

  it("end a raise that somebody blocks", async () => {
    await fence.raise(exclusive(name, 1));
    const blocker = await pool.connect();
    await blocker.query("begin");
    await blocker.query("select from leasehold_fence where resource = $1 for update", [name]);
    const lock = new MovingLock(name, 5);
    lock.remainingMs = 400;
    const blocked = await thrownBy(fence.raise(lock));
    expect(blocked).toMatchObject({ code: "UNREACHABLE", retryable: true, cause: { code: "55P03" } });
    await expect(fence.tx(lock, () => undefined)).rejects.toMatchObject({ code: "UNREACHABLE" });
    await expect(fence.raise({ name, token: 5, remainingMs: 400 })).rejects.toEqual(refused("UNREACHABLE"));
    await blocker.query("rollback");
    blocker.release();
    await fence.raise(lock);
  });

  it.each([
    ["a statement of it runs", "sleeping"],
    ["the server sends it a large result", "reading"],
  ])("hold for a process that is stopped while %s", async (_, style) => {
    const holdMs = 5_000;
    const module = new URL("./holders/postgres.mjs", import.meta.url).href;
    const beganMs = performance.now();
    const holder = await startHolder(module, { url: postgres.url, schema: "public", style }, name, 5, holdMs, "late");
    holder.stop();
    await pool.query(write, [name, "successor"]); // the row is locked until the session has been ended
    expect(performance.now() - beganMs).toBeLessThan(holdMs + 5_000);
    expect(await value()).toBe("successor");
    expect(await holder.goOn()).not.toBe("written");
    expect(await value()).toBe("successor");
  });
});
