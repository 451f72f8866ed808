/** High-water marks in a real PostgreSQL: they never move backwards, whoever moves them, and however many at once. */
import { type MarkQueries, type PostgresHighWaterOptions, postgresHighWater } from "@leasehold/fence/kafka";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startPostgres } from "../services/postgres.mjs";
import { describeWithServices } from "../services/vitest.js";

describeWithServices("high-water marks in PostgreSQL", ["postgres"], () => {
  let postgres: Awaited<ReturnType<typeof startPostgres>>;
  let pool: pg.Pool;
  let consumers = 0;

  beforeAll(async () => {
    postgres = await startPostgres();
    pool = new pg.Pool({ connectionString: postgres.url, max: 30 });
  });
  afterAll(async () => {
    await pool?.end();
    await postgres?.stop();
  });

  /** The marks of a new consumer. */
  async function marks(options: Partial<PostgresHighWaterOptions> = {}) {
    const made = postgresHighWater(pool, { consumer: `consumer ${++consumers}`, ...options });
    await made.migrate();
    return made;
  }

  async function begin(isolation = "read committed"): Promise<pg.PoolClient> {
    const tx = await pool.connect();
    await tx.query(`begin isolation level ${isolation}`);
    return tx;
  }

  async function end(tx: pg.PoolClient, how: "commit" | "rollback"): Promise<void> {
    await tx.query(how);
    tx.release();
  }

  /** Resolves when a backend waits for a lock. */
  const somebodyWaits = () =>
    expect
      .poll(async () => (await pool.query("select 1 from pg_locks where not granted")).rows.length, { timeout: 10_000 })
      .toBeGreaterThan(0);

  test("a mark moves forward, by token first and then by sequence, and is refused otherwise", async () => {
    const high = await marks();
    expect(await high.load("k")).toBeUndefined();
    for (const mark of [
      { token: 5, sequence: 0 },
      { token: 5, sequence: 1 },
      { token: 5, sequence: 9 },
      { token: 6, sequence: 0 },
      { token: Number.MAX_SAFE_INTEGER, sequence: Number.MAX_SAFE_INTEGER },
    ]) {
      expect(await high.save("k", mark)).toBeUndefined();
      expect(await high.load("k")).toEqual(mark);
      for (const earlier of [mark, { ...mark, sequence: mark.sequence - 1 }, { token: mark.token - 1, sequence: 99 }]) {
        if (earlier.sequence >= 0) expect(await high.save("k", earlier)).toEqual(mark);
      }
    }
  });

  test("consumers and keys are independent, in every letter's case", async () => {
    const [one, other] = [await marks(), await marks()];
    await one.save("k", { token: 5, sequence: 1 });
    expect(await one.load("K")).toBeUndefined();
    expect(await other.load("k")).toBeUndefined();
    await one.reset("k");
    expect(await one.load("k")).toBeUndefined();
    expect(await one.save("k", { token: 1, sequence: 1 })).toBeUndefined();
  });

  test("saved in a transaction it is there with the commit, and not after a rollback", async () => {
    const high = await marks();
    const tx = await begin();
    await high.save("k", { token: 5, sequence: 1 }, tx);
    expect(await high.load("k")).toBeUndefined();
    await end(tx, "rollback");
    expect(await high.load("k")).toBeUndefined();
  });

  test("of two transactions that handle the same message, one waits for the other and finds it handled", async () => {
    const high = await marks();
    await high.save("k", { token: 5, sequence: 1 });
    const [first, second] = [await begin(), await begin()];
    expect(await high.save("k", { token: 5, sequence: 2 }, first)).toBeUndefined();
    const refused = high.save("k", { token: 5, sequence: 2 }, second);
    await somebodyWaits();
    await end(first, "commit");
    expect(await refused).toEqual({ token: 5, sequence: 2 });
    await end(second, "rollback");
  });

  test("the same with the first message of all, of which there is no row yet", async () => {
    const high = await marks();
    const [first, second] = [await begin(), await begin()];
    await high.save("k", { token: 6, sequence: 0 }, first);
    const refused = high.save("k", { token: 5, sequence: 1 }, second);
    await somebodyWaits();
    await end(first, "commit");
    expect(await refused).toEqual({ token: 6, sequence: 0 });
    await end(second, "rollback");
  });

  test("in a serializable transaction the second one fails, and is tried again by whoever runs it", async () => {
    const high = await marks();
    await high.save("k", { token: 5, sequence: 1 });
    const [first, second] = [await begin("serializable"), await begin("serializable")];
    await second.query("select 1"); // its snapshot
    await high.save("k", { token: 5, sequence: 2 }, first);
    await end(first, "commit");
    await expect(high.save("k", { token: 5, sequence: 2 }, second)).rejects.toMatchObject({ code: "40001" });
    await end(second, "rollback");
    expect(await high.save("k", { token: 5, sequence: 2 })).toEqual({ token: 5, sequence: 2 });
  });

  test("of many concurrent saves the highest remains, and each position is taken once", async () => {
    const high = await marks();
    const positions = Array.from({ length: 200 }, (_, i) => ({ token: 1 + (i % 20), sequence: i % 5 }));
    const taken = await Promise.all(positions.map((position) => high.save("k", position)));
    expect(await high.load("k")).toEqual({ token: 20, sequence: 4 });
    const accepted = positions.filter((_, i) => taken[i] === undefined).map((p) => `${p.token}.${p.sequence}`);
    expect(new Set(accepted).size).toBe(accepted.length);
  });

  test("a check in a transaction keeps the mark from rising until its end, also where there is none yet", async () => {
    const high = await marks();
    for (const key of ["there", "new"]) {
      if (key === "there") await high.save(key, { token: 5, sequence: 1 });
      const tx = await begin();
      expect(await high.check(key, 7, tx)).toBeUndefined();
      const raised = high.save(key, { token: 8, sequence: 0 });
      await somebodyWaits();
      await end(tx, "commit");
      expect(await raised).toBeUndefined();
      expect(await high.check(key, 7)).toEqual({ token: 8, sequence: 0 });
    }
  });

  test("a mark that is reset between the refusal and the look at it is no duplicate", async () => {
    const high = await marks();
    await high.save("k", { token: 5, sequence: 1 });
    let queries = 0;
    const resetting: MarkQueries = {
      async query(text, values) {
        const result = await pool.query(text, values);
        if (++queries === 1) await high.reset("k");
        return result;
      },
    };
    await expect(high.save("k", { token: 5, sequence: 1 }, resetting)).rejects.toMatchObject({ code: "CONFLICT" });
  });

  test("many may migrate at once, in a schema of their own", async () => {
    await pool.query("create schema other");
    await Promise.all(Array.from({ length: 10 }, () => marks({ table: "other.marks" })));
    const high = await marks({ table: "other.marks" });
    await high.save("k", { token: 5, sequence: 1 });
    expect((await pool.query("select * from other.marks")).rows.length).toBe(1);
  });

  test.each([
    ["no consumer", {}],
    ["an empty one", { consumer: "" }],
    ["a table that is none", { consumer: "c", table: "marks; drop table register" }],
    ["an unknown option", { consumer: "c", schema: "other" }],
  ])("%s is refused", (_what, options) => {
    const refused = expect.objectContaining({ code: "INVALID" });
    expect(() => postgresHighWater(pool, options as PostgresHighWaterOptions)).toThrow(refused);
  });
});
