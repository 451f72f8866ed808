import { type RedisFence, redisFence } from "@leasehold/fence/redis";
import { Redis } from "ioredis";
import { createClient, createClientPool, RESP_TYPES } from "redis";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type RedisServer, startRedis } from "../services/redis.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive, shared } from "./locks.js";
import { tap } from "./redis-clients.js";

const refused = (code: string) => expect.objectContaining({ code });

describeWithServices("the writes of a Redis fence", ["redis"], () => {
  let server: RedisServer;
  let client: Redis;
  let fence: RedisFence;
  let count: { sent: number };
  beforeAll(async () => {
    server = await startRedis();
    client = new Redis(server.url);
    count = tap(client);
    fence = redisFence(client);
  });
  afterAll(async () => {
    client?.disconnect();
    await server?.stop();
  });

  it("are one command each, once the floor has been raised", async () => {
    const lock = exclusive("one command", 5);
    await fence.raise(lock);
    const writes = [
      () => fence.set(lock, "one", "v"),
      () => fence.set(lock, "one", "v", { ttlMs: 60_000 }),
      () => fence.hset(lock, "one/h", { a: 1 }),
      () => fence.run(lock, { script: "return 1" }),
      () => fence.del(lock, "one", "one/h"),
    ];
    for (const write of writes) {
      await write(); // a script that is new to the server is sent twice
      const before = count.sent;
      await write();
      expect(count.sent - before).toBe(1);
    }
    const readers = shared("one command", 6);
    const before = count.sent;
    await fence.set(readers, "one", "v");
    expect(count.sent - before).toBe(1);
  });

  it("raise before their first write if nobody has", async () => {
    const before = count.sent;
    await fence.set(exclusive("not raised", 5), "not raised", "v");
    expect(count.sent - before).toBe(2);
    await fence.set(exclusive("not raised", 5), "not raised", "v");
    expect(count.sent - before).toBe(3);
  });

  it("raise the floor again where it was lost", async () => {
    const lock = exclusive("lost floor", 9);
    await fence.raise(lock);
    await client.del("leasehold:fence:{lost floor}"); // as a failover would
    await fence.set(lock, "lost floor", "v");
    expect((await fence.inspect("lost floor")).floor).toBe(9);
  });

  it("store values as they are, for a time if that is wanted", async () => {
    const lock = exclusive("values", 1);
    const bytes = Buffer.from([0, 255, 10, 13, 128]);
    await fence.set(lock, "values", bytes);
    expect(await client.getBuffer("values")).toEqual(bytes);
    await fence.set(lock, Buffer.from("values"), 1.5, { ttlMs: 50_000 });
    expect(await client.get("values")).toBe("1.5");
    expect(await client.pttl("values")).toBeGreaterThan(40_000);
    expect(await client.pttl("leasehold:fence:{values}")).toBe(-1);
    await fence.set(lock, "values", "");
    expect(await client.get("values")).toBe("");
    expect(await client.pttl("values")).toBe(-1);
  });

  it("hset and del tell how many", async () => {
    const lock = exclusive("counts", 1);
    expect(await fence.hset(lock, "counts/h", { a: 1, b: "two", c: Buffer.from("three") })).toBe(3);
    expect(await fence.hset(lock, "counts/h", { c: "3", d: 4 })).toBe(1);
    expect(await client.hgetall("counts/h")).toEqual({ a: "1", b: "two", c: "3", d: "4" });
    expect(await fence.del(lock, "counts/h", "counts/none")).toBe(1);
    const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`f${i}`, i]));
    expect(await fence.hset(lock, "counts/h", many)).toBe(1_000);
    await expect(fence.hset(lock, "counts/h", { ...many, more: 1 })).rejects.toEqual(refused("INVALID"));
    await expect(fence.hset(lock, "counts/h", {})).rejects.toEqual(refused("INVALID"));
    await expect(fence.del(lock)).rejects.toEqual(refused("INVALID"));
    const keys = Array.from({ length: 1_001 }, (_, i) => `k${i}`);
    await expect(fence.del(lock, ...keys)).rejects.toEqual(refused("INVALID"));
    expect(await fence.del(lock, ...keys.slice(1))).toBe(0);
  });

  it("run a user's script with its own keys and arguments, and return its reply", async () => {
    const lock = exclusive("scripts", 4);
    const run = (script: string, keys: string[] = [], args: (string | number)[] = []) =>
      fence.run(lock, { script, keys, args });
    const all = "return {#KEYS, #ARGV, KEYS[1], KEYS[2], ARGV[1], ARGV[2]}";
    expect(await run(all, ["s1", "s2"], ["x", 7])).toEqual([2, 2, "s1", "s2", "x", "7"]);
    expect(await run("return redis.call('incrby', KEYS[1], ARGV[1])", ["s1"], [5])).toBe(5);
    expect(await run("redis.call('incr', KEYS[1]) -- no reply", ["s1"])).toBeNull();
    expect(await run("return redis.call('set', KEYS[1], 'v')", ["s2"])).toBe("OK");
    expect(await run("return redis.call('get', KEYS[1])", ["s3"])).toBeNull();
    expect(await run("return {}")).toEqual([]);
    expect(await run("return false")).toBeNull();
    expect(await run("local function twice(n) return 2 * n end\nreturn twice(4)")).toBe(8);
    await expect(run("return redis.error_reply('NOPE said the script')")).rejects.toThrow("NOPE said the script");
    await expect(run("\n\nerror('in line 3')")).rejects.toThrow(/:3: in line 3/);
    await expect(run("return redis.call('incr', KEYS[1])", ["s2"])).rejects.toThrow("not an integer");
    await expect(run("this is no Lua")).rejects.toThrow(/compiling/);

    await fence.raise(exclusive("scripts", 5));
    await expect(run("return redis.call('incr', KEYS[1])", ["s1"])).rejects.toEqual(refused("STALE_TOKEN"));
    expect(await client.get("s1")).toBe("6");
  });

  it("refuse what is no script, no value and no time, before anything is sent", async () => {
    const lock = exclusive("bad", 1);
    await fence.raise(lock);
    const before = count.sent;
    const bad: (() => Promise<unknown>)[] = [
      () => fence.run(lock, { script: "" }),
      () => fence.run(lock, { script: "#!lua\nreturn 1" }),
      () => fence.run(lock, { script: "return 1".padEnd(100_001) }),
      () => fence.run(lock, { script: "return 1", key: ["a"] } as { script: string }),
      () => fence.run(lock, { script: "return 1", keys: "abc" as unknown as string[] }),
      () => fence.run(lock, { script: "return 1", args: Array.from({ length: 4_001 }, () => "x") }),
      () => fence.set(lock, "bad", undefined as unknown as string),
      () => fence.set(lock, "bad", Number.NaN),
      () => fence.set(lock, "bad", { a: 1 } as unknown as string),
      () => fence.set(lock, "bad", "v", { ttlMs: 0 }),
      () => fence.set(lock, "bad", "v", { ttlMs: 1.5 }),
      () => fence.set(lock, "bad", "v", { px: 10 } as object),
      () => fence.hset(lock, "bad", null as unknown as { a: 1 }),
    ];
    for (const attempt of bad) await expect(attempt()).rejects.toEqual(refused("INVALID"));
    expect(count.sent).toBe(before);
  });

  it("are refused when the floor is not a number: what cannot be read does not count as zero", async () => {
    for (const floor of ["abc", "", "007", "1e+14", "-1", "5 ", "99999999999999999999"]) {
      await client.set("leasehold:fence:{odd}", floor);
      const write = fence.set(exclusive("odd", 9), "odd", "v");
      await expect(write, floor).rejects.toEqual(refused("INVALID"));
      if (floor !== "007") await expect(fence.inspect("odd"), floor).rejects.toEqual(refused("INVALID"));
    }
    await client.del("leasehold:fence:{odd}");
    await client.hset("leasehold:fence:{odd}", "a", 1);
    await expect(fence.set(exclusive("odd", 9), "odd", "v")).rejects.toThrow("WRONGTYPE");
    expect(await client.exists("odd")).toBe(0);
  });

  it("go on after the server has forgotten its scripts", async () => {
    const lock = exclusive("flushed", 3);
    await fence.set(lock, "flushed", "before");
    await client.script("FLUSH");
    await fence.set(lock, "flushed", "after");
    expect(await client.get("flushed")).toBe("after");
    await expect(fence.set(exclusive("flushed", 2), "flushed", "late")).rejects.toEqual(refused("STALE_TOKEN"));
  });

  it("tell what Redis answered as the driver does, and what it did not answer as OUTCOME_UNKNOWN", async () => {
    const lock = exclusive("errors", 3);
    await fence.set(lock, "errors", "text");
    await expect(fence.hset(lock, "errors", { a: 1 })).rejects.toMatchObject({ name: "ReplyError" });
    const impatient = redisFence(client, { timeoutMs: 500 });
    await impatient.raise(lock);
    server.pause();
    try {
      const unknown = { code: "OUTCOME_UNKNOWN", resource: "errors", token: 3, retryable: false };
      await expect(impatient.set(lock, "errors", "v")).rejects.toMatchObject(unknown);
      await expect(impatient.raise(lock)).rejects.toMatchObject({ code: "UNREACHABLE" });
      await expect(impatient.inspect("errors")).rejects.toEqual(refused("UNREACHABLE"));
      await expect(impatient.reset("errors")).rejects.toEqual(refused("UNREACHABLE"));
    } finally {
      server.resume();
    }
  });

  it("are of unknown outcome when the connection breaks, by either driver", async () => {
    const own = await startRedis();
    const ioredis = new Redis(own.url, { retryStrategy: () => null });
    const nodeRedis = createClient({ url: own.url, socket: { reconnectStrategy: false } });
    ioredis.on("error", () => {});
    nodeRedis.on("error", () => {});
    try {
      await nodeRedis.connect();
      const lock = exclusive("broken", 3);
      const fences = [redisFence(ioredis), redisFence(nodeRedis)];
      for (const one of fences) await one.set(lock, "broken", "v");
      own.pause();
      const writes = fences.map((one) =>
        expect(one.set(lock, "broken", "v")).rejects.toEqual(refused("OUTCOME_UNKNOWN")),
      );
      const raises = fences.map((one) => expect(one.raise(lock)).rejects.toEqual(refused("UNREACHABLE")));
      await own.kill9();
      await Promise.all([...writes, ...raises]);
    } finally {
      ioredis.disconnect();
      nodeRedis.destroy();
      await own.stop();
    }
  });

  it("go by a pool, and by a client that delivers Buffers or text for numbers", async () => {
    const pool = createClientPool({ url: server.url });
    const buffers = createClient({
      url: server.url,
      commandOptions: { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer, [RESP_TYPES.SIMPLE_STRING]: Buffer } },
    });
    const digits = new Redis(server.url, { stringNumbers: true });
    try {
      await pool.connect();
      await buffers.connect();
      for (const [i, one] of [redisFence(pool), redisFence(buffers), redisFence(digits)].entries()) {
        const name = `odd driver ${i}`;
        await one.set(exclusive(name, 12), name, "v");
        expect(await one.hset(exclusive(name, 12), `${name}/h`, { a: 1 })).toBe(1);
        await expect(one.set(exclusive(name, 11), name, "late")).rejects.toMatchObject({
          code: "STALE_TOKEN",
          floor: 12,
        });
        expect((await one.inspect(name)).floor).toBe(12);
      }
    } finally {
      pool.destroy();
      buffers.destroy();
      digits.disconnect();
    }
  });
});
