/**
 * A cache in Redis or Valkey that does not keep what a change has made old.
 *
 *     reader                  cache                   writer                 source
 *        |  miss                |                        |                     |  41
 *        |<---------------------|                        |                     |
 *        |  reads 41            |                        |                     |
 *        |<--------------------------------------------------------------------|
 *        X  paused              |                        |  writes 42          |
 *        .                      |                        |-------------------->|  42
 *        .                      |<-----------------------|  deletes the value  |
 *        O  fills 41            |                        |                     |
 *        |--------------------->|  41, until its time is over
 *
 * Here a miss hands out a lease to fill, to one caller, and a fill lands only if the lease is still that caller's own. The
 * writer revokes it: the fill of 41 is refused. Whoever finds nothing and gets no lease waits for the one who has it.
 *
 * It is best effort as far as Redis is: a failover may bring back what was deleted, until its time is over.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { FenceError, invalid, show } from "../errors.js";
import { type RedisClient, redisPort } from "../redis/client.js";
import { checkKeys, checkWhole } from "../token.js";
import { checkPosition, type Invalidation, MarkedKeys, recordsOfAll } from "./invalidation.js";
import { checkOptions, DAY_MS, type FencedCacheOptions, type Settings } from "./options.js";
import type { Records } from "./records.js";
import { type Missing, Store } from "./store.js";

export type { IoredisClient, NodeRedisClient, RedisBytes, RedisClient } from "../redis/client.js";
export type { FinishOptions, Invalidation } from "./invalidation.js";
export type { FencedCacheOptions } from "./options.js";

const POLL_MS_MIN = 4;
const POLL_MS_MAX = 64;
/** When Redis has not answered: there may be positions. */
const NOTHING_KNOWN: LoadContext = { positions: [], primary: true };

/** What a load has to respect. */
export interface LoadContext {
  /**
   * Positions of the source that a replica must have passed to be read. There are several when changes were finished at
   * about the same time.
   */
  readonly positions: readonly string[];
  /** Only the primary will do: the positions are not known, or are too many. */
  readonly primary: boolean;
}

/** Reads the source: its primary, or a replica that has passed all positions. `undefined` is returned, and not kept. */
export type Load<T> = (context: LoadContext) => Promise<T> | T;

export interface ReadOptions {
  /** Rather take what is marked as stale than wait. Default: false. */
  readonly acceptStale?: boolean | undefined;
  /** Default: that of the cache. */
  readonly waitMs?: number | undefined;
  /** Ends the wait for another's fill. */
  readonly signal?: AbortSignal | undefined;
}

export interface CacheRead<T> {
  readonly value: T;
  /** Where it comes from. stale: a change of it has been announced, and it is what was before. */
  readonly from: "cache" | "stale" | "source";
  /** Whether it was put into the cache by this call. */
  readonly filled: boolean;
}

export interface AroundOptions<T> {
  /** Yields a position of the source behind the commit, which has just resolved with `result`. */
  readonly position?: ((result: T) => string | undefined | Promise<string | undefined>) | undefined;
}

export interface FencedCache {
  /** The value of a key, from the cache or else from the source. What `load` throws passes through. Rejects INVALID. */
  get<T>(key: string, load: Load<T>, options?: ReadOptions): Promise<T>;
  /** `get`, and where the value comes from. */
  read<T>(key: string, load: Load<T>, options?: ReadOptions): Promise<CacheRead<T>>;
  /**
   * The first phase of a change of at most 1,000 keys, before the commit. Rejects UNREACHABLE and LIMIT: then do not commit.
   *
   * @example
   * const change = await cache.markStale(["user/7"]);
   * try {
   *   await db.query("update users set name = 'Anna' where id = 7");
   * } finally {
   *   await change.finish();
   * }
   */
  markStale(keys: readonly string[]): Promise<Invalidation>;
  /**
   * Both phases around a commit, with whose result it resolves. Rejects UNREACHABLE or LIMIT before the commit, with what
   * `commit` throws, or UNREACHABLE behind it: it has been committed, and what was before may be served for `ttlMs`.
   */
  around<T>(keys: readonly string[], commit: () => Promise<T>, options?: AroundOptions<T>): Promise<T>;
  /**
   * `around` one key, and puts what `commit` resolves with into the cache, unless another writer of that key was there in
   * the meantime: a slower, older one cannot overwrite a newer one.
   */
  writeThrough<T>(key: string, commit: () => Promise<T>, options?: AroundOptions<T>): Promise<T>;
}

/**
 * A fenced cache in Redis or Valkey, by a client of ioredis or node-redis that the caller connects and closes. Throws
 * INVALID for wrong options.
 *
 * @example
 * const cache = fencedCache(new Redis(), { ttlMs: 60_000 });
 * const user = await cache.get("user/7", () => db.loadUser(7));
 * await cache.around(["user/7"], () => db.saveUser(7, changed));
 */
export function fencedCache(client: RedisClient, options: FencedCacheOptions): FencedCache {
  return new RedisCache(client, options);
}

class RedisCache implements FencedCache {
  readonly #store: Store;
  readonly #settings: Settings;

  constructor(client: RedisClient, options: FencedCacheOptions) {
    this.#settings = checkOptions(options);
    const { prefix, times } = this.#settings;
    this.#store = new Store(redisPort(client), prefix, times);
  }

  async get<T>(key: string, load: Load<T>, options?: ReadOptions): Promise<T> {
    return (await this.read(key, load, options)).value;
  }

  async read<T>(key: string, load: Load<T>, options: ReadOptions = {}): Promise<CacheRead<T>> {
    checkKeys(options, ["acceptStale", "waitMs", "signal"], "the options of a read");
    const { acceptStale = false, waitMs = this.#settings.waitMs, signal } = options;
    checkWhole(waitMs, "waitMs", 0, DAY_MS);
    const records = this.#store.records(key);
    const found = await this.#attempt(async () => {
      const text = await this.#store.hit(records);
      return text === undefined ? null : this.#found<T>(text, "cache");
    });
    if (found) return found;
    if (found === undefined) return this.#fromSource(load, NOTHING_KNOWN);
    return this.#miss(records, load, { acceptStale, waitMs, signal });
  }

  async #miss<T>(
    records: Records,
    load: Load<T>,
    options: { acceptStale: boolean; waitMs: number; signal: AbortSignal | undefined },
  ): Promise<CacheRead<T>> {
    const { acceptStale, waitMs, signal } = options;
    const id = randomUUID();
    const deadlineMs = performance.now() + waitMs;
    for (let pauseMs = POLL_MS_MIN; ; pauseMs = Math.min(2 * pauseMs, POLL_MS_MAX)) {
      signal?.throwIfAborted();
      const look = await this.#attempt(() => this.#look<T>(records, id, acceptStale));
      if (look === undefined) return this.#fromSource(load, NOTHING_KNOWN);
      if ("value" in look) return look;
      if (look.is === "fill") return this.#fill(records, id, load, look);
      const leftMs = deadlineMs - performance.now();
      if (leftMs <= 0) return this.#fromSource(load, look);
      // Those who wait for the same fill shall not all come at once.
      await sleep(Math.min(pauseMs * (0.5 + Math.random()), leftMs), undefined, signal && { signal });
    }
  }

  /** A value that can be taken, or whether the caller may fill. */
  async #look<T>(records: Records, id: string, acceptStale: boolean): Promise<CacheRead<T> | Missing> {
    const look = await this.#store.look(records, id, acceptStale);
    if (look.is === "hit") return this.#found(look.text, "cache");
    return look.is === "busy" && look.stale !== undefined ? this.#found(look.stale, "stale") : look;
  }

  #found<T>(text: string, from: "cache" | "stale"): CacheRead<T> {
    return { value: this.#settings.decode(text) as T, from, filled: false };
  }

  /** Loads under a lease to fill, and fills. */
  async #fill<T>(records: Records, id: string, load: Load<T>, context: LoadContext): Promise<CacheRead<T>> {
    let text: string | undefined;
    let read: CacheRead<T>;
    try {
      ({ text, read } = await this.#load(load, context));
    } catch (error) {
      await this.#attempt(() => this.#store.giveUp(records, id));
      throw error;
    }
    const filled = await this.#attempt(async () => {
      if (text !== undefined) return this.#store.fill(records, id, text);
      await this.#store.giveUp(records, id);
      return false;
    });
    return { ...read, filled: filled ?? false };
  }

  async #fromSource<T>(load: Load<T>, context: LoadContext): Promise<CacheRead<T>> {
    return (await this.#load(load, context)).read;
  }

  /** Loads, and encodes if it can be kept. All callers get the value as the cache would give it, whoever loaded it. */
  async #load<T>(load: Load<T>, { positions, primary }: LoadContext): Promise<{ text?: string; read: CacheRead<T> }> {
    const value = await load({ positions, primary });
    const source = { from: "source", filled: false } as const;
    if (value === undefined) return { read: { value, ...source } };
    const text = this.#encode(value);
    const read = { value: this.#settings.decode(text) as T, ...source };
    return this.#isKept(text) ? { text, read } : { read };
  }

  #encode(value: unknown): string {
    const text: unknown = this.#settings.encode(value);
    if (typeof text === "string") return text;
    throw invalid(`what is loaded and written must be encoded as text, not as ${show(text)}`);
  }

  #isKept(text: string): boolean {
    const { valueBytesMax, onError } = this.#settings;
    const bytes = Buffer.byteLength(text);
    if (bytes <= valueBytesMax) return true;
    onError(new FenceError("LIMIT", `a value of ${bytes} bytes is not kept: ${valueBytesMax} are permitted`));
    return false;
  }

  async markStale(keys: readonly string[]): Promise<Invalidation> {
    return MarkedKeys.mark(this.#store, recordsOfAll(this.#store, keys), this.#settings.times.markMs);
  }

  async around<T>(keys: readonly string[], commit: () => Promise<T>, options: AroundOptions<T> = {}): Promise<T> {
    return this.#change(recordsOfAll(this.#store, keys), commit, options, () => undefined);
  }

  async writeThrough<T>(key: string, commit: () => Promise<T>, options: AroundOptions<T> = {}): Promise<T> {
    return this.#change(recordsOfAll(this.#store, [key]), commit, options, (result) => {
      const text = result === undefined ? undefined : this.#encode(result);
      return text !== undefined && this.#isKept(text) ? text : undefined;
    });
  }

  async #change<T>(
    records: Map<string, Records>,
    commit: () => Promise<T>,
    options: AroundOptions<T>,
    textOf: (result: T) => string | undefined,
  ): Promise<T> {
    checkKeys(options, ["position"], "the options of a change");
    const { position } = options;
    const marked = await MarkedKeys.mark(this.#store, records, this.#settings.times.markMs);
    let result: T;
    try {
      marked.checkTime();
      result = await commit();
    } catch (error) {
      // It may have been committed nevertheless, and nobody knows where.
      await this.#attempt(() => marked.finishWith({ position: position ? null : undefined, text: undefined }));
      throw error;
    }
    const inTime = marked.remainingMs() > 0;
    // From here on it is committed: whatever fails, the old value has to go.
    const behind = position && (await this.#attempt(async () => checkPosition(await position(result)) ?? null, null));
    const text = await this.#attempt(async () => textOf(result));
    try {
      await marked.finishWith({ position: behind, text });
    } catch (error) {
      // The marks have outlasted the commit: nothing from before it can be filled, and they are forgotten by themselves.
      if (!inTime) throw error;
      this.#settings.onError(error);
    }
    return result;
  }

  /** `otherwise`: it failed, which does not matter to the caller. */
  async #attempt<T>(step: () => Promise<T>, otherwise?: T): Promise<T | undefined> {
    try {
      return await step();
    } catch (error) {
      this.#settings.onError(error);
      return otherwise;
    }
  }
}
