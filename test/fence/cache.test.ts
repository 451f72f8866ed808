import { type FencedCache, type FencedCacheOptions, fencedCache, type LoadContext } from "@leasehold/fence/cache";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RedisServer, startRedis } from "../services/redis.mjs";
import { describeWithServices } from "../services/vitest.js";
import { drivers, replaced, replacing, tap } from "./redis-clients.js";

const refused = (code: string) => expect.objectContaining({ code });
const TIMES = { ttlMs: 60_000, waitMs: 10_000 } as const;
const never = () => Promise.reject(new Error("this must not be loaded"));

/** Something to wait for that the test lets happen. */
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

let alone: RedisServer;
let cluster: RedisServer;

describeWithServices("a fenced cache", ["redis"], () => {
  let client: Redis;
  let names = 0;
  const fresh = () => `key/${++names}`;
  const cacheWith = (options: Partial<FencedCacheOptions> = {}): FencedCache =>
    fencedCache(client, { ...TIMES, ...options });

  beforeAll(async () => {
    [alone, cluster] = await Promise.all([startRedis(), startRedis({ cluster: true })]);
    client = new Redis(alone.url);
  });
  afterAll(async () => {
    client?.disconnect();
    await alone?.stop();
    await cluster?.stop();
  });

  for (const driver of drivers) {
    it(`reads, fills, changes (${driver.name})`, async () => {
      const { client: redis, close } = await driver.connect((driver.cluster ? cluster : alone).url);
      try {
        const count = tap(redis);
        const cache = fencedCache(redis, TIMES);
        const key = `{all}/${driver.name}/}%{`;
        expect(await cache.read(key, () => ({ n: 1 }))).toEqual({ value: { n: 1 }, from: "source", filled: true });
        const before = count.sent;
        expect(await cache.read(key, never)).toEqual({ value: { n: 1 }, from: "cache", filled: false });
        expect(count.sent - before, "commands of a hit").toBe(1);
        const change = await cache.markStale([key]);
        expect(await cache.read(key, never, { acceptStale: true })).toMatchObject({ value: { n: 1 }, from: "stale" });
        await change.finish({ position: "0/16B3748" });
        const seen: LoadContext[] = [];
        const load = (context: LoadContext) => {
          seen.push(context);
          return null;
        };
        expect(await cache.read(key, load)).toEqual({ value: null, from: "source", filled: true });
        expect(await cache.get(key, never)).toBeNull();
        expect(seen).toEqual([{ positions: ["0/16B3748"], primary: false }]);
        expect(await cache.writeThrough(key, async () => "written")).toBe("written");
        expect(await cache.get(key, never)).toBe("written");
      } finally {
        await close();
      }
    });
  }

  it("a hit is one command on the connection", async () => {
    const own = new Redis(alone.url);
    try {
      const cache = fencedCache(own, TIMES);
      const key = fresh();
      await cache.get(key, () => "v");
      const sent: string[] = [];
      const send = own.sendCommand.bind(own);
      own.sendCommand = (command, stream) => {
        sent.push(command.name);
        return send(command, stream);
      };
      expect(await cache.get(key, never)).toBe("v");
      expect(sent).toEqual(["evalsha"]);
    } finally {
      own.disconnect();
    }
  });

  /** The race for which this is: a reader that has read the old value fills it after the change is over. */
  async function slowReader(cache: FencedCache, key: string): Promise<string> {
    let source = "old";
    const hasRead = gate();
    const goOn = gate();
    const slow = cache.read(key, async () => {
      const read = source;
      hasRead.open();
      await goOn.opened;
      return read;
    });
    await hasRead.opened;
    await cache.around([key], async () => {
      source = "new";
    });
    goOn.open();
    expect((await slow).value).toBe("old"); // it began before the change
    return cache.get(key, () => source);
  }

  it("a slow reader cannot refill the old value", async () => {
    expect(await slowReader(cacheWith(), fresh())).toBe("new");
  });

  it("which is due to the comparison of the fill record", async () => {
    const piece = `if redis.call("get", FILL) ~= ARGV[1] then return 0 end`;
    const own = new Redis(alone.url);
    try {
      tap(own, replacing(piece, ""));
      expect(await slowReader(fencedCache(own, TIMES), fresh())).toBe("old");
      expect(replaced).toContain(piece);
    } finally {
      own.disconnect();
    }
  });

  it("200 callers at once make one load", async () => {
    const other = new Redis(alone.url);
    try {
      const caches = [cacheWith(), fencedCache(other, TIMES)] as const;
      const key = fresh();
      let loads = 0;
      const loading = gate();
      const load = async () => {
        loads++;
        await loading.opened;
        return { answer: 42 };
      };
      const reads = Array.from({ length: 200 }, (_, i) => (caches[i % 2] as FencedCache).read(key, load));
      await expect.poll(() => loads).toBe(1);
      // Each of the others has looked, found nothing, and waits: then the one may go on.
      await expect.poll(async () => commandCalls(await client.info("commandstats"), "evalsha")).toBeGreaterThan(600);
      loading.open();
      const results = await Promise.all(reads);
      expect(loads).toBe(1);
      expect(results.filter(({ filled }) => filled)).toHaveLength(1);
      expect(results.filter(({ from }) => from === "cache")).toHaveLength(199);
      expect(new Set(results.map(({ value }) => value.answer))).toEqual(new Set([42]));
    } finally {
      other.disconnect();
    }
  });

  it("a load that fails lets the next caller fill at once", async () => {
    const cache = cacheWith({ fillMs: 60_000 });
    const key = fresh();
    const failing = gate();
    const first = cache.get(key, async () => {
      await failing.opened;
      throw new TypeError("the source is away");
    });
    await expect.poll(() => client.exists(`leasehold:cache:{${key}}:fill`)).toBe(1);
    const second = cache.read(key, () => "v");
    failing.open();
    await expect(first).rejects.toThrow(new TypeError("the source is away"));
    expect(await second).toMatchObject({ value: "v", filled: true });
  });

  it("who has waited long enough loads without filling", async () => {
    const cache = cacheWith({ waitMs: 20 });
    const key = fresh();
    const loading = gate();
    const first = cache.read(key, async () => {
      await loading.opened;
      return "first";
    });
    await expect.poll(() => client.exists(`leasehold:cache:{${key}}:fill`)).toBe(1);
    expect(await cache.read(key, () => "own")).toEqual({ value: "own", from: "source", filled: false });
    expect(await cache.read(key, () => "own", { waitMs: 0 })).toMatchObject({ value: "own", filled: false });
    const abort = new AbortController();
    const waiting = cache.read(key, never, { waitMs: 60_000, signal: abort.signal });
    abort.abort();
    await expect(waiting).rejects.toMatchObject({ name: "AbortError" });
    loading.open();
    expect(await first).toMatchObject({ filled: true });
    expect(await cache.get(key, never)).toBe("first");
  });

  it("values have a time limit, and so has everything else", async () => {
    const cache = cacheWith({ ttlMs: 50, markMs: 40_000, staleMs: 30_000, positionMs: 50_000, fillMs: 20_000 });
    const key = fresh();
    await cache.get(key, () => "v");
    await expect.poll(() => cache.get(key, () => "anew"), { interval: 5 }).toBe("anew");
    const lasting = cacheWith({ markMs: 40_000, staleMs: 30_000, positionMs: 50_000, fillMs: 20_000 });
    await lasting.markStale([key]);
    const loading = gate();
    const other = fresh();
    const filling = lasting.get(other, () => loading.opened);
    await expect.poll(() => client.exists(`leasehold:cache:{${other}}:fill`)).toBe(1);
    const limits = { stale: 60_000, marks: 40_000, writer: 40_000, positions: 50_000 };
    for (const [record, limitMs] of Object.entries(limits)) {
      const leftMs = await client.pttl(`leasehold:cache:{${key}}:${record}`);
      expect(leftMs, record).toBeGreaterThan(record === "stale" ? -3 : limitMs - 10_000);
      expect(leftMs, record).toBeLessThanOrEqual(limitMs);
    }
    expect(await client.pttl(`leasehold:cache:{${other}}:fill`)).toBeLessThanOrEqual(20_000);
    loading.open();
    expect(await filling).toBeUndefined(); // returned, and not kept
    expect(await client.exists(`leasehold:cache:{${other}}:value`, `leasehold:cache:{${other}}:fill`)).toBe(0);
  });

  it("what is marked is served as stale only, only to those who accept it, and not after the change", async () => {
    const cache = cacheWith({ waitMs: 0 });
    const key = fresh();
    await cache.get(key, () => "old");
    const change = await cache.markStale([key]);
    expect(await client.pttl(`leasehold:cache:{${key}}:stale`)).toBeLessThanOrEqual(30_000);
    expect(change.remainingMs()).toBeGreaterThan(20_000);
    expect(await cache.read(key, never, { acceptStale: true })).toMatchObject({ value: "old", from: "stale" });
    expect(await cache.read(key, () => "maybe old")).toMatchObject({
      value: "maybe old",
      from: "source",
      filled: false,
    });
    expect(await cache.read(key, never, { acceptStale: true })).toMatchObject({ from: "stale" });
    await change.finish();
    await change.finish(); // may be repeated
    expect(await cache.read(key, () => "new", { acceptStale: true })).toMatchObject({ value: "new", filled: true });
  });

  it("a mark lasts until all writers have finished, and then what they wrote is read", async () => {
    const cache = cacheWith({ waitMs: 0 });
    const key = fresh();
    await cache.get(key, () => "v0");
    const [one, two] = [await cache.markStale([key]), await cache.markStale([key])];
    await one.finish();
    expect(await cache.read(key, () => "v1")).toMatchObject({ value: "v1", filled: false });
    await two.finish();
    expect(await cache.read(key, () => "v2")).toMatchObject({ value: "v2", filled: true });
  });

  describe("writing through", () => {
    it("a slower, older write does not overwrite a newer one", async () => {
      const cache = cacheWith({ waitMs: 0 });
      const key = fresh();
      const older = gate();
      const olderHasCommitted = gate();
      const slow = cache.writeThrough(key, async () => {
        olderHasCommitted.open();
        await older.opened;
        return "older";
      });
      await olderHasCommitted.opened;
      await cache.writeThrough(key, async () => "newer");
      older.open();
      expect(await slow).toBe("older");
      expect(await cache.read(key, () => "newer")).toMatchObject({ value: "newer", from: "source" });
    });

    it("nor does one whose mark was forgotten in the meantime, whoever ends first", async () => {
      const cache = cacheWith({ waitMs: 0 });
      for (const slowEndsFirst of [true, false]) {
        const key = fresh();
        const ends = { slow: gate(), quick: gate() };
        const began = { slow: gate(), quick: gate() };
        const write = (which: "slow" | "quick") =>
          cache.writeThrough(key, async () => {
            began[which].open();
            await ends[which].opened;
            return which;
          });
        const slow = write("slow");
        await began.slow.opened;
        await client.del(`leasehold:cache:{${key}}:marks`, `leasehold:cache:{${key}}:writer`); // as time would
        const quick = write("quick");
        await began.quick.opened;
        ends[slowEndsFirst ? "slow" : "quick"].open();
        await (slowEndsFirst ? slow : quick);
        ends[slowEndsFirst ? "quick" : "slow"].open();
        await Promise.all([slow, quick]);
        // Which one was committed last is not known to the cache, so it has neither.
        expect(await cache.read(key, () => "last"), `slow first: ${slowEndsFirst}`).toMatchObject({ from: "source" });
      }
    });

    it("what cannot be kept is removed", async () => {
      const errors: unknown[] = [];
      const cache = cacheWith({ valueBytesMax: 20, onError: (error) => errors.push(error) });
      const key = fresh();
      await cache.writeThrough(key, async () => "short");
      expect(await cache.get(key, never)).toBe("short");
      await cache.writeThrough(key, async () => "a very long text, too long to be kept");
      expect(errors).toEqual([refused("LIMIT")]);
      expect(await cache.read(key, () => "x".repeat(30))).toMatchObject({ value: "x".repeat(30), filled: false });
      expect(await cache.read(key, () => "y")).toMatchObject({ filled: true });
      expect(await cache.writeThrough(key, async () => 7n)).toBe(7n); // no JSON: committed nevertheless
      expect(errors.at(-1)).toBeInstanceOf(TypeError);
      expect(await cache.read(key, () => "z")).toMatchObject({ filled: true });
      await cache.writeThrough(key, async () => undefined);
      expect(await cache.read(key, () => "z")).toMatchObject({ filled: true });
    });
  });

  it("a commit that fails passes through, and may have happened", async () => {
    const cache = cacheWith();
    const key = fresh();
    await cache.get(key, () => "old");
    const failing = cache.around([key], () => Promise.reject(new Error("connection lost")));
    await expect(failing).rejects.toThrow("connection lost");
    expect(await cache.read(key, () => "new")).toMatchObject({ value: "new", filled: true });
  });

  describe("positions", () => {
    async function contextOf(cache: FencedCache, key: string): Promise<LoadContext> {
      let seen: LoadContext | undefined;
      await cache.get(key, (context) => {
        seen = context;
      });
      return seen as LoadContext;
    }

    it("of changes one after the other are the last one's, of simultaneous ones all", async () => {
      const cache = cacheWith({ waitMs: 0 });
      const key = fresh();
      expect(await contextOf(cache, key)).toEqual({ positions: [], primary: false });
      for (const position of ["p1", "p2"]) {
        await cache.around([key], async () => position, { position: (result) => result });
        expect(await contextOf(cache, key)).toEqual({ positions: [position], primary: false });
      }
      const changes = [await cache.markStale([key]), await cache.markStale([key])] as const;
      expect(await contextOf(cache, key), "in the middle of it").toEqual({ positions: ["p2"], primary: true });
      await changes[0].finish({ position: "p4" });
      await changes[1].finish({ position: "p3" });
      const { positions, primary } = await contextOf(cache, key);
      expect([...positions].sort()).toEqual(["p2", "p3", "p4"]);
      expect(primary).toBe(false);
    });

    it("that are not known mean the primary", async () => {
      const cache = cacheWith({ waitMs: 0 });
      const committed = { position: () => "p1" };
      const unknown: (() => Promise<unknown>)[] = [
        () => cache.around(["pos/0"], () => Promise.reject(new Error("lost")), committed).catch(() => {}),
        () => cache.around(["pos/1"], async () => {}, { position: () => Promise.reject(new Error("away")) }),
        () => cache.around(["pos/2"], async () => {}, { position: () => undefined }),
        () => cache.around(["pos/3"], async () => {}, { position: () => "x".repeat(513) }),
        async () => {
          await cache.markStale(["pos/4"]); // and crashes
          await client.del("leasehold:cache:{pos/4}:marks");
        },
      ];
      for (const [i, change] of unknown.entries()) {
        await change();
        expect(await contextOf(cache, `pos/${i}`), `case ${i}`).toEqual({ positions: [], primary: true });
      }
    });

    it("are bounded: more than are kept mean the primary", async () => {
      const cache = cacheWith({ waitMs: 0 });
      const key = fresh();
      const changes = await Promise.all(Array.from({ length: 40 }, () => cache.markStale([key])));
      for (const [i, change] of changes.entries()) await change.finish({ position: `p${i}` });
      const { positions, primary } = await contextOf(cache, key);
      expect(primary).toBe(true);
      expect(positions.length).toBeGreaterThan(0);
      expect(await client.zcard(`leasehold:cache:{${key}}:positions`)).toBeLessThanOrEqual(16);
    });
  });

  it("a value in Redis that cannot be read is not served", async () => {
    const errors: unknown[] = [];
    const cache = cacheWith({ onError: (error) => errors.push(error) });
    await client.set("leasehold:cache:{garbage}:value", "{no json");
    expect(await cache.read("garbage", () => "v")).toEqual({ value: "v", from: "source", filled: false });
    expect(errors).toEqual([expect.any(SyntaxError)]);
  });

  it("everybody gets the value as it is kept, whoever loads it", async () => {
    const key = fresh();
    const date = new Date(0);
    const cache = cacheWith();
    expect(await cache.get<unknown>(key, () => date)).toBe(date.toJSON());
    expect(await cache.get<unknown>(key, never)).toBe(date.toJSON());
    const dates = cacheWith({
      prefix: "dates:",
      encode: (value) => String((value as Date).getTime()),
      decode: (text) => new Date(Number(text)),
    });
    expect(await dates.get(key, () => date)).toEqual(date);
    expect(await dates.get(key, never)).toEqual(date);
    const empty = cacheWith({ prefix: "empty:", encode: () => "", decode: () => "nothing" });
    expect(await empty.get(key, () => 1)).toBe("nothing");
    expect(await empty.read(key, never)).toMatchObject({ value: "nothing", from: "cache" });
    await empty.markStale([key]);
    expect(await empty.read(key, never, { acceptStale: true })).toMatchObject({ value: "nothing", from: "stale" });
    const odd = cacheWith({ encode: () => 7 as unknown as string });
    await expect(odd.get(fresh(), () => 1)).rejects.toEqual(refused("INVALID"));
  });

  it("no more writers than there is room for", async () => {
    const cache = cacheWith();
    const key = fresh();
    for (let i = 0; i < 10; i++) await Promise.all(Array.from({ length: 100 }, () => cache.markStale([key])));
    await expect(cache.around([key], never)).rejects.toEqual(refused("LIMIT"));
  });

  it("bad input is refused before anything is sent", async () => {
    const own = new Redis(alone.url);
    const count = tap(own);
    try {
      const cache = fencedCache(own, TIMES);
      for (const key of ["", 7, null, undefined, "x".repeat(1_025)] as string[]) {
        await expect(cache.get(key, never)).rejects.toEqual(refused("INVALID"));
        await expect(cache.markStale([key])).rejects.toEqual(refused("INVALID"));
        await expect(cache.writeThrough(key, never)).rejects.toEqual(refused("INVALID"));
      }
      for (const keys of [[], "abc", null, Array.from({ length: 1_001 }, (_, i) => `k${i}`)]) {
        await expect(cache.around(keys as string[], never)).rejects.toEqual(refused("INVALID"));
      }
      await expect(cache.get("k", never, { waitMs: -1 })).rejects.toEqual(refused("INVALID"));
      await expect(cache.get("k", never, { stale: true } as object)).rejects.toEqual(refused("INVALID"));
      await expect(cache.around(["k"], never, { at: 1 } as object)).rejects.toEqual(refused("INVALID"));
      expect(count.sent).toBe(0);
      const change = await cache.markStale(["k"]);
      await expect(change.finish({ position: "" })).rejects.toEqual(refused("INVALID"));
      const wrong: object[] = [
        {},
        { ttlMs: 0 },
        { ttlMs: 1.5 },
        { ttlMs: 1, prefix: "{" },
        { ttlMs: 1, fillMs: -1 },
        { ttlMs: 1, encode: "json" },
        { ttlMs: 1, ttl: 5 },
      ];
      for (const options of wrong) {
        expect(() => fencedCache(own, options as FencedCacheOptions)).toThrow(refused("INVALID"));
      }
    } finally {
      own.disconnect();
    }
  });
});

function commandCalls(info: string, command: string): number {
  return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(info)?.[1] ?? 0);
}
