/** Redis for the conformance suite: by each driver, alone and in a cluster, and with scripts that are broken on purpose. */

import { type Fenced, holdOf } from "@leasehold/fence";
import { type RedisClient, type RedisFence, type RedisFenceOptions, redisFence } from "@leasehold/fence/redis";
import { Cluster, Redis } from "ioredis";
import { createClient, createCluster } from "redis";
import type { RedisServer } from "../services/redis.mjs";
import type { Subject } from "./conformance.js";
import { startHolder } from "./holder.js";

/** What the tests need of a driver. */
export interface Driver {
  readonly name: string;
  readonly cluster: boolean;
  connect(url: string): Promise<Connected>;
}

export interface Connected {
  readonly client: RedisClient;
  get(key: string): Promise<string | null>;
  set(key: string, value: string): Promise<unknown>;
  close(): Promise<void>;
}

/** Reads and writes without a fence. */
const plain = (client: {
  get(key: string): Promise<string | null>;
  set(key: string, value: string): Promise<unknown>;
}) => ({
  get: (key: string) => client.get(key),
  set: (key: string, value: string) => client.set(key, value),
});

// In each of them the client is passed on as the driver types it: that it fits is a part of the test.
async function ioredis(url: string): Promise<Connected> {
  const client = new Redis(url);
  return { client, ...plain(client), close: async () => client.disconnect() };
}

async function ioredisCluster(url: string): Promise<Connected> {
  const client = new Cluster([url]);
  return { client, ...plain(client), close: async () => client.disconnect() };
}

async function nodeRedis(url: string): Promise<Connected> {
  const client = createClient({ url });
  client.on("error", () => {}); // the driver reports broken connections so, and throws where nobody listens
  await client.connect();
  return { client, ...plain(client), close: async () => client.destroy() };
}

async function nodeRedisCluster(url: string): Promise<Connected> {
  const client = createCluster({ rootNodes: [{ url }] });
  client.on("error", () => {});
  await client.connect();
  return { client, ...plain(client), close: async () => client.destroy() };
}

export const drivers: readonly Driver[] = [
  { name: "ioredis", cluster: false, connect: ioredis },
  { name: "node-redis", cluster: false, connect: nodeRedis },
  { name: "ioredis cluster", cluster: true, connect: ioredisCluster },
  { name: "node-redis cluster", cluster: true, connect: nodeRedisCluster },
];

/** Changes the text of a script before it is sent. */
export type Rewrite = (script: string) => string;

interface Tapped {
  evalsha?: (...args: unknown[]) => Promise<unknown>;
  evalSha?: (...args: unknown[]) => Promise<unknown>;
  eval: (...args: unknown[]) => Promise<unknown>;
}

/** Counts the scripts that a client sends, and with `rewrite` changes each. */
export function tap(client: RedisClient, rewrite?: Rewrite): { sent: number } {
  const tapped = client as unknown as Tapped;
  const count = { sent: 0 };
  const evalSha = tapped.evalSha ? "evalSha" : "evalsha";
  const original = { evalSha: tapped[evalSha]?.bind(client), eval: tapped.eval.bind(client) };
  tapped[evalSha] = async (...args) => {
    count.sent++;
    if (rewrite) throw new Error("NOSCRIPT so that the text is sent");
    return original.evalSha?.(...args);
  };
  tapped.eval = async (script, ...args) => {
    count.sent++;
    return original.eval(rewrite ? rewrite(script as string) : script, ...args);
  };
  return count;
}

/** Replaces a piece of a script. Fails when it is not there: the test would break nothing. */
export const replacing =
  (from: string, to: string): Rewrite =>
  (script) =>
    script.replace(from, () => {
      replaced.add(from);
      return to;
    });
/** Which pieces have been replaced at least once. */
export const replaced = new Set<string>();

/** The register of a resource, in its slot. */
export const registerKey = (fence: RedisFence, resource: string) => `{${fence.tag(resource)}}:register`;

const holderModule = new URL("./holders/redis.mjs", import.meta.url).href;

export async function redisSubject(
  server: RedisServer,
  driver: Driver,
  rewrite?: Rewrite,
  options?: RedisFenceOptions,
): Promise<Subject> {
  const connected = await driver.connect(server.url);
  const count = tap(connected.client, rewrite);
  const fence = redisFence(connected.client, options);
  const key = (by: Fenced) => registerKey(fence, holdOf(by).resource);
  const config = { url: server.url, driver: driver.name };
  return {
    fence,
    write: async (by, value) => fence.set(by, key(by), value),
    read: async (resource) => (await connected.get(registerKey(fence, resource))) ?? undefined,
    async recreate(by) {
      await fence.del(by, key(by));
      await connected.set(key(by), "made anew");
    },
    sent: () => count.sent,
    holder: (name, token, remainingMs, value) => startHolder(holderModule, config, name, token, remainingMs, value),
    close: connected.close,
  };
}
