/**
 * Floors in a LevelDB database on this machine.
 *
 * LevelDB has no conditional put: to raise is to read, compare and write. Two raises of one resource at a time would lose
 * the higher one:
 *
 *     raise 34 reads 0            raise 35 reads 0
 *                                 writes 35
 *     writes 34                   <- the floor has fallen
 *
 * So the raises of one resource go one after another. That holds in one process, which is enough: LevelDB lets no other
 * one in. Each write is synced; without that a power failure could take the floor back.
 *
 * A write that failed makes the store refuse all further raises: after a full disk, LevelDB acknowledges synced writes that
 * are gone after a crash, until it is opened anew.
 */
import { FenceError, invalid } from "../errors.js";
import { checkKeys, readToken } from "../token.js";
import type { HighWaterStore, Raised } from "./high-water.js";

interface Encodings {
  readonly keyEncoding: "utf8";
  readonly valueEncoding: "utf8";
}

/** A database of `level` or `classic-level`, or a sublevel of one. */
export interface LevelDatabase {
  readonly status?: string | undefined;
  readonly supports?: object | undefined;
  getSync?(key: string, options: Encodings): string | undefined;
  get(key: string, options: Encodings): Promise<string | undefined>;
  put(key: string, value: string, options: Encodings & { readonly sync: boolean }): Promise<void>;
  del(key: string, options: { readonly keyEncoding: "utf8"; readonly sync: boolean }): Promise<void>;
}

export interface LevelStoreOptions {
  /** What its keys begin with. Default: `fence/`. */
  readonly prefix?: string | undefined;
}

/** Changes that wait for their turn, over all resources. */
const WAITING_MAX = 10_000;
const UTF8: Encodings = { keyEncoding: "utf8", valueEncoding: "utf8" };

/** The last step of each resource that is being changed, for each database: several stores may be made of one. */
const lasts = new WeakMap<LevelDatabase, Map<string, Promise<unknown>>>();

function lastSteps(db: LevelDatabase): Map<string, Promise<unknown>> {
  let steps = lasts.get(db);
  if (steps === undefined) {
    steps = new Map();
    lasts.set(db, steps);
  }
  return steps;
}

class LevelStore implements HighWaterStore {
  readonly #db: LevelDatabase;
  readonly #prefix: string;
  readonly #steps: Map<string, Promise<unknown>>;
  readonly #readsAtOnce: boolean;
  #waiting = 0;
  #failure: unknown;

  constructor(db: LevelDatabase, prefix: string) {
    this.#db = db;
    this.#prefix = prefix;
    this.#steps = lastSteps(db);
    this.#readsAtOnce = (db.supports as { getSync?: boolean } | undefined)?.getSync === true;
  }

  async get(resource: string): Promise<number> {
    return readToken((await this.#read(this.#prefix + resource)) ?? 0);
  }

  /** At once where that is possible: a thread's help costs forty times what the look takes. */
  #read(key: string): string | undefined | Promise<string | undefined> {
    const db = this.#db;
    if (this.#readsAtOnce && db.status === "open") return db.getSync?.(key, UTF8);
    return db.get(key, UTF8);
  }

  raise(resource: string, token: number): Promise<Raised> {
    return this.#inTurn(resource, async () => {
      const floor = await this.get(resource);
      if (token <= floor) return { ok: token === floor, floor };
      await this.#written(this.#db.put(this.#prefix + resource, String(token), { ...UTF8, sync: true }));
      return { ok: true, floor: token };
    });
  }

  reset(resource: string): Promise<void> {
    return this.#inTurn(resource, () =>
      this.#written(this.#db.del(this.#prefix + resource, { keyEncoding: "utf8", sync: true })),
    );
  }

  async #written(write: Promise<void>): Promise<void> {
    try {
      await write;
    } catch (error) {
      this.#failure ??= error;
      throw error;
    }
  }

  async #inTurn<T>(resource: string, step: () => Promise<T>): Promise<T> {
    if (this.#waiting >= WAITING_MAX) throw new FenceError("LIMIT", `${WAITING_MAX} changes of floors wait already`);
    this.#waiting += 1;
    const key = this.#prefix + resource;
    const before = this.#steps.get(key) ?? Promise.resolve();
    const now = before.then(() => {
      if (this.#failure === undefined) return step();
      const message = "a write of a floor has failed: open the database anew, and make a new store of it";
      throw new FenceError("UNREACHABLE", message, { cause: this.#failure });
    });
    const end = now.catch(() => {}); // its caller hears of it; the next one takes its turn all the same
    this.#steps.set(key, end);
    try {
      return await now;
    } finally {
      this.#waiting -= 1;
      if (this.#steps.get(key) === end) this.#steps.delete(key);
    }
  }
}

/**
 * Floors in a database of `level` or `classic-level`. They survive a crash and a power failure: each raise is synced. After a
 * write that failed it refuses to raise until the database was opened anew and a new store was made of it. Throws INVALID.
 *
 * @example
 * import { Level } from "level";
 *
 * const store = levelStore(new Level("floors"));
 * const fence = httpFence({ store, resource: (req) => `orders${req.url}`, authorize });
 */
export function levelStore(db: LevelDatabase, options: LevelStoreOptions = {}): HighWaterStore {
  checkKeys(options, ["prefix"], "the options of levelStore()");
  const { prefix = "fence/" } = options;
  if (typeof prefix !== "string" || prefix.length > 256)
    throw invalid("the prefix must be text of at most 256 characters");
  if (typeof db?.get !== "function" || typeof db.put !== "function" || typeof db.del !== "function") {
    throw invalid("levelStore() needs a database of level or classic-level");
  }
  return new LevelStore(db, prefix);
}
