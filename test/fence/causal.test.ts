/** Causal sessions without services: positions as text, headers, wrong arguments; and the choice of a replica on SQLite files. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Metadata } from "@grpc/grpc-js";
import { type LamportReplica, lamportCausal, type PgPool, postgresCausal, redisCausal } from "@leasehold/fence/causal";
import Database from "better-sqlite3";
import fc from "fast-check";
import type { Pool, PoolClient } from "pg";
import { describe, expect, expectTypeOf, it, onTestFinished, vi } from "vitest";
import { LamportClock } from "../../src/client/lamport.js";
import { decodePosition, encodePosition, laterPosition } from "../../src/fence/causal/lsn.js";

const seed = Number(process.env.LEASEHOLD_SEED ?? Date.now() % 2 ** 31);
const coded = (code: string) => expect.objectContaining({ code });
const SYSTEM = "7713030885543812038";
const STREAM = "8371445ee67c2c2a8c31c6e0a1a5d2f3b0c4d5e6";

const nothing = () => Promise.reject(new Error("nothing is to be sent"));
const pool = { connect: nothing } as unknown as Pool;
const pg = () => postgresCausal({ primary: pool, replicas: [] });
const redis = () => redisCausal({ primary: { info: nothing }, replicas: [] });
const clock = () => new LamportClock(() => Promise.reject(new Error("no server")));
const lamport = () => lamportCausal({ clock: clock(), primary: {}, replicas: [] });

describe("positions", () => {
  it.each([
    ["pg", () => pg().session(`pg:${SYSTEM}:1:0/16B3748`), `pg:${SYSTEM}:1:0/16B3748`],
    ["redis", () => redis().session(`redis:${STREAM}:1234`), `redis:${STREAM}:1234`],
    ["lamport", () => lamport().session("lamport:17"), "lamport:17"],
  ])("of %s are what they were", (kind, session, text) => {
    expect(session().position).toBe(text);
    const doubtful = session();
    doubtful.merge(`${kind}:unknown`);
    expect(doubtful.position).toBe(`${kind}:unknown`);
  });

  const garbage = [
    ..."|pg|pg:|pg:1|x|primary|pg:1:1:0/0 |PG:1:1:0/0|pg:01:1:0/0|pg:1:01:0/0|pg:1:1:0/01|pg:1:1:00/1|pg:1:1:0/a".split(
      "|",
    ),
    ..."pg:1:1:0|pg:1:1:0/100000000|pg:1:4294967296:0/0|pg:18446744073709551616:1:0/0|pg:-1:1:0/0|pg:1:1:0/0,pg:1:1:0/0".split(
      "|",
    ),
    ..."pg:1:1:G/0|pg:1:1.5:0/0|pg:١:1:0/0|pg:1:1:0/0\n|unknown".split("|"),
    ...[`redis:${STREAM}`, `redis:${STREAM}:`, `redis:${STREAM}:-1`, `redis:${STREAM}:01`, `redis:${STREAM}:1e3`],
    ...[`redis:${STREAM.toUpperCase()}:1`, `redis:${STREAM}0:1`, `redis:${STREAM}:9223372036854775808`],
    ..."lamport:|lamport:-1|lamport:1.5|lamport:007|lamport:9007199254740991|lamport:99999999999999999|lamport:0x1".split(
      "|",
    ),
    ...[7, {}, null],
  ] as string[];
  it.each(garbage)("%j is none", (text) => {
    for (const causal of [pg(), redis(), lamport()]) {
      expect(() => causal.session(text)).toThrow(coded("INVALID"));
      if (text === null) continue; // as a header: there is none
      const session = causal.session();
      expect(() => session.extract({ "causal-position": text })).toThrow(coded("INVALID"));
      expect(session.position).toBeUndefined();
    }
  });

  it("that are longer than any are not even looked at", () => {
    const session = pg().session();
    for (const text of [`pg:${"1".repeat(600)}:1:0/1`, "x".repeat(10_000_000)]) {
      expect(() => session.merge(text)).toThrow(coded("INVALID"));
      expect(() => session.extract({ "causal-position": Buffer.from(text) })).toThrow(coded("INVALID"));
    }
  });

  it("of another kind of system are refused", () => {
    expect(() => pg().session(`redis:${STREAM}:1`)).toThrow(coded("INVALID"));
    expect(() => redis().session("lamport:1")).toThrow(coded("INVALID"));
    expect(() => lamport().session(`pg:${SYSTEM}:1:0/1`)).toThrow(coded("INVALID"));
    expect(() => lamport().session("pg:unknown")).toThrow(coded("INVALID"));
  });

  it("merge to the later one, exactly in all 64 bits", () => {
    const session = pg().session(`pg:${SYSTEM}:1:200000/0`); // 2^53
    session.merge(`pg:${SYSTEM}:1:200000/1`);
    expect(session.position).toBe(`pg:${SYSTEM}:1:200000/1`);
    session.merge(`pg:${SYSTEM}:1:200000/0`);
    expect(session.position).toBe(`pg:${SYSTEM}:1:200000/1`);
    session.merge(`pg:${SYSTEM}:1:FFFFFFFF/FFFFFFFF`);
    session.merge(`pg:${SYSTEM}:1:FFFFFFFF/FFFFFFFE`);
    expect(session.position).toBe(`pg:${SYSTEM}:1:FFFFFFFF/FFFFFFFF`);
    session.merge(`pg:${SYSTEM}:2:0/10`); // a later timeline is later
    expect(session.position).toBe(`pg:${SYSTEM}:2:0/10`);
  });

  it("that cannot be compared are a doubt", () => {
    const session = pg().session(`pg:${SYSTEM}:1:0/10`);
    session.merge("pg:5:1:0/10");
    expect(session.position).toBe("pg:unknown");
    const other = redis().session(`redis:${STREAM}:10`);
    other.merge(`redis:${"0".repeat(40)}:10`);
    expect(other.position).toBe("redis:unknown");
  });

  it(`of PostgreSQL are spelt in one way, and ordered as numbers (seed ${seed})`, () => {
    const lsn = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    fc.assert(
      fc.property(lsn, lsn, fc.integer({ min: 0, max: 2 ** 32 - 1 }), (a, b, timeline) => {
        const [x, y] = [a, b].map((one) => ({ system: SYSTEM, timeline, lsn: one })) as [never, never];
        expect(decodePosition(encodePosition(x))).toEqual(x);
        expect(laterPosition(x, y)).toEqual(a >= b ? x : y);
      }),
      { seed },
    );
  });
});

describe("headers", () => {
  const text = `pg:${SYSTEM}:1:0/16B3748`;
  const written = () => pg().session(text);
  const received = (headers: Parameters<ReturnType<typeof written>["extract"]>[0]) => {
    const session = pg().session();
    session.extract(headers);
    return session.position;
  };

  it("carry positions, in HTTP, gRPC and messages", () => {
    expect(received(written().inject(new Headers()))).toBe(text);
    expect(received(written().inject({ accept: "*/*" }))).toBe(text);
    expect(received(written().inject(new Map<string, string>()))).toBe(text);
    expect(received(written().inject(new Metadata()))).toBe(text);
    expect(received({ "Causal-Position": text })).toBe(text);
    expect(received({ "causal-position": Buffer.from(text) })).toBe(text);
    expect(received({ "causal-position": [Buffer.from(text)] })).toBe(text);
    expect(received(new Map([[Buffer.from("Causal-Position"), Buffer.from(text)]]))).toBe(text);
    for (const none of [undefined, null, {}, new Headers(), new Map(), new Metadata()]) {
      expect(received(none)).toBeUndefined();
    }
  });

  it("are not touched by a session that has no position", () => {
    expect(pg().session().inject({})).toEqual({});
  });

  it("with several positions are refused", () => {
    const twice = new Metadata();
    twice.add("causal-position", text);
    twice.add("causal-position", text);
    const joined = new Headers([["causal-position", text]]);
    joined.append("causal-position", text);
    for (const headers of [twice, joined, { "causal-position": text, "Causal-Position": text }]) {
      expect(() => received(headers)).toThrow(coded("INVALID"));
    }
  });

  it("may have another name", () => {
    const causal = postgresCausal({ primary: pool, replicas: [], header: "Orders-Position" });
    const headers = causal.session(text).inject({});
    expect(headers).toEqual({ "orders-position": text });
    expect(received(headers)).toBeUndefined();
  });

  it("are read and written as the client does it: the fence kit has no dependencies, so it has a copy", () => {
    const body = (path: string) => {
      const source = readFileSync(fileURLToPath(new URL(`../../src/${path}`, import.meta.url)), "utf8");
      return source.replace(/^import .*\n/gm, "").replace(/\n{2,}/g, "\n");
    };
    expect(body("fence/causal/carrier.ts")).toBe(body("client/carrier.ts"));
  });
});

describe("wrong arguments", () => {
  it.each([
    { waitMs: 0 },
    { waitMs: 60_001 },
    { waitMs: 1.5 },
    { waitMs: "500" },
    { pollMs: 0 },
    { pollMs: Number.NaN },
    { header: "" },
    { header: "a b" },
    { header: "a\r\nb" },
    { header: 5 },
    { wait: 500 },
    { replicas: undefined },
    { replicas: "replica" },
    { replicas: { length: 101 } },
    { replicas: [null] },
    { primary: undefined },
    { primary: {} },
  ])("are refused: %o", (wrong) => {
    const options = { primary: pool, replicas: [], ...wrong } as unknown as Parameters<typeof postgresCausal>[0];
    expect(() => postgresCausal(options)).toThrow(coded("INVALID"));
    const others = { ...options, ...("primary" in wrong ? {} : { primary: { info: nothing } }) };
    expect(() => redisCausal(others as never)).toThrow(coded("INVALID"));
  });

  it("are refused by reads and writes before anything is sent", async () => {
    const session = pg().session(`pg:${SYSTEM}:1:0/1`);
    const work = () => Promise.resolve();
    for (const options of [{ waitMs: 0 }, { waitMs: "1" }, { timeout: 5 }, null]) {
      await expect(session.read(work, options as never)).rejects.toEqual(coded("INVALID"));
    }
    await expect(session.write(work, { isolation: "serializable" } as never)).rejects.toEqual(coded("INVALID"));
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(session.read(work, { signal })).rejects.toThrow("enough");
    await expect(session.write(work, { signal })).rejects.toThrow("enough");
  });

  it("a cluster of Redis is refused", () => {
    const cluster = { info: nothing, isCluster: true };
    expect(() => redisCausal({ primary: cluster, replicas: [] })).toThrow(coded("INVALID"));
  });

  it("of lamportCausal are refused", () => {
    const good = { clock: clock(), primary: {}, replicas: [] };
    const wrong = [
      { clock: {} },
      { clock: undefined },
      { replicas: [{ db: {} }] },
      { replicas: [{ db: {}, applied: 5 }] },
    ];
    for (const one of wrong) expect(() => lamportCausal({ ...good, ...one } as never)).toThrow(coded("INVALID"));
  });

  it("the client that callbacks get is the pool's", () => {
    expectTypeOf<Pool>().toExtend<PgPool<PoolClient>>();
    const { session } = postgresCausal({ primary: pool, replicas: [pool] });
    expectTypeOf<Parameters<Parameters<ReturnType<typeof session>["read"]>[0]>[0]>().toEqualTypeOf<PoolClient>();
  });
});

/** A primary and replicas as SQLite files; what is replicated when is up to the test. */
function store(replicas: number) {
  const open = () => {
    const db = new Database(":memory:");
    db.exec("create table notes (timestamp integer primary key, text text)");
    return db;
  };
  const primary = open();
  const copies = Array.from({ length: replicas }, open);
  onTestFinished(() => {
    for (const db of [primary, ...copies]) db.close();
  });
  const applied = (db: Database.Database): number =>
    (db.prepare("select coalesce(max(timestamp), 0) as at from notes").get() as { at: number }).at;
  const latest = (db: Database.Database): Promise<string> => {
    const row = db.prepare("select text from notes order by timestamp desc limit 1").get() as
      | { text: string }
      | undefined;
    return Promise.resolve(row?.text ?? "nothing");
  };
  const replicate = (to: number) => {
    const insert = copies[to]?.prepare("insert or ignore into notes values (@timestamp, @text)");
    for (const row of primary.prepare("select * from notes order by timestamp").all()) insert?.run(row);
  };
  const add = (text: string) => (db: Database.Database, timestamp: number) => {
    db.prepare("insert into notes values (?, ?)").run(timestamp, text);
    return Promise.resolve(timestamp);
  };
  return { primary, copies, applied, latest, replicate, add };
}

describe("sessions by Lamport timestamps", () => {
  function sessions(replicas: number, over: { waitMs?: number; answer?: (i: number) => Promise<void> } = {}) {
    const s = store(replicas);
    const asked = Array.from({ length: replicas }, () => 0);
    const time = clock();
    const listed = s.copies.map((db, i): LamportReplica<Database.Database> => {
      const applied = async () => {
        asked[i] = (asked[i] ?? 0) + 1;
        await over.answer?.(i);
        return s.applied(db);
      };
      return { db, applied };
    });
    const causal = lamportCausal({ clock: time, primary: s.primary, replicas: listed, waitMs: over.waitMs ?? 30_000 });
    return { ...s, asked, time, causal, session: causal.session() };
  }

  it("wait for the replica, and for nothing without a position", async () => {
    const { session, latest, add, replicate, asked } = sessions(1);
    expect(await session.read(latest)).toBe("nothing");
    expect(session.lastRead).toMatchObject({ on: "replica", replica: 0, why: "no_position" });
    expect(asked).toEqual([0]);
    await session.write(add("one"));
    const read = session.read(latest);
    let settled = false;
    read.finally(() => {
      settled = true;
    });
    await expect.poll(() => asked[0], { timeout: 10_000 }).toBeGreaterThan(3);
    expect(settled).toBe(false);
    replicate(0);
    expect(await read).toBe("one");
    expect(session.lastRead).toMatchObject({ on: "replica", replica: 0, why: "applied", covered: true });
  });

  it("go to the primary when no replica has it in time, and tell so", async () => {
    const { session, latest, add } = sessions(2, { waitMs: 50 });
    await session.write(add("one"));
    const reports: unknown[] = [];
    expect(await session.read(latest, { report: (report) => reports.push(report) })).toBe("one");
    expect(reports).toEqual([expect.objectContaining({ on: "primary", replica: undefined, why: "behind" })]);
    expect(session.lastRead?.waitedMs).toBeGreaterThan(45);
  });

  it("ask no more when nobody waits any more", async () => {
    const { session, latest, add, asked } = sessions(1, { waitMs: 50 });
    await session.write(add("one"));
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    const read = session.read(latest);
    await vi.advanceTimersByTimeAsync(60);
    expect(await read).toBe("one");
    const sofar = asked[0];
    expect(sofar).toBeGreaterThan(2);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked[0]).toBe(sofar);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("take the replica that has it, and the one that has it first", async () => {
    const { session, latest, add, replicate, asked } = sessions(3);
    await session.write(add("one"));
    replicate(1);
    for (let i = 0; i < 6; i++) {
      expect(await session.read(latest)).toBe("one");
      expect(session.lastRead).toMatchObject({ on: "replica", replica: 1 });
    }
    await session.write(add("two"));
    const read = session.read(latest);
    const before = asked[2] as number;
    await expect.poll(() => asked[2], { timeout: 10_000 }).toBeGreaterThan(before + 2);
    replicate(2);
    expect(await read).toBe("two");
    expect(session.lastRead).toMatchObject({ on: "replica", replica: 2 });
  });

  it("take replicas in turn", async () => {
    const { session, latest } = sessions(3);
    const turns: (number | undefined)[] = [];
    for (let i = 0; i < 6; i++) {
      await session.read(latest);
      turns.push(session.lastRead?.replica);
    }
    expect(turns.slice(0, 3).sort()).toEqual([0, 1, 2]);
    expect(turns.slice(3)).toEqual(turns.slice(0, 3));
  });

  it("ask once at a time for however many reads wait", async () => {
    let [open, most] = [0, 0];
    const answer = async () => {
      most = Math.max(most, ++open);
      await new Promise(setImmediate);
      open--;
    };
    const { session, latest, add, replicate, asked } = sessions(1, { answer });
    await session.write(add("one"));
    const reads = Array.from({ length: 500 }, () => session.read(latest));
    await expect.poll(() => asked[0], { timeout: 10_000 }).toBeGreaterThan(500);
    most = 0;
    const before = asked[0] as number;
    await expect.poll(() => asked[0], { timeout: 10_000 }).toBeGreaterThan(before + 5);
    expect(most).toBe(1);
    replicate(0);
    expect(new Set(await Promise.all(reads))).toEqual(new Set(["one"]));
  });

  it("leave a replica alone that does not answer, until it has answered after all", async () => {
    let frozen = true;
    const waiting: (() => void)[] = [];
    const answer = (i: number) =>
      new Promise<void>((resolve) => (i === 0 && frozen ? waiting.push(resolve) : resolve()));
    const { session, latest, add, replicate, asked } = sessions(2, { waitMs: 2_000, answer });
    await session.write(add("one"));
    replicate(0);
    replicate(1);
    for (let i = 0; i < 50; i++) expect(await session.read(latest)).toBe("one");
    expect(asked[0]).toBe(1); // one question, which the first read gave up
    expect(session.lastRead).toMatchObject({ on: "replica", replica: 1 });
    frozen = false;
    for (const resolve of waiting) resolve();
    const read = async () => {
      await session.read(latest);
      return session.lastRead?.replica;
    };
    await expect.poll(read, { timeout: 10_000 }).toBe(0);
  });

  it("take errors of a replica for not applied, and go to the primary at once when none is left", async () => {
    const { session, latest, add } = sessions(2, { answer: () => Promise.reject(new Error("broken")) });
    await session.write(add("one"));
    expect(await session.read(latest)).toBe("one");
    expect(session.lastRead).toMatchObject({ on: "primary", why: "unreachable" });
    expect(session.lastRead?.waitedMs).toBeLessThan(15_000);
  });

  it("can be told to wait no longer", async () => {
    const { session, latest, add, asked, replicate } = sessions(1);
    await session.write(add("one"));
    const enough = new AbortController();
    const read = session.read(latest, { signal: enough.signal });
    const after = expect(read).rejects.toThrow("enough");
    await expect.poll(() => asked[0], { timeout: 10_000 }).toBeGreaterThan(3);
    const abortedMs = performance.now();
    enough.abort(new Error("enough"));
    await after;
    expect(performance.now() - abortedMs).toBeLessThan(10_000);
    replicate(0);
    expect(await session.read(latest)).toBe("one"); // and the replica is still good for others
    expect(session.lastRead).toMatchObject({ on: "replica" });
  });

  it("write behind what they have received, or a replica with the one would seem to have the other", async () => {
    const { causal, time, add } = sessions(1);
    const session = causal.session("lamport:500");
    expect(await session.write(add("one"))).toBe(501);
    expect(session.position).toBe("lamport:501");
    expect(time.now()).toBe(501);
    session.noteWrite(700);
    expect(session.position).toBe("lamport:700");
    for (const bad of [-1, 1.5, 2 ** 53, "7"]) expect(() => session.noteWrite(bad as number)).toThrow(coded("INVALID"));
  });

  it("do not bring the clock to its end for a forged position", async () => {
    const { causal, time, latest, add } = sessions(1, { waitMs: 50 });
    const session = causal.session("lamport:9007199254740990");
    expect(await session.read(latest)).toBe("nothing");
    expect(session.lastRead).toMatchObject({ on: "primary", why: "behind" });
    await expect(session.write(add("one"))).rejects.toEqual(coded("INVALID"));
    expect(time.now()).toBe(0);
  });

  it("read from the primary after a write of which nobody knows how it ended", async () => {
    const { session, latest, add, replicate } = sessions(1);
    await session.write(add("one"));
    replicate(0);
    const fail = async (db: Database.Database, timestamp: number) => {
      await add("two")(db, timestamp);
      throw new Error("the answer got lost");
    };
    await expect(session.write(fail)).rejects.toThrow("the answer got lost");
    expect(session.position).toBe("lamport:unknown");
    expect(await session.read(latest)).toBe("two");
    expect(session.lastRead).toMatchObject({ on: "primary", why: "unknown" });
    await session.write(add("three"));
    replicate(0);
    expect(await session.read(latest)).toBe("three");
    expect(session.lastRead).toMatchObject({ on: "replica" });
  });

  it("pass on what the callback throws", async () => {
    const { session } = sessions(1);
    await expect(session.read(() => Promise.reject(new Error("mine")))).rejects.toThrow("mine");
  });
});
