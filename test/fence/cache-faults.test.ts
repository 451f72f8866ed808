/** A fenced cache whose readers, writers and Redis are stopped and killed. */
import { type FencedCache, type FencedCacheOptions, fencedCache, type LoadContext } from "@leasehold/fence/cache";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RedisServer, startRedis } from "../services/redis.mjs";
import { describeWithServices } from "../services/vitest.js";
import { startHolder } from "./holder.js";

const refused = (code: string) => expect.objectContaining({ code });
const holderModule = new URL("./holders/cache.mjs", import.meta.url).href;
const TIMES = { ttlMs: 60_000, waitMs: 10_000 } as const;
const never = () => Promise.reject(new Error("this must not be loaded"));

describeWithServices("a fenced cache and its faults", ["redis"], () => {
  let alone: RedisServer;
  let client: Redis;
  let names = 0;
  const fresh = () => `key/${++names}`;
  beforeAll(async () => {
    alone = await startRedis();
    client = new Redis(alone.url);
  });
  afterAll(async () => {
    client?.disconnect();
    await alone?.stop();
  });

  describe("processes that are stopped and killed", () => {
    const hold = (key: string, options: FencedCacheOptions, writes: boolean, value: string) =>
      startHolder(holderModule, { url: alone.url, options, writes }, key, 1, 60_000, value);

    it("a filler that is killed: its lease ends, and the next caller fills", async () => {
      const options = { ...TIMES, fillMs: 3_000 };
      const cache = fencedCache(client, options);
      const key = fresh();
      await client.set(`source/${key}`, "v");
      const filler = await hold(key, options, false, "");
      await filler.kill();
      expect(await cache.read(key, () => "w", { waitMs: 0 })).toMatchObject({ filled: false });
      expect(await cache.read(key, () => "w", { waitMs: 30_000 })).toMatchObject({ value: "w", filled: true });
    });

    it("a filler that is stopped, while the value is changed, is refused when it goes on", async () => {
      const options = { ...TIMES, fillMs: 60_000 };
      const cache = fencedCache(client, options);
      const key = fresh();
      await client.set(`source/${key}`, "old");
      const filler = await hold(key, options, false, "");
      filler.stop();
      await cache.around([key], () => client.set(`source/${key}`, "new"));
      expect(await filler.goOn()).toBe("REFUSED");
      expect(await cache.get(key, () => client.get(`source/${key}`))).toBe("new");
    });

    it("a filler whose lease was over is refused, though nobody else has filled", async () => {
      const options = { ...TIMES, fillMs: 200 };
      const cache = fencedCache(client, options);
      const key = fresh();
      await client.set(`source/${key}`, "old");
      const filler = await hold(key, options, false, "");
      await expect.poll(() => client.exists(`leasehold:cache:{${key}}:fill`)).toBe(0);
      expect(await filler.goOn()).toBe("REFUSED");
      expect(await cache.read(key, () => "v")).toMatchObject({ from: "source", filled: true });
    });

    it("a writer that is killed between commit and end: the old value is never again served as fresh", async () => {
      const options = { ...TIMES, markMs: 4_000, staleMs: 60_000 };
      const cache = fencedCache(client, options);
      const key = fresh();
      const load = () => client.get(`source/${key}`);
      await client.set(`source/${key}`, "old");
      await cache.get(key, load);
      const writer = await hold(key, options, true, "new");
      await writer.kill();
      let stale = 0;
      for (let over = false; !over; ) {
        const read = await cache.read(key, load, { waitMs: 0 });
        expect(read.value).toBe("new");
        over = read.filled || read.from === "cache";
        const lenient = await cache.read(key, load, { waitMs: 0, acceptStale: true });
        if (lenient.from === "stale") stale++;
        expect(lenient.value).toBe(lenient.from === "stale" ? "old" : "new");
      }
      expect(stale).toBeGreaterThan(0);
      expect(await cache.read(key, never)).toMatchObject({ value: "new", from: "cache" });
    });
  });

  describe("without Redis", () => {
    async function frozen<T>(use: (cache: FencedCache, errors: unknown[]) => Promise<T>): Promise<T> {
      const server = await startRedis();
      const own = new Redis(server.url);
      const errors: unknown[] = [];
      const options = { ...TIMES, timeoutMs: 500, markMs: 100_000, onError: (error: unknown) => errors.push(error) };
      const cache = fencedCache(own, options);
      try {
        await cache.get("k", () => "old");
        server.pause();
        return await use(cache, errors);
      } finally {
        own.disconnect();
        await server.stop();
      }
    }

    it("reads come from the primary of the source", async () => {
      await frozen(async (cache, errors) => {
        const contexts: LoadContext[] = [];
        const load = (context: LoadContext) => {
          contexts.push(context);
          return "new";
        };
        expect(await cache.read("k", load)).toEqual({ value: "new", from: "source", filled: false });
        expect(contexts).toEqual([{ positions: [], primary: true }]);
        expect(errors).toEqual([refused("UNREACHABLE")]);
      });
    });

    it("changes are refused before their commit", async () => {
      await frozen(async (cache) => {
        await expect(cache.around(["k"], never)).rejects.toEqual(refused("UNREACHABLE"));
        await expect(cache.markStale(["k"])).rejects.toEqual(refused("UNREACHABLE"));
      });
    });

    it("one that fails behind the commit succeeds if its marks have outlasted it", async () => {
      const server = await startRedis();
      const own = new Redis(server.url);
      try {
        for (const [markMs, outlasts] of [
          [100_000, true],
          [100, false],
        ] as const) {
          const errors: unknown[] = [];
          const cache = fencedCache(own, {
            ...TIMES,
            timeoutMs: 1_000,
            markMs,
            onError: (error) => errors.push(error),
          });
          const change = cache.around(["k"], async () => {
            if (!outlasts) await expect.poll(() => own.exists("leasehold:cache:{k}:marks")).toBe(0);
            server.pause();
            return "committed";
          });
          if (outlasts) expect(await change).toBe("committed");
          else await expect(change).rejects.toEqual(refused("UNREACHABLE"));
          expect(errors).toEqual(outlasts ? [refused("UNREACHABLE")] : []);
          server.resume();
          await own.flushall();
        }
      } finally {
        own.disconnect();
        await server.stop();
      }
    });
  });
});
