/** What the fenced cache costs beside plain commands of Redis: a hit, and a change, which has two phases instead of one. */
import { fencedCache } from "@leasehold/fence/cache";
import { Redis } from "ioredis";
import { startRedis } from "../../test/services/redis.mjs";

const VALUE = { name: "Anna", orders: Array.from({ length: 10 }, (_, i) => i) };

export async function open() {
  const server = await startRedis();
  const redis = new Redis(server.url);
  const cache = fencedCache(redis, { ttlMs: 3_600_000 });
  const load = () => VALUE;
  const commit = async () => {};
  await redis.set("plain", JSON.stringify(VALUE));
  return {
    rows: [
      {
        title: "cache, a hit",
        plain: async () => void JSON.parse(await redis.get("plain")),
        fenced: async () => void (await cache.get("hit", load)),
      },
      {
        title: "cache, a change (two DELs; mark and finish)",
        async plain() {
          await redis.del("changed");
          await commit();
          await redis.del("changed");
        },
        fenced: () => cache.around(["changed"], commit),
      },
    ],
    async close() {
      redis.disconnect();
      await server.stop();
    },
  };
}
