/**
 * Causal sessions for Redis with replicas. A position is an offset in the primary's replication stream, with the id of that
 * stream. Redis replicates asynchronously, so:
 *
 * - A position is taken after the write, by `INFO` on the same connection: commands of a connection are done in order.
 * - It says that a replica has processed the stream up to there; that is all there is to applying it.
 * - A write that was acknowledged may be lost in a failover. The session cannot bring it back, nor tell.
 *
 * After a failover the new primary has a stream of its own id, which goes on where it had been:
 *
 *     stream A:  ---- 500 ---- 700
 *     stream B:       500 ---- 600 ----     (its second id: A, valid below 501)
 *
 * A position in A up to 500 is part of B's history and can be compared with offsets in B. One at 700 cannot: B has something
 * else there. That write is lost, and the session reads from the primary and goes on from its position.
 */
import { FenceError, invalid } from "../errors.js";
import type { CausalOptions } from "./options.js";
import { CausalSession } from "./session.js";
import { checkCausalOptions, Shared } from "./shared.js";
import type { Lent, Server, System } from "./system.js";

/** A connection to one server: `Redis` of `ioredis`, or `createClient()` of `redis`. Not a cluster. */
export interface RedisClient {
  info(section: string): Promise<unknown>;
}

export interface RedisCausalOptions<D extends RedisClient> extends CausalOptions {
  /** A connection to the primary, after a failover to the new one. */
  readonly primary: D;
  /** A connection to each replica. */
  readonly replicas: readonly D[];
}

export interface RedisPosition {
  /** The id of the replication stream. */
  readonly stream: string;
  readonly offset: bigint;
}

/** Where a server is. */
export interface RedisState extends RedisPosition {
  readonly primary: boolean;
  /** The stream of which this one was a continuation. */
  readonly earlier: string;
  /** The offset from which on the earlier stream does not belong to this history. */
  readonly earlierBelow: bigint;
}

const PATTERN = /^redis:([0-9a-f]{40}):(0|[1-9]\d{0,18})$/;
const OFFSET_MAX = 2n ** 63n - 1n;

function decode(text: string): RedisPosition | undefined {
  const [, stream, digits] = PATTERN.exec(text) ?? [];
  if (stream === undefined || digits === undefined || BigInt(digits) > OFFSET_MAX) return undefined;
  return { stream, offset: BigInt(digits) };
}

function stateOf(info: unknown): RedisState {
  const text = String(info);
  const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(text)?.[1] ?? "";
  const number = (name: string) => (/^-?\d{1,19}$/.test(field(name)) ? BigInt(field(name)) : undefined);
  const primary = field("role") === "master";
  const offset = number(primary ? "master_repl_offset" : "slave_repl_offset");
  const stream = field("master_replid");
  if (offset === undefined || !/^[0-9a-f]{40}$/.test(stream)) {
    throw new FenceError("UNREACHABLE", "Redis did not say where it is: INFO replication has no offset");
  }
  const earlierBelow = number("second_repl_offset") ?? -1n;
  return { primary, offset, stream, earlier: field("master_replid2"), earlierBelow };
}

class RedisServer<D extends RedisClient> implements Server<D, RedisState> {
  readonly db: D;

  constructor(db: D) {
    this.db = db;
  }

  lend(): Promise<Lent<D>> {
    return Promise.resolve({ db: this.db, release: () => {}, failed: () => Promise.resolve() });
  }

  async look(db: D): Promise<RedisState> {
    return stateOf(await db.info("replication"));
  }
}

/** Whoever asks while a question is on its way gets its answer: an offset only grows. A frozen replica thus has one. */
class RedisReplica<D extends RedisClient> extends RedisServer<D> {
  #asked: Promise<RedisState> | undefined;

  override look(db: D): Promise<RedisState> {
    this.#asked ??= super.look(db).finally(() => {
      this.#asked = undefined;
    });
    return this.#asked;
  }
}

class RedisSystem<D extends RedisClient> implements System<D, RedisState, RedisPosition> {
  readonly kind = "redis";
  readonly primary: RedisServer<D>;
  readonly replicas: readonly RedisServer<D>[];
  readonly decode = decode;

  constructor(primary: D, replicas: readonly D[]) {
    this.primary = new RedisServer(primary);
    this.replicas = replicas.map((db) => new RedisReplica(db));
  }

  readonly encode = ({ stream, offset }: RedisPosition): string => `redis:${stream}:${offset}`;

  readonly later = (a: RedisPosition, b: RedisPosition): RedisPosition | undefined => {
    if (a.stream !== b.stream) return undefined;
    return a.offset >= b.offset ? a : b;
  };

  readonly covers: System<D, RedisState, RedisPosition>["covers"] = (state, { stream, offset }) => {
    const shared = stream === state.stream || (stream === state.earlier && offset < state.earlierBelow);
    if (!shared) return "other";
    return state.offset >= offset ? "applied" : "behind";
  };

  readonly standby = ({ primary }: RedisState): boolean => !primary;
  readonly positionOf = ({ stream, offset }: RedisState): RedisPosition => ({ stream, offset });

  readonly supersedes = (): boolean => true; // ids have no order: the primary that is configured is the one that counts
}

/** The session of a user or a request. */
export class RedisSession<D extends RedisClient> extends CausalSession<D, RedisState, RedisPosition> {
  readonly #redis: RedisSystem<D>;

  /** Use `session()` of what `redisCausal` returned. */
  constructor(shared: Shared<D, RedisState, RedisPosition>, redis: RedisSystem<D>, position: string | undefined) {
    super(shared, position);
    this.#redis = redis;
  }

  /**
   * Runs `work` on the primary and takes the position behind it, in one more round trip. Rejects with what `work` throws;
   * what it had written then counts as written.
   *
   * @example
   * await session.write((db) => db.set("cart:7", "3 apples"));
   */
  async write<T>(work: (db: D) => Promise<T>): Promise<T> {
    try {
      return await work(this.#redis.primary.db);
    } finally {
      await this.noteWrite();
    }
  }

  /**
   * Takes note that something was written to the primary elsewhere. The question is sent in this very call, so behind all
   * commands that were sent before over the same connection; there is no need to wait for them first. Never rejects: if the
   * position cannot be had, the session reads from the primary until it can.
   *
   * @example
   * await Promise.all([redis.set("cart:7", "3 apples"), session.noteWrite()]); // one round trip
   */
  async noteWrite(): Promise<void> {
    this.doubt(); // reads that do not wait for this call are right, too
    const asked = this.asking();
    const { primary, positionOf } = this.#redis;
    try {
      const state = await primary.look(primary.db);
      if (state.primary) this.record(positionOf(state), asked);
    } catch {
      // the doubt remains
    }
  }
}

/** Makes sessions. */
export interface RedisCausal<D extends RedisClient> {
  /** `position`: the value of the header `Causal-Position`, or what another session's `position` was. Throws INVALID. */
  session(position?: string): RedisSession<D>;
}

/**
 * Reads from Redis replicas that never show less than what the session has written, as long as no failover has lost it.
 * Throws INVALID.
 *
 * @example
 * const causal = redisCausal({ primary: new Redis(6379), replicas: [new Redis(6380)] });
 * const session = causal.session(request.headers["causal-position"]);
 * const cart = await session.read((db) => db.get("cart:7"));
 */
export function redisCausal<D extends RedisClient>(options: RedisCausalOptions<D>): RedisCausal<D> {
  checkCausalOptions(options);
  for (const db of [options.primary, ...options.replicas]) {
    if (typeof db?.info !== "function" || (db as { readonly isCluster?: unknown }).isCluster === true) {
      throw invalid(
        "primary and replicas must be connections to one server each; in a cluster every shard has its stream",
      );
    }
  }
  const redis = new RedisSystem(options.primary, options.replicas);
  const shared = new Shared(redis, options);
  return { session: (position) => new RedisSession(shared, redis, position) };
}
