/** What a transaction behind the fence says when its connection breaks, and what has become of it then. */
import { once } from "node:events";
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import { type PostgresFence, postgresFence } from "@leasehold/fence/postgres";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startPostgres } from "../services/postgres.mjs";
import { until } from "../services/processes.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive } from "./locks.js";
import { MovingLock } from "./postgres-subject.js";

const refused = (code: string) => expect.objectContaining({ code });
const thrownBy = (promise: Promise<unknown>) =>
  promise.then(
    (): Error & { code?: unknown } => new Error("nothing was thrown"),
    (error: unknown) => error as Error & { code?: unknown },
  );

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

describeWithServices("broken connections of PostgreSQL's fence", ["postgres"], () => {
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
    name = `network/${++names}`;
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
