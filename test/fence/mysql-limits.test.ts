/** Time limits and broken connections: what a transaction behind the fence does when its process or its network stops. */
import { once } from "node:events";
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import type { FencedLock } from "@leasehold/fence";
import { type MysqlDb, type MysqlFence, mysqlFence } from "@leasehold/fence/mysql";
import mysql from "mysql2/promise";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startMariadb } from "../services/mariadb.mjs";
import { until } from "../services/processes.mjs";
import { describeWithServices } from "../services/vitest.js";
import { startHolder } from "./holder.js";
import { exclusive } from "./locks.js";
import { rowsIn } from "./mysql-subject.js";

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

describeWithServices("time limits and broken connections of MariaDB's fence", ["mariadb"], () => {
  let mariadb: Awaited<ReturnType<typeof startMariadb>>;
  let pool: mysql.Pool;
  let fence: MysqlFence;
  let names = 0;
  let name = "";
  beforeAll(async () => {
    mariadb = await startMariadb();
    pool = mysql.createPool({ uri: mariadb.url, connectionLimit: 20 });
    fence = mysqlFence(pool);
    await fence.migrate();
    await pool.query("create table registers (resource varchar(100) primary key, value text)");
  });
  afterAll(async () => {
    await pool?.end();
    await mariadb?.stop();
  });
  beforeEach(async () => {
    name = `limits/${++names}`;
    await pool.query("insert into registers values (?, 'before')", [name]);
  });

  const value = async () =>
    rowsIn<{ value: string }>(await pool.query("select value from registers where resource = ?", [name]))[0]?.value;
  const write = (db: MysqlDb, text: string) =>
    db.query("update registers set value = ? where resource = ?", [text, name]);
  const ownId = async (db: MysqlDb) => rowsIn<{ id: number }>(await db.query("select connection_id() as id"))[0]?.id;
  const gone = (id: number | undefined) =>
    until(
      async () =>
        rowsIn(await pool.query("select 1 from information_schema.processlist where id = ?", [id])).length === 0,
      { what: `the end of the session ${id}` },
    );
  const settings = async (db: MysqlDb) => {
    const text = `select @@innodb_lock_wait_timeout as lock_s, @@lock_wait_timeout as table_s,
      @@idle_transaction_timeout as pause_s, @@idle_write_transaction_timeout as pause_of_writer_s,
      @@idle_readonly_transaction_timeout as pause_of_reader_s, @@max_statement_time as statement_s`;
    return rowsIn<Record<string, number>>(await db.query(text))[0];
  };
  const limited = (waitS: number, statementS: number) => ({
    lock_s: waitS,
    table_s: waitS,
    pause_s: waitS,
    pause_of_writer_s: waitS,
    pause_of_reader_s: waitS,
    statement_s: statementS,
  });

  describe("limits", () => {
    it("fit into what remains of the hold, and shrink with it before the next statement", async () => {
      const lock = new MovingLock(name, 5);
      await fence.tx(lock, async (tx) => {
        expect(await settings(tx)).toEqual(limited(2, 5));
        lock.remainingMs = 7_000;
        expect(await settings(tx)).toEqual(limited(2, 5));
        lock.remainingMs = 6_900; // less than a statement and a pause together
        expect(await settings(tx)).toEqual(limited(1, 3.45));
        lock.remainingMs = 2_000;
        expect(await settings(tx)).toEqual(limited(1, 0.5));
        lock.remainingMs = 1_400;
        await expect(settings(tx)).rejects.toEqual(refused("LOST"));
        await write(pool, "free"); // nothing was written, so nothing is locked
        lock.remainingMs = 700; // the last statement needs no pause after it
      });
      expect(await value()).toBe("free");
    });

    it("are gone with the transaction, however it ends", async () => {
      const one = mysql.createPool({ uri: mariadb.url, connectionLimit: 1 });
      const [before, id] = [await settings(one), await ownId(one)];
      const other = mysqlFence(one);
      const same = async () => {
        expect(await settings(one)).toEqual(before);
        expect(await ownId(one), "the connection is kept").toBe(id);
      };
      await other.raise(exclusive(name, 5));
      await same();
      await other.tx(exclusive(name, 5), (tx) => write(tx, "a"));
      await same();
      await thrownBy(other.tx(exclusive(name, 4), (tx) => write(tx, "b")));
      await same();
      await thrownBy(other.tx(exclusive(name, 5), (tx) => tx.query("select nothing")));
      await same();
      const overtaken = other.tx(exclusive(name, 5), async () => fence.raise(exclusive(name, 6)));
      await expect(overtaken).rejects.toEqual(refused("STALE_TOKEN"));
      await same();
      const short = new MovingLock(name, 7);
      short.remainingMs = 3_000;
      await expect(other.tx(short, (tx) => tx.query("select sleep(9)"))).rejects.toMatchObject({ errno: 1969 });
      await same();
      await one.end();
    });

    it("do not loosen stricter ones of the session", async () => {
      const one = mysql.createPool({ uri: mariadb.url, connectionLimit: 1 });
      await one.query(`set session innodb_lock_wait_timeout = 0, session idle_transaction_timeout = 2,
        session idle_write_transaction_timeout = 3, session max_statement_time = 0.25`);
      const before = await settings(one);
      const lock = { name, token: 5, remainingMs: 1_000_000 };
      const found = await mysqlFence(one).tx(lock, settings);
      expect(found).toMatchObject({ lock_s: 0, pause_s: 2, pause_of_writer_s: 3, statement_s: 0.25, table_s: 249 });
      expect(await settings(one)).toEqual(before);
      await one.end();
    });

    it("are those of the option when nobody says how long the lock is held", async () => {
      expect(await mysqlFence(pool, { limitMs: 8_000 }).tx({ name, token: 5 }, settings)).toEqual(limited(2, 4));
    });

    it("refuse to begin what has no time left", async () => {
      const short = { name, token: 5, remainingMs: 1_400 };
      await expect(fence.tx(short, () => undefined)).rejects.toEqual(refused("LOST"));
      await expect(fence.raise(short)).rejects.toEqual(refused("LOST"));
    });

    it("end the session of a holder that pauses too long, before its hold ends; its pool goes on", async () => {
      const lock = new MovingLock(name, 5);
      lock.remainingMs = 2_000;
      const pause = async (tx: MysqlDb) => {
        await write(tx, "late");
        await gone(await ownId(tx));
      };
      const error = await thrownBy(fence.tx(lock, pause));
      expect(error).toBeInstanceOf(Error);
      expect(["LOST", "STALE_TOKEN", undefined]).toContain(error.code === "ECONNRESET" ? undefined : error.code);
      const over = fence.tx(lock, async (tx) => {
        await pause(tx);
        lock.remainingMs = 0;
      });
      await expect(over).rejects.toEqual(refused("LOST"));
      expect(await value()).toBe("before");
      await fence.tx(exclusive(name, 6), (tx) => write(tx, "after"));
      expect(await value()).toBe("after");
    });

    it("end a wait for a lock, and a raise that somebody blocks", async () => {
      await fence.raise(exclusive(name, 1));
      const blocker = await pool.getConnection();
      await blocker.query("begin");
      await write(blocker, "blocking");
      await blocker.query("select 1 from leasehold_fence where resource = ? for update", [name]);
      const lock = new MovingLock(name, 5);
      lock.remainingMs = 4_000;
      const blocked = await thrownBy(fence.raise(lock));
      expect(blocked).toMatchObject({ code: "UNREACHABLE", retryable: true, cause: { code: "ER_LOCK_WAIT_TIMEOUT" } });
      await expect(fence.tx(lock, () => undefined)).rejects.toMatchObject({ code: "UNREACHABLE" });
      const other = new MovingLock(`${name}/other`, 5);
      other.remainingMs = 4_000;
      const waiting = fence.tx(other, (tx) => write(tx, "late"));
      await expect(waiting).rejects.toMatchObject({ code: "ER_LOCK_WAIT_TIMEOUT" });
      await blocker.query("rollback");
      blocker.release();
      await fence.raise(lock);
    });

    it("hold for a process that is stopped while a statement of it runs", async () => {
      const holdMs = 4_000;
      const module = new URL("./holders/mysql.mjs", import.meta.url).href;
      const config = { url: mariadb.url, schema: "test", style: "sleeping" };
      const beganMs = performance.now();
      const holder = await startHolder(module, config, name, 5, holdMs, "late");
      holder.stop();
      await write(pool, "successor");
      expect(performance.now() - beganMs).toBeLessThan(holdMs + 5_000);
      expect(await holder.goOn()).not.toBe("written");
      expect(await value()).toBe("successor");
    });
  });

  describe("behind a network that breaks", () => {
    let proxy: Between;
    let through: mysql.Pool;
    let broken: MysqlFence;
    beforeEach(async () => {
      proxy = new Between(mariadb.port);
      const uri = mariadb.url.replace(`:${mariadb.port}`, `:${await proxy.start()}`);
      through = mysql.createPool({ uri, connectionLimit: 2, connectTimeout: 1_000 });
      broken = mysqlFence(through);
      await broken.raise(exclusive(name, 5));
      return async () => {
        await through.end().catch(() => undefined); // one that was being opened
        await proxy.stop();
      };
    });

    const isCommit = (text: string) => text.includes("_commit");
    const late = () => broken.tx(exclusive(name, 5), (tx) => write(tx, "late"));
    /** It works again as soon as the network does. */
    const works = async () => {
      proxy.fromClient = () => true;
      proxy.fromServer = () => true;
      await broken.tx(exclusive(name, 5), (tx) => write(tx, "again"));
      expect(await value()).toBe("again");
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
      const slow = mysqlFence(through, { limitMs: 2_000 });
      const lock = { name, token: 5 };
      await slow.raise(lock);
      let committing = false;
      proxy.fromClient = (text) => {
        committing ||= isCommit(text);
        return true;
      };
      proxy.fromServer = () => !committing;
      const error = await thrownBy(slow.tx(lock, (tx) => write(tx, "late")));
      expect(error).toMatchObject({ code: "OUTCOME_UNKNOWN", cause: { code: "UNREACHABLE" } });
      expect(await value()).toBe("late");
      await works();
    });

    it("passes the driver's error when it is cut inside, and LOST if the hold is over", async () => {
      const lock = new MovingLock(name, 5);
      for (const over of [false, true]) {
        proxy.fromClient = (text, cut) => {
          if (!text.includes("late")) return true;
          if (over) lock.remainingMs = 0;
          cut();
          return false;
        };
        const cutOff = await thrownBy(broken.tx(lock, (tx) => write(tx, "late")));
        if (over) expect(cutOff.code).toBe("LOST");
        else expect(["OUTCOME_UNKNOWN", "LOST", "STALE_TOKEN"]).not.toContain(cutOff.code);
      }
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
          await write(tx, "late");
          const ended = new Promise<void>((resolve) => {
            tx.connection.on("end", () => resolve());
            tx.connection.on("error", () => resolve());
          });
          cutNow();
          await ended;
        }),
      );
      expect(error).toBeInstanceOf(Error);
      expect(error.code, "nothing of the commit was sent").not.toBe("OUTCOME_UNKNOWN");
      expect(await value()).toBe("before");
      await works();
    });

    it("is UNREACHABLE when nothing answers: to a raise, to a begin", async () => {
      const slow = mysqlFence(through, { limitMs: 2_000 });
      const lock = { name: `${name}/far`, token: 6 };
      proxy.fromServer = () => false;
      await expect(slow.raise(lock)).rejects.toEqual(refused("UNREACHABLE"));
      await expect(slow.tx(lock, () => undefined)).rejects.toEqual(refused("UNREACHABLE"));
      await works();
    });
  });

  describe("with a server that goes", () => {
    it("passes the error of a session that an administrator ends, and does not take the process with it", async () => {
      const error = await thrownBy(
        fence.tx(exclusive(name, 5), async (tx) => {
          await write(tx, "late");
          const id = await ownId(tx);
          await pool.query("kill ?", [id]);
          await gone(id);
          await tx.query("select 1");
        }),
      );
      expect(error).toBeInstanceOf(Error);
      expect(error.code).not.toBe("OUTCOME_UNKNOWN");
      expect(await value()).toBe("before");
      await fence.tx(exclusive(name, 5), (tx) => write(tx, "after"));
    });

    it("keeps its floors over kill -9, from the resolution of the raise on", async () => {
      const inside = fence.tx(exclusive(name, 5), async (tx) => {
        await write(tx, "late");
        await fence.raise(exclusive(`${name}/durable`, 77));
        await mariadb.kill9();
        await tx.query("select 1");
      });
      await expect(inside).rejects.toBeInstanceOf(Error);
      await expect(fence.raise(exclusive(name, 5))).rejects.toEqual(refused("UNREACHABLE"));
      await expect(fence.tx(exclusive(name, 5), () => undefined)).rejects.toEqual(refused("UNREACHABLE"));
      await mariadb.restart();
      expect((await fence.inspect(`${name}/durable`)).floor).toBe(77);
      expect(await value()).toBe("before");
      await fence.tx(exclusive(name, 5), (tx) => write(tx, "after"));
      expect(await value()).toBe("after");
    });
  });
});
