/** Prices in PostgreSQL, cached in Redis: as it is often done, and fenced. This is the file to read. */
import { fencedCache } from "@leasehold/fence/cache";

const TTL_MS = 60_000;
const SELECT = "select price from prices where id = $1";
const UPDATE = "update prices set price = $2 where id = $1";

const load = async (db, id) => (await db.query(SELECT, [id])).rows[0].price;

/** Read through, delete on write. A reader that was slow puts back what the writer has just deleted. */
export function cacheAside({ redis, db }) {
  return {
    async read(id, loaded) {
      const cached = await redis.get(`price:${id}`);
      if (cached !== null) return Number(cached);
      const price = await load(db, id);
      await loaded(price);
      await redis.set(`price:${id}`, price, "PX", TTL_MS);
      return price;
    },
    async write(id, price) {
      await db.query(UPDATE, [id, price]);
      await redis.del(`price:${id}`);
    },
  };
}

/** A miss hands out a lease to fill, to one reader; the writer revokes it, before its commit and after it. */
export function fenced({ redis, db }) {
  const cache = fencedCache(redis, { prefix: "prices:", ttlMs: TTL_MS, fillMs: 10_000, waitMs: 5_000 });
  return {
    read(id, loaded) {
      return cache.get(String(id), async () => {
        const price = await load(db, id);
        await loaded(price);
        return price;
      });
    },
    write: (id, price) => cache.around([String(id)], () => db.query(UPDATE, [id, price])),
  };
}
