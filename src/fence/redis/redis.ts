/**
 * The fence for Redis and Valkey. Check, raise and write are one script, and one round trip:
 *
 *     GET floor -> higher than the token? refused : SET floor (if it is lower), and the write
 *
 * It is best effort: a failover may lose what was acknowledged, and with it the floor. A raise therefore waits for the
 * replicas, and servers that may evict floors are refused; see durability.ts for what remains. Data that must not take a
 * stale write whatever happens belongs into a system with synchronous replication.
 *
 * The first write under a token that this process has not raised yet raises it first, since a raise also waits for the
 * replicas and looks at the server's settings.
 */
import { invalid, show, stale } from "../errors.js";
import type { Fence, Floor } from "../fence.js";
import { type Fenced, type Hold, holdOf, holdsOf } from "../hold.js";
import { RaisedFloors } from "../raised.js";
import { checkKeys, checkResource, checkWhole, readToken } from "../token.js";
import { Answers, type Silence } from "./answers.js";
import {
  isReply,
  type RedisBytes,
  type RedisClient,
  type RedisPort,
  redisPort,
  replyList,
  replyText,
} from "./client.js";
import { checkEviction, parseReplication, replicated } from "./durability.js";
import { FenceKeys } from "./keys.js";
import {
  delScript,
  hsetScript,
  inspectScript,
  raiseScript,
  replicationScript,
  resetScript,
  setScript,
  userScript,
} from "./lua.js";
import type { Script } from "./script.js";

export type { IoredisClient, NodeRedisClient, RedisBytes, RedisClient } from "./client.js";

/** Keys and fields of one write: Lua takes at most about 8,000 arguments in one call. */
const KEYS_MAX = 1_000;
const ARGS_MAX = 4_000;
const SCRIPT_CHARS_MAX = 100_000;
/** Scripts of users whose text and hash are kept; a forgotten one is hashed again. */
const SCRIPTS_MAX = 200;
const TIMEOUT_MS_MAX = 600_000;
const OPTIONS = ["prefix", "tag", "cluster", "replicas", "eviction", "timeoutMs"];

export interface RedisFenceOptions {
  /** What the keys of floors begin with, without `{`. Default: `leasehold:fence:`. */
  readonly prefix?: string | undefined;
  /**
   * The hash tag of the floor's key, in a cluster: what the data's keys have between braces. Must yield the same in every
   * process. Default: what Redis would hash of the resource if it were a key.
   */
  readonly tag?: ((resource: string) => string) | undefined;
  /** Refuse keys that are in another hash slot than their floor, before anything is sent. Default: in a cluster. */
  readonly cluster?: boolean | undefined;
  /**
   * How many replicas must have acknowledged a floor before `raise` resolves; 0: none. Default: `"connected"`, all that are
   * connected at that moment, which may be none. (One that is still being sent its first copy can acknowledge nothing.)
   */
  readonly replicas?: number | "connected" | undefined;
  /**
   * A server that may evict keys without a time limit (`maxmemory` is set, and the policy begins with `allkeys-`) may
   * forget floors. Default: `"refuse"` it.
   */
  readonly eviction?: "refuse" | "accept" | undefined;
  /** How long an answer, and the acknowledgement of the replicas, may take. In milliseconds, default 5,000. */
  readonly timeoutMs?: number | undefined;
}

export interface RedisSetOptions {
  /** The value is gone after so many milliseconds. Default: it stays. */
  readonly ttlMs?: number | undefined;
}

export interface RedisScript {
  /** Lua, without a shebang line. It sees its own KEYS and ARGV. */
  readonly script: string;
  readonly keys?: readonly RedisBytes[] | undefined;
  readonly args?: readonly (RedisBytes | number)[] | undefined;
}

/**
 * Writes that are refused when their token is stale. All reject STALE_TOKEN (nothing was written), LOST and INVALID
 * (nothing was sent), OUTCOME_UNKNOWN (no answer came), and what Redis answered if that was an error.
 */
export interface RedisFence extends Fence {
  /** SET. */
  set(lock: Fenced, key: RedisBytes, value: RedisBytes | number, options?: RedisSetOptions): Promise<void>;
  /** DEL of at most 1,000 keys. Resolves with how many there were. */
  del(lock: Fenced, ...keys: RedisBytes[]): Promise<number>;
  /** HSET of at most 1,000 fields. Resolves with how many are new. */
  hset(lock: Fenced, key: RedisBytes, fields: Readonly<Record<string, RedisBytes | number>>): Promise<number>;
  /**
   * Runs a script if the token stands, in one step with the check. Resolves with the script's reply. Redis does not roll
   * back: what a script wrote before an error stays.
   *
   * @example
   * const left = await fence.run(lock, { script: "return redis.call('decrby', KEYS[1], ARGV[1])", keys: ["stock"], args: [2] });
   */
  run(lock: Fenced, script: RedisScript): Promise<unknown>;
  /** In a cluster: keys that contain `{${fence.tag(resource)}}` can be written under this resource. */
  tag(resource: string): string;
}

/**
 * A fence for Redis or Valkey, by a client of ioredis or node-redis that the caller connects and closes. It must lead to
 * the primary. Throws INVALID for wrong options.
 *
 * @example
 * const fence = redisFence(new Redis());
 * await client.withLock("orders/42", { fence }, async (lock) => {
 *   await fence.set(lock, "orders/42", "paid");
 * });
 */
export function redisFence(client: RedisClient, options: RedisFenceOptions = {}): RedisFence {
  return new ScriptedFence(redisPort(client), options);
}

class ScriptedFence implements RedisFence {
  readonly #redis: RedisPort;
  readonly #keys: FenceKeys;
  readonly #replicas: number | undefined;
  readonly #refuseEviction: boolean;
  readonly #timeoutMs: number;
  readonly #answers: Answers;
  readonly #raised = new RaisedFloors();
  /** Slots whose server has been looked at; without a cluster there is one. */
  readonly #checkedSlots = new Set<number>();
  readonly #scripts = new Map<string, Script>();

  constructor(redis: RedisPort, options: RedisFenceOptions) {
    checkKeys(options, OPTIONS, "the options of a Redis fence");
    const { prefix = "leasehold:fence:", tag, cluster = redis.cluster, timeoutMs = 5_000 } = options;
    const { replicas = "connected", eviction = "refuse" } = options;
    if (typeof cluster !== "boolean") throw invalid(`cluster must be true or false, not ${show(cluster)}`);
    if (eviction !== "refuse" && eviction !== "accept") {
      throw invalid(`eviction must be "refuse" or "accept", not ${show(eviction)}`);
    }
    this.#redis = redis;
    this.#keys = new FenceKeys({ prefix, tag, cluster, keyPrefix: redis.keyPrefix });
    this.#replicas = replicas === "connected" ? undefined : checkWhole(replicas, "replicas", 0, 100);
    this.#refuseEviction = eviction === "refuse";
    this.#timeoutMs = checkWhole(timeoutMs, "timeoutMs", 1, TIMEOUT_MS_MAX);
    this.#answers = new Answers(timeoutMs);
  }

  async raise(lock: Fenced): Promise<void> {
    const holds = holdsOf(lock);
    for (const hold of holds) hold.token; // throws LOST, before anything is sent for any of them
    const outcomes = await Promise.allSettled(holds.map((hold) => this.#raise(hold)));
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  }

  async inspect(resource: string): Promise<Floor> {
    const key = this.#keys.floor(checkResource(resource));
    const what = `what the floor of ${show(resource)} is`;
    const reply = await this.#send(inspectScript, [key], [], () => ({ code: "UNREACHABLE", what, resource }));
    return { resource, floor: readToken(replyText(reply)) };
  }

  async reset(resource: string): Promise<void> {
    const key = this.#keys.floor(checkResource(resource));
    this.#raised.forget(resource);
    const what = `whether the floor of ${show(resource)} has been reset`;
    await this.#send(resetScript, [key], [], () => ({ code: "UNREACHABLE", what, resource }));
  }

  async set(lock: Fenced, key: RedisBytes, value: RedisBytes | number, options: RedisSetOptions = {}): Promise<void> {
    checkKeys(options, ["ttlMs"], "the options of set");
    const { ttlMs } = options;
    const args = [argument(value)];
    if (ttlMs !== undefined) args.push(String(checkWhole(ttlMs, "ttlMs", 1, Number.MAX_SAFE_INTEGER)));
    await this.#write(lock, setScript, [key], args);
  }

  async del(lock: Fenced, ...keys: RedisBytes[]): Promise<number> {
    if (keys.length === 0) throw invalid("del needs a key");
    return Number(await this.#write(lock, delScript, keys, []));
  }

  async hset(lock: Fenced, key: RedisBytes, fields: Readonly<Record<string, RedisBytes | number>>): Promise<number> {
    if (typeof fields !== "object" || fields === null) throw invalid(`fields must be an object, not ${show(fields)}`);
    const pairs = Object.entries(fields);
    if (pairs.length === 0 || pairs.length > KEYS_MAX) throw invalid(`hset takes 1 to ${KEYS_MAX} fields`);
    const args = pairs.flatMap(([field, value]) => [field, argument(value)]);
    return Number(await this.#write(lock, hsetScript, [key], args));
  }

  async run(lock: Fenced, script: RedisScript): Promise<unknown> {
    checkKeys(script, ["script", "keys", "args"], "the properties of a script");
    const { script: text, keys = [], args = [] } = script;
    if (!Array.isArray(keys) || !Array.isArray(args)) throw invalid("the keys and args of a script must be arrays");
    return this.#write(lock, this.#userScript(text), keys, args.map(argument));
  }

  tag(resource: string): string {
    return this.#keys.tag(checkResource(resource));
  }

  async #write(lock: Fenced, script: Script, keys: readonly RedisBytes[], args: RedisBytes[]): Promise<unknown> {
    const hold = holdOf(lock);
    hold.token; // throws LOST
    if (keys.length > KEYS_MAX) throw invalid(`at most ${KEYS_MAX} keys can be written at once, not ${keys.length}`);
    if (args.length > ARGS_MAX) throw invalid(`at most ${ARGS_MAX} arguments are possible, not ${args.length}`);
    const floorKey = this.#keys.floor(hold.resource);
    this.#keys.check(keys, floorKey);
    if (!this.#isPrepared(hold, floorKey)) await this.#raise(hold);
    const { resource, raises, token } = hold;
    const reply = await this.#send(script, [floorKey, ...keys], [String(token), raises ? "1" : "0", ...args], () => ({
      code: "OUTCOME_UNKNOWN",
      what: `whether the write of ${show(resource)} under the token ${token} has happened`,
      resource,
      token,
    }));
    return Array.isArray(reply) ? (passed(reply, resource, token)[0] ?? null) : reply;
  }

  /** Whether nothing is left to be done but the write, which checks and raises by itself. */
  #isPrepared(hold: Hold, floorKey: string): boolean {
    if (hold.raises) return this.#raised.has(hold.resource, hold.token);
    return this.#checkedSlots.has(this.#serverOf(floorKey));
  }

  /** In a cluster each slot may have another server. */
  #serverOf(floorKey: string): number {
    return this.#redis.cluster ? this.#keys.slot(floorKey) : 0;
  }

  async #raise(hold: Hold): Promise<void> {
    const { resource, raises, token } = hold;
    const key = this.#keys.floor(resource);
    const replicate = raises && this.#replicas !== 0;
    const args = [String(token), raises ? "1" : "0", replicate ? "1" : "0", this.#refuseEviction ? "1" : "0"];
    const what = `whether the floor of ${show(resource)} has been raised to ${token}`;
    const silence = (): Silence => ({ code: "UNREACHABLE", what, resource, token });
    const [replication, memory] = passed(await this.#send(raiseScript, [key], args, silence), resource, token);
    if (this.#refuseEviction) checkEviction(replyText(memory));
    if (replicate) await this.#replicated(key, replyText(replication), silence, { resource, token });
    if (raises) this.#raised.add(resource, token);
    this.#checkedSlots.add(this.#serverOf(key));
  }

  #replicated(
    key: string,
    mark: string,
    silence: () => Silence,
    of: { resource: string; token: number },
  ): Promise<void> {
    const slot = this.#keys.slot(key);
    return replicated(parseReplication(mark), {
      ...of,
      wanted: this.#replicas,
      timeoutMs: this.#timeoutMs,
      replication: async () => parseReplication(replyText(await this.#send(replicationScript, [key], [], silence))),
      hurry: (replicas, timeoutMs) =>
        this.#answers.within(this.#redis.wait(key, slot, replicas, timeoutMs), silence).catch((error) => {
          if (!isReply(error)) throw error; // an answer, such as that WAIT is not permitted, only makes it slower
        }),
    });
  }

  #send(script: Script, keys: RedisBytes[], args: RedisBytes[], silence: () => Silence): Promise<unknown> {
    return this.#answers.within(script.run(this.#redis, keys, args), silence);
  }

  #userScript(text: unknown): Script {
    if (typeof text !== "string" || text.trim() === "" || text.length > SCRIPT_CHARS_MAX) {
      throw invalid(`a script must be text of 1 to ${SCRIPT_CHARS_MAX} characters`);
    }
    if (text.startsWith("#!")) throw invalid("a script that is run under a fence has no shebang line");
    let script = this.#scripts.get(text);
    if (script !== undefined) return script;
    script = userScript(text);
    this.#scripts.set(text, script);
    for (const oldest of this.#scripts.keys()) {
      if (this.#scripts.size > SCRIPTS_MAX) this.#scripts.delete(oldest);
      else break;
    }
    return script;
  }
}

/** Text, bytes or a number as an argument of a command. Throws INVALID. */
function argument(value: unknown): RedisBytes {
  if (typeof value === "string" || Buffer.isBuffer(value)) return value;
  if (typeof value === "number" && Number.isFinite(value)) return String(value);
  throw invalid(`a value must be text, a Buffer or a finite number, not ${show(value)}`);
}

/** What a script replied behind its check. Throws STALE_TOKEN, and INVALID for a floor that is none. */
function passed(reply: unknown, resource: string, token: number): readonly unknown[] {
  const [kind, ...rest] = replyList(reply);
  if (kind === "1") return rest;
  const floor = replyText(rest[0]);
  if (kind === "0") throw stale(resource, token, readToken(floor));
  throw invalid(`the floor of ${show(resource)} is ${show(floor)}, which is no token: nothing was written`);
}
