/** What reading and changing prices needs: connections, the cache, causal sessions. */
import { fencedCache } from "@leasehold/fence/cache";
import { postgresCausal } from "@leasehold/fence/causal";
import { Redis } from "ioredis";
import pg from "pg";
import { changeAside, changeFenced, priceAside, priceFenced } from "./products.mjs";

function pool(connectionString) {
  const made = new pg.Pool({ connectionString });
  made.on("error", () => {}); // an idle connection that broke is replaced
  return made;
}

/** `loaded` and `committed` are called where a process may be stopped or killed. */
export async function openShop({ how, from, fillMs, waitMs, ...addresses }, { loaded, committed }) {
  const primary = pool(addresses.primary);
  const replica = pool(addresses.replica);
  const redis = new Redis(addresses.redis);
  const tools = {
    ...{ redis, primary, source: from === "replica" ? replica : primary, loaded, committed },
    cache: fencedCache(redis, { ttlMs: 3_600_000, fillMs, waitMs }),
    causal: postgresCausal({ primary, replicas: [replica], waitMs: 300 }),
  };
  const price = { aside: priceAside, fenced: priceFenced }[how];
  const change = { aside: changeAside, fenced: changeFenced }[how];
  await Promise.all([primary.query("select 1"), redis.ping()]);
  return {
    prices: (ids) => Promise.all(ids.map((id) => price(tools, id))),
    changeAll: (ids, to) => Promise.all(ids.map((id) => change(tools, id, to))),
    async close() {
      redis.disconnect();
      await Promise.all([primary.end(), replica.end()]);
    },
  };
}
