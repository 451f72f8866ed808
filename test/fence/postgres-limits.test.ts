/** Time limits and broken connections: what a transaction behind the fence does when its process or its network stops. */
import { once } from "node:events";
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import type { FencedLock } from "@leasehold/fence";
import { type PostgresFence, postgresFence } from "@leasehold/fence/postgres";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { startPostgres } from "../services/postgres.mjs";
import { until } from "../services/processes.mjs";
import { describeWithServices } from "../services/vitest.js";
import { startHolder } from "./holder.js";
import { exclusive } from "./locks.js";

const refused = (code: string) => expect.objectContaining({ code });
const thrownBy = (promise: Promise<unknown>) =>
  promise.then(
    (): Error & { code?: unknown } => new Error("nothing was thrown"),
    (error: unknown) => error as Error & { code?: unknown },
  );

/** A lock whose end the test moves. */
class MovingLock implements FencedLock {
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

/** Stands between the pool and the server, and does as it is told with what it sees. */
class Between {
  readonly #sockets = new Set<Socket>();
  /** For what comes from the client: whether it goes on to the server. */
  fromClient: (text: string, cut: () => void) => boolean = () => true;
  /** For what comes from the server. It can be delivered later; until then the client does not hear of its end either. */
  fromServer: (text: string, cut: () => void, deliver: () => void) => boolean = () => true;
  readonly #server = createServer((client) => {
    const server = createConnection(this.to, "127.0.0.1");
    const cut = () => {
      client.destroy();
      server.destroy();
    };
    let undelivered = 0;
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.on("error", () => socket.destroy());
      socket.on("close", () => {
        this.#sockets.delete(socket);
        if (undelivered === 0) cut();
      });
    }
    client.on("data", (data) => void (this.fromClient(data.toString("latin1"), cut) && server.write(data)));
    server.on("data", (data) => {
      undelivered++;
      const deliver = () => {
        undelivered--;
        client.write(data);
        if (server.destroyed) client.end();
      };
      if (this.fromServer(data.toString("latin1"), cut, deliver)) deliver();
    });
  });

  constructor(private readonly to: number) {}

  async start(): Promise<number> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return (this.#server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }
}

describeWithServices("time limits and broken connections of PostgreSQL's fence", ["postgres"], () => {
  let postgres: Awaited<ReturnType<typeof startPostgres>>;
  let pool: pg.Pool;
  let fence: PostgresFence;
  let names = 0;
  let name = "";
  beforeAll(async () => {
    postgres = await startPostgres();
    pool = new pg.Pool({ connectionString: postgres.url, max: 20 });
    pool.on("error", () => undefined); // the server is killed below
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

  describe("limits", () => {
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

  describe("behind a network that breaks", () => {
    let proxy: Between;
    let through: pg.Pool;
    let broken: PostgresFence;
    beforeEach(async () => {
      proxy = new Between(postgres.port);
      const port = await proxy.start();
      through = new pg.Pool({
        host: "127.0.0.1",
        port,
        user: "postgres",
        database: "postgres",
        max: 2,
        connectionTimeoutMillis: 1_000,
      });
      through.on("error", () => undefined);
      broken = postgresFence(through);
      await broken.raise(exclusive(name, 5));
      return async () => {
        await through.end();
        await proxy.stop();
      };
    });

    const isCommit = (text: string) => text.includes("_check") && text.includes("; commit");
    const late = () => broken.tx(exclusive(name, 5), (tx) => tx.query(write, [name, "late"]));
    /** It works again as soon as the network does. */
    const works = async () => {
      proxy.fromClient = () => true;
      proxy.fromServer = () => true;
      await broken.tx(exclusive(name, 5), (tx) => tx.query(write, [name, "again"]));
      expect(await value()).toBe("again");
      // None is left behind; one that was being opened may still run into the driver's time limit.
      await until(() => through.idleCount === through.totalCount, { what: "all connections back in the pool" });
    };

    it("says OUTCOME_UNKNOWN when it is cut before the commit has arrived: nothing is written", async () => {
      proxy.fromClient = (text, cut) => {
        if (!isCommit(text)) return true;
        cut();
        return false;
      };
      expect(await thrownBy(late())).toMatchObject({ code: "OUTCOME_UNKNOWN", retryable: false, resource: name });
      expect(await value()).toBe("before");
      await works();
    });

    it("says OUTCOME_UNKNOWN when it is cut after the commit has arrived: it is written", async () => {
      let committing = false;
      proxy.fromClient = (text) => {
        committing ||= isCommit(text);
        return true;
      };
      proxy.fromServer = (_, cut) => {
        if (!committing) return true;
        cut();
        return false;
      };
      expect(await thrownBy(late())).toMatchObject({ code: "OUTCOME_UNKNOWN" });
      expect(await value()).toBe("late");
      await works();
    });

    it("says OUTCOME_UNKNOWN when the answer to the commit does not come", async () => {
      const slow = postgresFence(through, { limitMs: 400 });
      const lock = { name, token: 5 };
      await slow.raise(lock);
      proxy.fromServer = (text) => !text.includes("COMMIT"); // the answer to it
      const error = await thrownBy(slow.tx(lock, (tx) => tx.query(write, [name, "late"])));
      expect(error).toMatchObject({ code: "OUTCOME_UNKNOWN", cause: { code: "UNREACHABLE" } });
      expect(await value()).toBe("late");
      await works();
    });

    it("passes the driver's error when it is cut inside, and LOST if the hold is over", async () => {
      const lock = new MovingLock(name, 5);
      proxy.fromClient = (text, cut) => {
        if (!text.includes("late")) return true;
        cut();
        return false;
      };
      const cutOff = await thrownBy(broken.tx(lock, (tx) => tx.query(write, [name, "late"])));
      expect(cutOff).toBeInstanceOf(Error);
      expect(["OUTCOME_UNKNOWN", "LOST", "STALE_TOKEN"]).not.toContain(cutOff.code);
      proxy.fromClient = (text, cut) => {
        if (!text.includes("late")) return true;
        lock.remainingMs = 0;
        cut();
        return false;
      };
      await expect(broken.tx(lock, (tx) => tx.query(write, [name, "late"]))).rejects.toEqual(refused("LOST"));
      expect(await value()).toBe("before");
      await works();
    });

    it("says what it knows when it is cut between statements, even if their function takes no notice", async () => {
      let cutNow = () => {};
      proxy.fromClient = (_, cut) => {
        cutNow = cut;
        return true;
      };
      const error = await thrownBy(
        broken.tx(exclusive(name, 5), async (tx) => {
          await tx.query(write, [name, "late"]);
          const ended = new Promise((resolve) => (tx.client as unknown as pg.PoolClient).once("end", resolve));
          cutNow();
          await ended;
        }),
      );
      expect(error).toBeInstanceOf(Error);
      expect(error.code, "nothing of the commit was sent").not.toBe("OUTCOME_UNKNOWN");
      expect(await value()).toBe("before");
      await works();
    });

    it("knows that nothing was committed when the session had been ended before the commit came", async () => {
      const lock = new MovingLock(name, 5);
      lock.remainingMs = 400;
      let deliverLate: (() => void) | undefined;
      proxy.fromServer = (text, _, deliver) => {
        if (!text.includes("25P03")) return true;
        deliverLate = deliver; // on its way while the commit is sent
        return false;
      };
      for (const code of ["25P03", "LOST"]) {
        lock.remainingMs = 400;
        deliverLate = undefined;
        proxy.fromClient = (text) => {
          if (!isCommit(text)) return true;
          if (code === "LOST") lock.remainingMs = 0; // over by the time of the answer
          deliverLate?.();
          return true;
        };
        const ended = broken.tx(lock, async (tx) => {
          await tx.query(write, [name, "late"]);
          await until(() => deliverLate !== undefined, { what: "the end of the session" });
        });
        expect(await thrownBy(ended)).toMatchObject({ code });
      }
      expect(await value()).toBe("before");
      await works();
    });

    it("does not wait for the answer to a rollback for as long as for a statement", async () => {
      proxy.fromClient = (text) => !text.includes("rollback");
      const mine = new Error("mine");
      const beganMs = performance.now();
      const failing = broken.tx(exclusive(name, 5), async (tx) => {
        await tx.query(write, [name, "late"]);
        throw mine;
      });
      await expect(failing).rejects.toBe(mine);
      expect(performance.now() - beganMs, "the hold lasts a minute").toBeLessThan(20_000);
      await works(); // on another connection: what became of that one is not known
    });

    it("is UNREACHABLE when nothing answers: to a raise, to a begin, to a new connection", async () => {
      const slow = postgresFence(through, { limitMs: 400 });
      const lock = { name: `${name}/far`, token: 6 };
      proxy.fromServer = () => false;
      await expect(slow.raise(lock)).rejects.toEqual(refused("UNREACHABLE"));
      await expect(slow.tx(lock, () => undefined)).rejects.toEqual(refused("UNREACHABLE"));
      await expect(slow.raise({ ...lock, remainingMs: 300 })).rejects.toEqual(refused("UNREACHABLE"));
      await works();
    });
  });

  describe("with a server that goes", () => {
    it("passes the error of a session that an administrator ends, and does not take the process with it", async () => {
      const error = await thrownBy(
        fence.tx(exclusive(name, 5), async (tx) => {
          await tx.query(write, [name, "late"]);
          const { rows } = await tx.query<{ pid: number }>(ownPid);
          await pool.query("select pg_terminate_backend($1)", [rows[0]?.pid]);
          await gone(rows[0]?.pid ?? 0);
          await tx.query("select 1");
        }),
      );
      expect(error).toMatchObject({ code: "57P01" });
      expect(await value()).toBe("before");
      await fence.tx(exclusive(name, 5), (tx) => tx.query(write, [name, "after"]));
    });

    it("keeps its floors over kill -9, from the resolution of the raise on", async () => {
      const inside = fence.tx(exclusive(name, 5), async (tx) => {
        await tx.query(write, [name, "late"]);
        await fence.raise(exclusive(`${name}/durable`, 77));
        await postgres.kill9();
        await tx.query("select 1");
      });
      await expect(inside).rejects.toBeInstanceOf(Error);
      const down = postgresFence(pool);
      await expect(down.raise(exclusive(name, 5))).rejects.toEqual(refused("UNREACHABLE"));
      await expect(down.tx(exclusive(name, 5), () => undefined)).rejects.toEqual(refused("UNREACHABLE"));
      await postgres.restart();
      expect((await fence.inspect(`${name}/durable`)).floor).toBe(77);
      expect(await value()).toBe("before");
      await fence.tx(exclusive(name, 5), (tx) => tx.query(write, [name, "after"]));
      expect(await value()).toBe("after");
    });
  });
});
