/**
 * Random interleavings of readers and writers of a fenced cache, against a real Redis, and a checker:
 *
 * - After a change has finished, no read that begins returns a value from before it, fresh or stale.
 * - After the mark of a writer that crashed behind its commit is forgotten, no read that begins returns a value from before
 *   that commit as fresh.
 *
 * Reads and writes are stopped at gates: before and after the load has read the source, before and behind the commit. A
 * seeded scheduler opens one gate at a time, lets writers crash, lets time forget marks, and evicts records. What comes of it
 * depends on the seed alone: LEASEHOLD_SEED repeats a run, LEASEHOLD_CACHE_RUNS makes more of them.
 */
import { type CacheRead, type FencedCache, fencedCache } from "@leasehold/fence/cache";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RedisServer, startRedis } from "../services/redis.mjs";
import { describeWithServices } from "../services/vitest.js";
import { type Rewrite, replaced, replacing, tap } from "./redis-clients.js";

const STEPS = 120;
const RUNS = Number(process.env.LEASEHOLD_CACHE_RUNS ?? 60);
/** How many runs a broken cache may survive. */
const RUNS_OF_MUTANTS = 2_000;
const ACTIVE_MAX = 5;
const KEYS = ["a", "b"] as const;
type Key = (typeof KEYS)[number];

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Something under way that is stopped at a gate, or over. */
class Activity {
  over = false;
  #open: (() => void) | undefined;
  #stopped: (() => void) | undefined;

  /** Resolves when it stands at its first gate, or is over. */
  begin(run: (gate: () => Promise<void>) => Promise<void>): Promise<void> {
    return this.#until(() => {
      run(() => this.#gate()).finally(() => {
        this.over = true;
        this.#stopped?.();
      });
    });
  }

  /** Lets it go on. Resolves when it stands at the next gate, or is over. */
  goOn(): Promise<void> {
    return this.#until(() => this.#open?.());
  }

  #gate(): Promise<void> {
    this.#stopped?.();
    return new Promise((resolve) => {
      this.#open = resolve;
    });
  }

  #until(act: () => void): Promise<void> {
    return new Promise((resolve) => {
      this.#stopped = resolve;
      act();
    });
  }
}

/** One source and what must be true of the cache before it. */
class World {
  readonly source: Record<Key, number> = { a: 0, b: 0 };
  /** What reads that begin must return at least: fresh or stale, and fresh. */
  readonly anyFloor: Record<Key, number> = { a: 0, b: 0 };
  readonly freshFloor: Record<Key, number> = { a: 0, b: 0 };
  readonly violations: string[] = [];

  constructor(
    readonly cache: FencedCache,
    readonly redis: Redis,
  ) {}

  async read(key: Key, acceptStale: boolean, gate: () => Promise<void>): Promise<void> {
    const [any, fresh] = [this.anyFloor[key], this.freshFloor[key]];
    const load = async () => {
      await gate();
      const version = this.source[key];
      await gate();
      return version;
    };
    const { value, from }: CacheRead<number> = await this.cache.read(key, load, { waitMs: 0, acceptStale });
    const floor = from === "stale" ? any : Math.max(any, fresh);
    if (value < floor) this.violations.push(`${key}: ${value} from the ${from}, ${floor} was due`);
  }

  /** `done.committed` tells how far it has come if it is never let go on. */
  async write(key: Key, through: boolean, done: { committed: number }, gate: () => Promise<void>): Promise<void> {
    const commit = async () => {
      await gate();
      done.committed = ++this.source[key];
      await gate();
      return done.committed;
    };
    await (through ? this.cache.writeThrough(key, commit) : this.cache.around([key], commit));
    this.anyFloor[key] = Math.max(this.anyFloor[key], done.committed);
  }

  record(key: Key, name: string): string {
    return `leasehold:cache:{${key}}:${name}`;
  }

  marks(key: Key): Promise<string[]> {
    return this.redis.zrange(this.record(key, "marks"), "0", "-1");
  }

  /** What time would do to a mark and what goes with it. */
  async forget(key: Key, mark: string): Promise<void> {
    await this.redis.zrem(this.record(key, "marks"), mark);
    if ((await this.redis.get(this.record(key, "writer"))) === mark) await this.redis.del(this.record(key, "writer"));
  }
}

interface Writer {
  readonly activity: Activity;
  readonly key: Key;
  readonly mark: string;
  readonly done: { committed: number };
  crashed: boolean;
  /** Its mark was forgotten before its commit: nothing is promised if it crashes. */
  late: boolean;
  forgotten: boolean;
}

/** One run. Resolves with what went wrong. */
async function run(seed: number, cache: FencedCache, redis: Redis): Promise<string[]> {
  await redis.flushall();
  const next = random(seed);
  const chance = (probability: number) => next() < probability;
  const pick = <T>(items: readonly T[]): T => items[Math.floor(next() * items.length)] as T;
  const world = new World(cache, redis);
  const readers: Activity[] = [];
  const writers: Writer[] = [];

  const beginRead = async () => {
    const activity = new Activity();
    const [key, acceptStale] = [pick(KEYS), chance(0.3)];
    await activity.begin((gate) => world.read(key, acceptStale, gate));
    readers.push(activity);
  };
  const beginWrite = async () => {
    const activity = new Activity();
    const [key, through] = [pick(KEYS), chance(0.5)];
    const done = { committed: 0 };
    const before = await world.marks(key);
    await activity.begin((gate) => world.write(key, through, done, gate));
    const mark = (await world.marks(key)).find((one) => !before.includes(one)) as string;
    writers.push({ activity, key, mark, done, crashed: false, late: false, forgotten: false });
  };
  const forget = async () => {
    const writer = pick(writers.filter((one) => !one.activity.over && !one.forgotten));
    if (writer === undefined) return;
    await world.forget(writer.key, writer.mark);
    writer.forgotten = true;
    writer.late = writer.done.committed === 0;
    if (writer.crashed) settle(writer);
  };
  const crash = () => {
    const writer = pick(writers.filter((one) => !one.activity.over && !one.crashed));
    if (writer === undefined) return;
    writer.crashed = true;
    if (writer.forgotten) settle(writer);
  };
  /** A writer that has crashed and whose mark is forgotten: what it has committed must be seen. */
  const settle = ({ key, done, late }: Writer) => {
    if (!late) world.freshFloor[key] = Math.max(world.freshFloor[key], done.committed);
  };
  const goOn = async () => {
    const active = [...readers, ...writers.filter((one) => !one.crashed).map((one) => one.activity)];
    await pick(active.filter((one) => !one.over))?.goOn();
  };

  for (let step = 0; step < STEPS && world.violations.length === 0; step++) {
    const active = [...readers, ...writers.map((one) => one.activity)].filter((one) => !one.over).length;
    const crashedNow = writers.filter((one) => one.crashed).length;
    const draw = next();
    if (draw < 0.2 && active < ACTIVE_MAX + crashedNow) await beginRead();
    else if (draw < 0.35 && active < ACTIVE_MAX + crashedNow) await beginWrite();
    else if (draw < 0.4) crash();
    else if (draw < 0.46) await forget();
    else if (draw < 0.49)
      await redis.del(world.record(pick(KEYS), pick(["value", "fill", "stale", "writer"] as const)));
    else await goOn();
  }
  return world.violations;
}

describeWithServices("random interleavings of a fenced cache", ["redis"], () => {
  const seed0 = Number(process.env.LEASEHOLD_SEED ?? Math.floor(Math.random() * 2 ** 31));
  let server: RedisServer;
  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(() => server?.stop());

  /** The first run in which something went wrong. */
  async function firstFailure(runs: number, from: number, rewrite?: Rewrite): Promise<string | undefined> {
    const [redis, plain] = [new Redis(server.url), new Redis(server.url)];
    if (rewrite) tap(redis, rewrite);
    try {
      const hour = 3_600_000;
      const cache = fencedCache(redis, { ttlMs: hour, fillMs: hour, markMs: hour, staleMs: hour });
      for (let seed = from; seed < from + runs; seed++) {
        const violations = await run(seed, cache, plain);
        if (violations.length > 0) return `LEASEHOLD_SEED=${seed}: ${violations.join("; ")}`;
      }
      return undefined;
    } finally {
      redis.disconnect();
      plain.disconnect();
    }
  }

  it(`nothing old is read in ${RUNS} runs from seed ${seed0}`, async () => {
    expect(await firstFailure(RUNS, seed0)).toBeUndefined();
  });

  describe("a cache that is broken on purpose is found", () => {
    // The last one takes five things in the right order: it is looked for where it was found once.
    const mutants: readonly (readonly [what: string, piece: string, by: string, firstSeed?: number])[] = [
      ["a fill lands without its record", `if redis.call("get", FILL) ~= ARGV[1] then return 0 end`, ""],
      ["a mark leaves the value", `redis.call("exists", VALUE) == 1`, "false"],
      ["a mark leaves fills", `redis.call("del", FILL)\nif not own`, "if not own"],
      [
        "leases to fill are given while there is a mark",
        `if redis.call("zcount", MARKS, since, "+inf") == 0 then`,
        "do",
      ],
      ["the end leaves fills", `redis.call("del", VALUE, STALE, FILL)`, `redis.call("del", VALUE, STALE)`],
      ["the end leaves what is stale", `redis.call("del", VALUE, STALE, FILL)`, `redis.call("del", VALUE, FILL)`],
      ["a writer puts its value whoever else has written", "if alone and ARGV[5]", "if ARGV[5]"],
      [
        "a second writer does not disturb the first",
        `if not own and others > 0 then redis.call("del", WRITER) end`,
        "",
      ],
      [
        "a late writer does not disturb the next",
        `redis.call("del", WRITER)\nif ARGV[3]`,
        `if alone then redis.call("del", WRITER) end\nif ARGV[3]`,
        850,
      ],
    ];
    for (const [what, piece, by, firstSeed = 1] of mutants) {
      it(what, async () => {
        const found = await firstFailure(RUNS_OF_MUTANTS, firstSeed, replacing(piece, by));
        expect(replaced).toContain(piece);
        expect(found).toMatch(/was due$/);
      });
    }
  });
});
