/**
 * The two drivers that are in use, as one: ioredis (a client or a Cluster) and node-redis (a client, a pool, a sentinel or
 * a cluster). They are told apart by the names of their methods, and described by what is used of them.
 */
import { FenceError, invalid } from "../errors.js";

/** A key or a value as Redis has it: bytes. */
export type RedisBytes = string | Buffer;

/** An ioredis client: `new Redis()` or `new Redis.Cluster()`. */
export interface IoredisClient {
  evalsha(sha: string, keyCount: number, ...keysAndArgs: RedisBytes[]): Promise<unknown>;
  eval(script: string, keyCount: number, ...keysAndArgs: RedisBytes[]): Promise<unknown>;
}

/** A client of the package `redis`: of `createClient`, `createClientPool`, `createSentinel` or `createCluster`. */
export interface NodeRedisClient {
  evalSha(sha: string, options: { keys: RedisBytes[]; arguments: RedisBytes[] }): Promise<unknown>;
  eval(script: string, options: { keys: RedisBytes[]; arguments: RedisBytes[] }): Promise<unknown>;
}

export type RedisClient = IoredisClient | NodeRedisClient;

/** A driver, without its peculiarities. */
export interface RedisPort {
  readonly cluster: boolean;
  /** What the driver puts before every key, which the hash slot depends on. */
  readonly keyPrefix: Buffer;
  evalSha(sha: string, keys: RedisBytes[], args: RedisBytes[]): Promise<unknown>;
  eval(script: string, keys: RedisBytes[], args: RedisBytes[]): Promise<unknown>;
  /**
   * Sends WAIT to the server that has the key, where the driver has a way to. Only to hurry the replicas: its answer is
   * about one connection, and drivers have several, or a new one without a word.
   */
  wait(key: string, slot: number, replicas: number, timeoutMs: number): Promise<unknown>;
}

/** What else is used where it is there. */
interface Extras {
  readonly isCluster?: unknown;
  readonly options?: { readonly keyPrefix?: unknown } | undefined;
  readonly _options?: { readonly keyPrefix?: unknown } | undefined;
  /** The addresses of the primary and its replicas (ioredis). */
  readonly slots?: readonly (readonly string[] | undefined)[] | undefined;
  nodes?(role: "master"): readonly IoredisNode[];
  readonly nodeClient?: unknown;
  getNodeClientForKey?(key: string): Promise<Extras>;
  sendCommand?(args: string[]): Promise<unknown>;
  call?(command: string, ...args: string[]): Promise<unknown>;
}

interface IoredisNode {
  readonly options: { readonly host?: string | undefined; readonly port?: number | undefined };
  call(command: string, ...args: string[]): Promise<unknown>;
}

function keyPrefixOf(client: Extras): Buffer {
  const prefix = client.options?.keyPrefix ?? client._options?.keyPrefix ?? "";
  return Buffer.isBuffer(prefix) ? prefix : Buffer.from(String(prefix));
}

function ioredisPort(client: IoredisClient & Extras): RedisPort {
  const cluster = client.isCluster === true;
  return {
    cluster,
    keyPrefix: keyPrefixOf(client),
    evalSha: (sha, keys, args) => client.evalsha(sha, keys.length, ...keys, ...args),
    eval: (script, keys, args) => client.eval(script, keys.length, ...keys, ...args),
    async wait(_key, slot, replicas, timeoutMs) {
      const address = client.slots?.[slot]?.[0];
      const isOwner = ({ options }: IoredisNode) => `${options.host}:${options.port}` === address;
      const server = cluster ? client.nodes?.("master").find(isOwner) : client;
      return server?.call?.("wait", String(replicas), String(timeoutMs));
    },
  };
}

function nodeRedisPort(client: NodeRedisClient & Extras): RedisPort {
  const cluster = client.nodeClient !== undefined;
  return {
    cluster,
    keyPrefix: keyPrefixOf(client),
    evalSha: (sha, keys, args) => client.evalSha(sha, { keys, arguments: args }),
    eval: (script, keys, args) => client.eval(script, { keys, arguments: args }),
    async wait(key, _slot, replicas, timeoutMs) {
      if ("getSentinelNode" in client) return undefined; // it takes other arguments, and chooses a connection each time
      const server = cluster ? await client.getNodeClientForKey?.(key) : client;
      return server?.sendCommand?.(["WAIT", String(replicas), String(timeoutMs)]);
    },
  };
}

/** Throws INVALID unless it is a client of one of the two drivers. */
export function redisPort(client: RedisClient): RedisPort {
  if (typeof client === "object" && client !== null && "eval" in client) {
    if ("evalSha" in client) return nodeRedisPort(client);
    if ("evalsha" in client) return ioredisPort(client);
  }
  throw invalid("a client of ioredis or of node-redis is needed");
}

/**
 * Whether an error is an answer of Redis, so that it is known what came of the command. Drivers have a class for those;
 * and the protocol has a code before the text, in capitals (https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors),
 * for drivers whose class names were shortened by a bundler.
 */
export function isReply(error: unknown): error is Error {
  if (!(error instanceof Error)) return false;
  if (error.name === "ReplyError") return true; // ioredis
  for (let type = Object.getPrototypeOf(error); type !== null; type = Object.getPrototypeOf(type)) {
    if (type.constructor?.name === "ErrorReply") return true; // node-redis
  }
  return /^[A-Z][A-Z0-9]+ /.test(error.message);
}

/** The code of an answer that is an error, such as `NOSCRIPT` or `WRONGTYPE`. */
export const replyCode = (error: Error): string => error.message.split(" ", 1)[0] ?? "";

/** Text, however the driver was told to deliver it. */
export function replyText(reply: unknown): string {
  if (typeof reply === "string") return reply;
  if (Buffer.isBuffer(reply)) return reply.toString();
  if (typeof reply === "number" || typeof reply === "bigint") return String(reply);
  throw new FenceError("INVALID", `Redis, or what stands before it, replied ${typeof reply} where text was expected`);
}

/** A list, of which the first element says what kind of reply it is. */
export function replyList(reply: unknown): readonly [kind: string, ...rest: unknown[]] {
  if (Array.isArray(reply) && reply.length > 0) return [replyText(reply[0]), ...reply.slice(1)];
  throw new FenceError("INVALID", `Redis, or what stands before it, replied ${typeof reply} where a list was expected`);
}
