/** A reader that stands still with its lease to fill, or a writer between its commit and its end. See holder-process.mjs. */
import { fencedCache } from "@leasehold/fence/cache";
import { Redis } from "ioredis";

export async function open({ url, options, writes }) {
  const redis = new Redis(url);
  const cache = fencedCache(redis, options);
  return async ({ name: key }, value, inside) => {
    if (writes) {
      await cache.around([key], async () => {
        await redis.set(`source/${key}`, value);
        await inside();
      });
      return;
    }
    const { filled } = await cache.read(key, async () => {
      const read = await redis.get(`source/${key}`);
      await inside();
      return read;
    });
    if (!filled) throw Object.assign(new Error("the fill was refused"), { code: "REFUSED" });
  };
}
