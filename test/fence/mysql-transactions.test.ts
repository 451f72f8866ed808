/** What transactions behind the fence promise beyond the conformance suite: isolation, handovers, errors, concurrency. */
import { FenceError } from "@leasehold/fence";
import { type MysqlDb, type MysqlFence, type MysqlTx, mysqlFence } from "@leasehold/fence/mysql";
import mysql from "mysql2/promise";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { startMariadb } from "../services/mariadb.mjs";
import { until } from "../services/processes.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive } from "./locks.js";
import { CountingPool, rowsIn } from "./mysql-subject.js";

const refused = (code: string) => expect.objectContaining({ code });

/** A promise that somebody else resolves. */
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

describeWithServices("transactions behind MariaDB's fence", ["mariadb"], () => {
  let mariadb: Awaited<ReturnType<typeof startMariadb>>;
  let pool: mysql.Pool;
  let counting: CountingPool;
  let fence: MysqlFence;
  let names = 0;
  let name = "";
  beforeAll(async () => {
    mariadb = await startMariadb();
    pool = mysql.createPool({ uri: mariadb.url, connectionLimit: 60 });
    counting = new CountingPool(pool);
    fence = mysqlFence(counting);
    await fence.migrate();
    await pool.query("create table numbers (name varchar(500) primary key, number int not null)");
  });
  afterAll(async () => {
    await pool?.end();
    await mariadb?.stop();
  });
  beforeEach(() => {
    name = `transactions/${++names}`;
  });

  const put = (key: string, number: number) =>
    pool.query("insert into numbers values (?, ?) on duplicate key update number = values(number)", [key, number]);
  const get = async (key: string) =>
    rowsIn<{ number: number }>(await pool.query("select number from numbers where name = ?", [key]))[0]?.number;
  const add = (tx: MysqlDb, key: string, by: number) =>
    tx.query("update numbers set number = number + ? where name = ?", [by, key]);
  const status = async (variable: string) => {
    const [row] = rowsIn<{ Value: string }>(await pool.query("show global status like ?", [variable]));
    return Number(row?.Value);
  };
  const deadlocks = () => status("Innodb_deadlocks");
  const somebodyWaits = () =>
    until(async () => (await status("Innodb_row_lock_current_waits")) > 0, { what: "a wait for a lock" });
  const numberOf = async (db: MysqlDb, key: string) =>
    rowsIn<{ number: number }>(await db.query("select number from numbers where name = ?", [key]))[0]?.number;

  it("resolve with their function's result, and take as many round trips as without a fence", async () => {
    await put(name, 1);
    const lock = exclusive(name, 5);
    const work = async (tx: MysqlTx) => {
      await add(tx, name, 1);
      return "done";
    };
    let before = counting.sent;
    expect(await fence.tx(lock, work)).toBe("done");
    expect(counting.sent - before, "with the raise of the floor").toBe(3);
    before = counting.sent;
    await fence.tx(lock, work);
    expect(counting.sent - before).toBe(3);
    expect(await get(name)).toBe(3);
  });

  it("roll back when their function throws, and reject with that very error", async () => {
    await put(name, 1);
    const mine = new Error("mine");
    const failing = fence.tx(exclusive(name, 5), async (tx) => {
      await add(tx, name, 1);
      throw mine;
    });
    await expect(failing).rejects.toBe(mine);
    await expect(fence.tx(exclusive(name, 5), (tx) => tx.query("select nothing"))).rejects.toMatchObject({
      code: "ER_BAD_FIELD_ERROR",
    });
    expect(await get(name)).toBe(1);
    await fence.tx(exclusive(name, 5), (tx) => add(tx, name, 1));
    expect(await get(name), "the connection is as good as new").toBe(2);
  });

  it("go on after an error that their function has caught, as transactions in MySQL do", async () => {
    await put(name, 1);
    await fence.tx(exclusive(name, 5), async (tx) => {
      await tx.query("insert into numbers values (?, 9)", [name]).catch(() => undefined);
      await add(tx, name, 1);
    });
    expect(await get(name)).toBe(2);
  });

  it("write nothing after a deadlock, even if their function takes no notice: the server has rolled back", async () => {
    const [a, b] = [`${name}/a`, `${name}/b`];
    await put(a, 0);
    await put(b, 0);
    const other = await pool.getConnection();
    await other.query("start transaction");
    await add(other, b, 1);
    await other.query("insert into numbers values (?, 0), (?, 0), (?, 0)", [`${b}/1`, `${b}/2`, `${b}/3`]); // it weighs more
    const [inside, after] = [gate(), [] as unknown[]];
    const lax = fence.tx(exclusive(name, 5), async (tx) => {
      await add(tx, a, 1);
      inside.open();
      await tx.query("update numbers set number = 7 where name = ?", [b]).catch(() => undefined);
      after.push(await add(tx, a, 10).catch((error: unknown) => error));
    });
    const end = lax.catch((error: unknown) => error);
    await inside.opened;
    await somebodyWaits();
    await add(other, a, 100);
    await other.query("commit");
    other.release();
    expect(await end).toMatchObject({ code: "ER_LOCK_DEADLOCK" });
    expect(after).toEqual([refused("ER_LOCK_DEADLOCK")]);
    expect([await get(a), await get(b)]).toEqual([100, 1]);
  });

  it("are refused at their end when they were ended behind the fence's back", async () => {
    const ended = fence.tx(exclusive(name, 5), async (tx) => {
      await tx.connection.query("commit");
    });
    await expect(ended).rejects.toMatchObject({ sqlState: "25000" });
  });

  it("send nothing more when the server says that one of their statements has ended them", async () => {
    await pool.query("create procedure if not exists settle() begin select 1; commit; end");
    await put(name, 1);
    // What a server's version hides in a comment is run, and not read by the fence.
    for (const text of ["call settle()", "/*!50000 commit */", "/*M! commit */"]) {
      const after: unknown[] = [];
      const lax = fence.tx(exclusive(name, 5), async (tx) => {
        await tx.query("savepoint s");
        await tx.query("select 1");
        after.push(await tx.query(text).catch((error: unknown) => error));
        after.push(await add(tx, name, 10).catch((error: unknown) => error));
      });
      await expect(lax, text).rejects.toEqual(refused("INVALID"));
      expect(after, text).toEqual([refused("INVALID"), refused("INVALID")]);
    }
    expect(await get(name)).toBe(1);
  });

  it("are not ended by their function", async () => {
    const ending = [
      "commit",
      " COMMIT;",
      "rollback",
      "begin",
      "start transaction",
      "rollback work",
      "rollback and chain",
    ];
    const comments = ["/* x */ commit", "-- x\ncommit", "# x\n commit"];
    const byTheWay = ["create table x (i int)", "truncate numbers", "lock tables numbers read", "set @@autocommit = 1"];
    const more = ["set a = 1, session autocommit=1", "drop table x", "alter table x add y int", "xa end 'x'"];
    for (const text of [...ending, ...comments, ...byTheWay, ...more, 7 as unknown as string]) {
      await expect(fence.tx(exclusive(name, 5), (tx) => tx.query(text))).rejects.toEqual(refused("INVALID"));
    }
    await put(name, 1);
    await fence.tx(exclusive(name, 5), async (tx) => {
      await tx.query("savepoint s");
      await add(tx, name, 10);
      await tx.query("rollback to savepoint s");
      await add(tx, name, 1);
      await tx.query("rollback work to s");
      await add(tx, name, 2);
      await tx.query("release savepoint s");
      await tx.query("create temporary table if not exists mine (i int)");
      await tx.query("drop temporary table mine");
      await tx.query("set @autocommit_is_mine = 'commit'");
    });
    expect(await get(name)).toBe(3);
  });

  it("are closed when their function has ended", async () => {
    let kept: MysqlTx | undefined;
    await fence.tx(exclusive(name, 5), (tx) => {
      kept = tx;
    });
    await expect(kept?.query("select 1")).rejects.toEqual(refused("INVALID"));
  });

  it("run statements in the order of the calls, and those that nobody awaited before the commit", async () => {
    await put(name, 1);
    await fence.tx(exclusive(name, 5), async (tx) => {
      const answers = [2, 3, 5].map((factor) => {
        void tx.query("update numbers set number = number * ? + 1 where name = ?", [factor, name]);
        return numberOf(tx, name);
      });
      expect(await Promise.all(answers)).toEqual([3, 10, 51]);
      void add(tx, name, 1);
    });
    expect(await get(name)).toBe(52);
  });

  it("have a bound on statements that wait", async () => {
    const crowded = fence.tx(exclusive(name, 5), async (tx) => {
      const all = await Promise.allSettled(Array.from({ length: 1_200 }, () => tx.query("select 1")));
      return all.flatMap((one) => (one.status === "rejected" ? [(one.reason as FenceError).code] : []));
    });
    expect(await crowded).toEqual(Array(200).fill("LIMIT"));
  });

  it("check their options", async () => {
    const lock = exclusive(name, 5);
    const nothing = () => undefined;
    const before = counting.sent;
    await expect(fence.tx(lock, nothing, { isolation: "snapshot" as never })).rejects.toEqual(refused("INVALID"));
    await expect(fence.tx(lock, nothing, { isolatoin: "serializable" } as never)).rejects.toEqual(refused("INVALID"));
    await expect(fence.tx(lock, "select 1" as never)).rejects.toEqual(refused("INVALID"));
    await expect(fence.tx([], nothing)).rejects.toEqual(refused("INVALID"));
    await expect(fence.tx(Array(65).fill(lock), nothing)).rejects.toEqual(refused("INVALID"));
    expect(counting.sent).toBe(before);
  });

  it("have the isolation that is asked for, and give the connection itself", async () => {
    const typed = mysqlFence<mysql.PoolConnection>(pool);
    const found = { "read committed": 2, "repeatable read": 1, serializable: "locked" } as const;
    for (const isolation of ["read committed", "repeatable read", "serializable"] as const) {
      await put(name, 1);
      const seen = await typed.tx(
        exclusive(name, 5),
        async (tx) => {
          await numberOf(tx, name);
          const other = pool.query("select number from numbers where name = ? for update nowait", [name]);
          if (await other.catch(() => "locked").then((answer) => answer === "locked")) return "locked";
          await put(name, 2);
          const [rows] = await tx.connection.query<mysql.RowDataPacket[]>("select number from numbers where name = ?", [
            name,
          ]);
          return rows[0]?.number as number;
        },
        { isolation },
      );
      expect(seen).toBe(found[isolation]);
    }
  });

  it("of one holder run at the same time", async () => {
    const lock = exclusive(name, 5);
    await fence.raise(lock);
    const keys = Array.from({ length: 20 }, (_, i) => `${name}/${i}`);
    for (const key of keys) await put(key, 0);
    let inside = 0;
    const all = gate();
    await Promise.all(
      keys.map((key) =>
        fence.tx(lock, async (tx) => {
          await add(tx, key, 1);
          // The check takes its share lock: all of them hold it at once.
          await tx.query("call leasehold_fence_check(?, 5, true)", [name]);
          if (++inside === keys.length) all.open();
          await all.opened;
        }),
      ),
    );
    for (const key of keys) expect(await get(key)).toBe(1);
  });

  it("of different holders that all write for the first time do not deadlock, nor do checks that must raise", async () => {
    await put(name, 0);
    const before = await deadlocks();
    const outcomes = await Promise.allSettled([
      ...Array.from({ length: 50 }, (_, i) => fence.tx(exclusive(name, i + 1), (tx) => add(tx, name, 1))),
      // As after a reset, or from a language that never raises: check and write without a raise before.
      ...Array.from({ length: 50 }, (_, i) =>
        pool.query(`call leasehold_fence_check('${name}/unraised', ${(i % 5) + 1}, ${i % 7 !== 0})`),
      ),
    ]);
    for (const outcome of outcomes) {
      if (outcome.status === "fulfilled") continue;
      const { code, sqlState } = outcome.reason as { code: string; sqlState?: string };
      expect(sqlState ?? code, String(outcome.reason)).toMatch(/^(STALE_TOKEN|LH409)$/);
    }
    expect(await deadlocks(), "the fence may have made a STALE_TOKEN of one").toBe(before);
  });

  it("block a raise between their check and their commit, also under a shared hold that is the first to come", async () => {
    for (const [resource, raises, raised] of [
      [`${name}/exclusive`, true, true],
      [`${name}/unraised`, true, false],
      [`${name}/shared`, false, true],
      [`${name}/shared, the first`, false, false],
    ] as const) {
      if (raised) await fence.raise(exclusive(resource, 4));
      await put(resource, 0);
      const writer = await pool.getConnection();
      await writer.query("begin");
      await writer.query("call leasehold_fence_check(?, ?, ?)", [resource, raised ? 4 : 5, raises]);
      await add(writer, resource, 1);
      const seen = (async () => {
        await fence.raise(exclusive(resource, 6));
        return get(resource);
      })();
      await somebodyWaits();
      await writer.query("commit");
      writer.release();
      expect(await seen, "the raise has waited for the commit").toBe(1);
    }
  });

  it("begin their snapshot after the last commit of a lower token", async () => {
    // On call: one of two doctors may leave if the other one stays.
    const [me, you] = [`${name}/me`, `${name}/you`];
    const leave = async (tx: MysqlDb, who: string, other: string) => {
      if ((await numberOf(tx, other)) === 1) await add(tx, who, -1);
    };
    /** Token 33 has checked and not yet committed when `successor` begins. */
    const handover = async (successor: () => Promise<unknown>) => {
      await put(me, 1);
      await put(you, 1);
      await fence.raise(exclusive(name, 33));
      const old = await pool.getConnection();
      await old.query("begin");
      await leave(old, me, you);
      await old.query("call leasehold_fence_check(?, 33, true)", [name]);
      const succeeding = successor();
      await somebodyWaits();
      await old.query("commit");
      old.release();
      await succeeding;
      return [await get(me), await get(you)];
    };

    const fenced = await handover(() =>
      fence.tx(exclusive(name, 34), (tx) => leave(tx, you, me), { isolation: "repeatable read" }),
    );
    expect(fenced).toEqual([0, 1]);

    await fence.reset(name);
    const inOne = await handover(async () => {
      const client = await pool.getConnection();
      await client.query("start transaction with consistent snapshot");
      await client
        .query("call leasehold_fence_raise(?, 34)", [name])
        .then(() => leave(client, you, me))
        .then(() => client.query("commit"))
        .finally(() => client.release());
    });
    expect(inOne, "what would come of a raise in the same transaction: both have left").toEqual([0, 0]);
  });

  it("reject STALE_TOKEN and not with a conflict when a higher token was there", async () => {
    const [a, b] = [`${name}/a`, `${name}/b`];
    await put(a, 0);
    await put(b, 0);
    const [inside, goOn] = [gate(), gate()];
    const old = fence.tx(exclusive(name, 33), async (tx) => {
      await add(tx, a, 1);
      inside.open();
      await goOn.opened;
      await tx.query("update numbers set number = 7 where name = ?", [b]);
    });
    const oldEnd = old.catch((error: unknown) => error);
    await inside.opened;
    await fence.tx(exclusive(name, 34), async (tx) => {
      await add(tx, b, 10);
      await tx.query("insert into numbers values (?, 0), (?, 0), (?, 0)", [`${b}/1`, `${b}/2`, `${b}/3`]); // it weighs more
      goOn.open();
      await somebodyWaits();
      await add(tx, a, 10);
    });
    expect(await oldEnd).toMatchObject({
      code: "STALE_TOKEN",
      token: 33,
      floor: 34,
      cause: { code: "ER_LOCK_DEADLOCK" },
    });
    expect([await get(a), await get(b)]).toEqual([10, 10]);
  });

  it("take several locks, and commit only if none of them is stale", async () => {
    const [a, b] = [`${name}/a`, `${name}/b`];
    await put(a, 100);
    await put(b, 0);
    const move = async (tx: MysqlTx) => {
      await add(tx, a, -10);
      await add(tx, b, 10);
    };
    const before = counting.sent;
    await fence.tx([exclusive(b, 8), exclusive(a, 7)], move);
    expect(counting.sent - before, "a call more for the other raise, and for the other check").toBe(6);
    expect(await Promise.all([fence.inspect(a), fence.inspect(b)])).toMatchObject([{ floor: 7 }, { floor: 8 }]);
    await fence.raise(exclusive(b, 9));
    await expect(fence.tx([exclusive(a, 7), exclusive(b, 8)], move)).rejects.toMatchObject({
      code: "STALE_TOKEN",
      resource: b,
      token: 8,
      floor: 9,
    });
    expect([await get(a), await get(b)]).toEqual([90, 10]);
    const lost = exclusive(b, 10);
    lost.lose();
    await expect(fence.tx([exclusive(a, 7), lost], move)).rejects.toEqual(refused("LOST"));
  });

  it("of several locks in different orders do not deadlock", async () => {
    const names = [`${name}/a`, `${name}/b`, `${name}/c`];
    const before = await deadlocks();
    const outcomes = await Promise.allSettled(
      Array.from({ length: 30 }, (_, i) => {
        const locks = names.map((one) => exclusive(one, i + 1));
        return fence.tx(i % 2 ? locks : locks.reverse(), (tx) => tx.query("select 1"));
      }),
    );
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") expect(outcome.reason).toEqual(refused("STALE_TOKEN"));
    }
    expect(await deadlocks()).toBe(before);
  });

  it("are refused at their end when the lock is lost inside", async () => {
    await put(name, 1);
    const lock = exclusive(name, 5);
    const losing = fence.tx(lock, async (tx) => {
      await add(tx, name, 1);
      lock.lose();
    });
    await expect(losing).rejects.toEqual(refused("LOST"));
    const asking = exclusive(name, 6);
    const sentLate = fence.tx(asking, async (tx) => {
      asking.lose();
      const before = counting.sent;
      await expect(add(tx, name, 1)).rejects.toEqual(refused("LOST"));
      expect(counting.sent).toBe(before);
    });
    await expect(sentLate).rejects.toEqual(refused("LOST"));
    expect(await get(name)).toBe(1);
  });

  it("raise the floor anew when it was reset or lost behind the back of its holder", async () => {
    await put(name, 1);
    const lock = exclusive(name, 5);
    await fence.tx(lock, (tx) => add(tx, name, 1));
    await pool.query("delete from leasehold_fence where resource = ?", [name]);
    await fence.tx(lock, (tx) => add(tx, name, 1));
    expect((await fence.inspect(name)).floor).toBe(5);
    await expect(fence.tx(exclusive(name, 4), (tx) => add(tx, name, 1))).rejects.toEqual(refused("STALE_TOKEN"));
  });

  it("keep an exact count in the hands of changing holders", async () => {
    await put(name, 0);
    let token = 0;
    let committed = 0;
    const holder = async () => {
      for (let i = 0; i < 20; i++) {
        const lock = exclusive(name, ++token); // everybody is always about to be overtaken
        try {
          await fence.tx(lock, async (tx) => {
            const number = Number(await numberOf(tx, name)) + 1;
            await tx.query("update numbers set number = ? where name = ?", [number, name]);
          });
          committed++;
        } catch (error) {
          if (!FenceError.is(error, "STALE_TOKEN")) throw error;
        }
      }
    };
    await Promise.all(Array.from({ length: 10 }, holder));
    expect(committed).toBeGreaterThan(0);
    expect(await get(name)).toBe(committed);
  });
});
