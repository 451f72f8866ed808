/** What the fence adds to writes in Redis, by each driver. */
import { redisFence } from "@leasehold/fence/redis";
import { Redis } from "ioredis";
import { createClient } from "redis";
import { startRedis } from "../../test/services/redis.mjs";

const LOCK = { name: "bench", token: 1_000_000 };
const VALUE = "x".repeat(100);

export async function open() {
  const server = await startRedis();
  const ioredis = new Redis(server.url);
  const nodeRedis = createClient({ url: server.url });
  await nodeRedis.connect();
  const byIoredis = redisFence(ioredis);
  const byNodeRedis = redisFence(nodeRedis);
  await byIoredis.raise(LOCK);
  await byNodeRedis.raise(LOCK);
  const fields = { a: VALUE, b: VALUE };
  return {
    rows: [
      {
        title: "Redis, set (ioredis)",
        plain: () => ioredis.set("bench", VALUE).then(() => {}),
        fenced: () => byIoredis.set(LOCK, "bench", VALUE),
      },
      {
        title: "Redis, hset (ioredis)",
        plain: () => ioredis.hset("bench/h", fields).then(() => {}),
        fenced: () => byIoredis.hset(LOCK, "bench/h", fields).then(() => {}),
      },
      {
        title: "Redis, set (node-redis)",
        plain: () => nodeRedis.set("bench", VALUE).then(() => {}),
        fenced: () => byNodeRedis.set(LOCK, "bench", VALUE),
      },
    ],
    async close() {
      ioredis.disconnect();
      nodeRedis.destroy();
      await server.stop();
    },
  };
}
