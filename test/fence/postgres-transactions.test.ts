/** What transactions behind the fence promise beyond the conformance suite: isolation, handovers, errors, concurrency. */
import { FenceError } from "@leasehold/fence";
import { type PostgresFence, type PostgresTx, postgresFence } from "@leasehold/fence/postgres";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { startPostgres } from "../services/postgres.mjs";
import { until } from "../services/processes.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive } from "./locks.js";
import { CountingPool } from "./postgres-subject.js";

const refused = (code: string) => expect.objectContaining({ code });

/** A promise that somebody else resolves. */
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

describeWithServices("transactions behind PostgreSQL's fence", ["postgres"], () => {
  let postgres: Awaited<ReturnType<typeof startPostgres>>;
  let pool: pg.Pool;
  let counting: CountingPool;
  let fence: PostgresFence;
  let names = 0;
  let name = "";
  beforeAll(async () => {
    postgres = await startPostgres();
    pool = new pg.Pool({ connectionString: postgres.url, max: 60 });
    counting = new CountingPool(pool);
    fence = postgresFence(counting);
    await fence.migrate();
    await pool.query("create table numbers (name text primary key, number int not null)");
  });
  afterAll(async () => {
    await pool?.end();
    await postgres?.stop();
  });
  beforeEach(() => {
    name = `transactions/${++names}`;
  });

  const put = (key: string, number: number) =>
    pool.query("insert into numbers values ($1, $2) on conflict (name) do update set number = $2", [key, number]);
  const get = async (key: string) =>
    (await pool.query<{ number: number }>("select number from numbers where name = $1", [key])).rows[0]?.number;
  const add = (tx: Pick<PostgresTx, "query">, key: string, by: number) =>
    tx.query("update numbers set number = number + $2 where name = $1", [key, by]);
  /** Until a backend waits for a lock in a statement that contains this text. */
  const waitsIn = (text: string) =>
    until(
      async () => {
        const sql =
          "select from pg_stat_activity where wait_event_type = 'Lock' and pid <> pg_backend_pid() and strpos(query, $1) > 0";
        return ((await pool.query(sql, [text])).rowCount ?? 0) > 0;
      },
      { what: `a wait for a lock in ${text}` },
    );

  it("resolve with their function's result, and take as many round trips as without a fence", async () => {
    await put(name, 1);
    const lock = exclusive(name, 5);
    const work = async (tx: PostgresTx) => {
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
    await expect(fence.tx(exclusive(name, 5), (tx) => tx.query("select 1/0"))).rejects.toMatchObject({ code: "22012" });
    expect(await get(name)).toBe(1);
    expect(pool.idleCount, "all connections are back").toBe(pool.totalCount);
  });

  it("do not commit what failed inside, even if their function took no notice", async () => {
    await put(name, 1);
    const lax = fence.tx(exclusive(name, 5), async (tx) => {
      await add(tx, name, 1);
      await tx.query("select 1/0").catch(() => undefined);
    });
    await expect(lax).rejects.toMatchObject({ code: "25P02" });
    expect(await get(name)).toBe(1);
  });

  it("reject with the errors of deferred constraints, and commit nothing", async () => {
    await pool.query("create table if not exists pairs (a int unique deferrable initially deferred)");
    const twice = fence.tx(exclusive(name, 5), (tx) => tx.query("insert into pairs values (1), (1)"));
    await expect(twice).rejects.toMatchObject({ code: "23505" });
    expect((await pool.query("select from pairs")).rowCount).toBe(0);
  });

  it("are not ended by their function", async () => {
    const ending = ["commit", " COMMIT;", "rollback", "end", "abort", "begin", "start transaction", "rollback work"];
    for (const text of [...ending, "prepare transaction 'x'", "rollback and chain", 7 as unknown as string]) {
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
      await tx.query("release s");
    });
    expect(await get(name)).toBe(3);
  });

  it("are closed when their function has ended", async () => {
    let kept: PostgresTx | undefined;
    await fence.tx(exclusive(name, 5), (tx) => {
      kept = tx;
    });
    await expect(kept?.query("select 1")).rejects.toEqual(refused("INVALID"));
  });

  it("run statements in the order of the calls, and those that nobody awaited before the commit", async () => {
    await put(name, 1);
    await fence.tx(exclusive(name, 5), async (tx) => {
      const sums = [2, 3, 5].map((factor) =>
        tx.query("update numbers set number = number * $2 + 1 where name = $1 returning number", [name, factor]),
      );
      const answers = await Promise.all(sums);
      expect(answers.map(({ rows }) => rows[0]?.number)).toEqual([3, 10, 51]);
      void add(tx, name, 1);
    });
    expect(await get(name)).toBe(52);
    expect(counting.atOnceMax).toBe(1);
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
    const typed = postgresFence<pg.PoolClient>(pool);
    for (const isolation of ["read committed", "repeatable read", "serializable"] as const) {
      const level = await typed.tx(
        exclusive(name, 5),
        async (tx) => {
          await tx.query("select 1");
          return (await tx.client.query<{ level: string }>("select current_setting('transaction_isolation') as level"))
            .rows[0]?.level;
        },
        { isolation },
      );
      expect(level).toBe(isolation);
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
          await tx.query("call leasehold_fence_check($1, 5, true)", [name]);
          if (++inside === keys.length) all.open();
          await all.opened;
        }),
      ),
    );
    for (const key of keys) expect(await get(key)).toBe(1);
  });

  it("of different holders that all write for the first time do not deadlock, nor do checks that must raise", async () => {
    await put(name, 0);
    const outcomes = await Promise.allSettled([
      ...Array.from({ length: 50 }, (_, i) => fence.tx(exclusive(name, i + 1), (tx) => add(tx, name, 1))),
      // As after a reset, or from a language that never raises: check and write without a raise before.
      ...Array.from({ length: 50 }, (_, i) =>
        pool.query(`call leasehold_fence_check('${name}/unraised', ${(i % 5) + 1}, ${i % 7 !== 0})`),
      ),
    ]);
    for (const outcome of outcomes) {
      if (outcome.status === "fulfilled") continue;
      expect(["STALE_TOKEN", "LH409"]).toContain((outcome.reason as { code: string }).code);
    }
    expect(postgres.log).not.toContain("deadlock detected"); // the fence may have made a STALE_TOKEN of it
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
      const writer = await pool.connect();
      await writer.query("begin");
      await writer.query("call leasehold_fence_check($1, $2, $3)", [resource, raised ? 4 : 5, raises]);
      await add(writer as unknown as PostgresTx, resource, 1);
      const seen = (async () => {
        await fence.raise(exclusive(resource, 6));
        return get(resource);
      })();
      await waitsIn(resource);
      await writer.query("commit");
      writer.release();
      expect(await seen, "the raise has waited for the commit").toBe(1);
    }
  });

  it("begin their snapshot after the last commit of a lower token", async () => {
    // On call: one of two doctors may leave if the other one stays.
    const [me, you] = [`${name}/me`, `${name}/you`];
    const leave = async (tx: Pick<PostgresTx, "query">, who: string, other: string) => {
      const { rows } = await tx.query("select number from numbers where name = $1", [other]);
      if ((rows[0] as { number: number }).number === 1) await add(tx, who, -1);
    };
    /** Token 33 has checked and not yet committed when `successor` begins. */
    const handover = async (successor: () => Promise<unknown>) => {
      await put(me, 1);
      await put(you, 1);
      await fence.raise(exclusive(name, 33));
      const old = await pool.connect();
      await old.query("begin isolation level repeatable read");
      await leave(old as unknown as PostgresTx, me, you);
      await old.query("call leasehold_fence_check($1, 33, true)", [name]);
      const succeeding = successor();
      await waitsIn("_raise");
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
      const client = await pool.connect();
      await client.query("begin isolation level repeatable read");
      await client.query("select 1"); // its snapshot is taken
      await client
        .query("select leasehold_fence_raise($1, 34)", [name])
        .then(() => leave(client as unknown as PostgresTx, you, me))
        .then(() => client.query("commit"))
        .finally(() => client.release());
    });
    expect(inOne, "what would come of a raise in the same transaction: both have left").toEqual([0, 0]);
  });

  it("reject STALE_TOKEN and not with a serialization failure when a higher token was there", async () => {
    for (const isolation of ["repeatable read", "serializable"] as const) {
      await fence.reset(name);
      await put(name, 0);
      const [inside, goOn] = [gate(), gate()];
      const old = fence.tx(
        exclusive(name, 33),
        async (tx) => {
          await tx.query("select number from numbers where name = $1", [name]);
          inside.open();
          await goOn.opened;
          await add(tx, name, 1); // 40001: it was changed since the snapshot
        },
        { isolation },
      );
      await inside.opened;
      await fence.tx(exclusive(name, 34), (tx) => add(tx, name, 10), { isolation });
      goOn.open();
      await expect(old).rejects.toMatchObject({ code: "STALE_TOKEN", token: 33, floor: 34, cause: { code: "40001" } });
      expect(await get(name)).toBe(10);
    }
  });

  it("pass a serialization failure that has nothing to do with tokens", async () => {
    await put(name, 0);
    const failing = fence.tx(
      exclusive(name, 33),
      async (tx) => {
        await tx.query("select number from numbers where name = $1", [name]);
        await add(pool as unknown as PostgresTx, name, 10); // somebody without a lock
        await add(tx, name, 1);
      },
      { isolation: "repeatable read" },
    );
    await expect(failing).rejects.toMatchObject({ code: "40001" });
  });

  it("take several locks, and commit only if none of them is stale", async () => {
    const [a, b] = [`${name}/a`, `${name}/b`];
    await put(a, 100);
    await put(b, 0);
    const move = async (tx: PostgresTx) => {
      await add(tx, a, -10);
      await add(tx, b, 10);
    };
    const before = counting.sent;
    await fence.tx([exclusive(b, 8), exclusive(a, 7)], move);
    expect(counting.sent - before).toBe(4);
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
    const outcomes = await Promise.allSettled(
      Array.from({ length: 30 }, (_, i) => {
        const locks = names.map((one) => exclusive(one, i + 1));
        return fence.tx(i % 2 ? locks : locks.reverse(), (tx) => tx.query("select 1"));
      }),
    );
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") expect(outcome.reason).toEqual(refused("STALE_TOKEN"));
    }
    expect(postgres.log).not.toContain("deadlock detected");
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
    await pool.query("delete from leasehold_fence where resource = $1", [name]);
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
            const { rows } = await tx.query<{ number: number }>("select number from numbers where name = $1", [name]);
            await tx.query("update numbers set number = $2 where name = $1", [name, Number(rows[0]?.number) + 1]);
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
