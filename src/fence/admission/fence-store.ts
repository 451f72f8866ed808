import { FenceError, invalid } from "../errors.js";
import type { Fence } from "../fence.js";
import type { HighWaterStore } from "./high-water.js";

/**
 * The floors of any other fence of the kit: those of PostgreSQL, MySQL, SQLite, Redis or etcd. They are the same floors: a
 * holder that raises them there is let in here, and whoever is stale there is stale here. So the handler can check once
 * more in its own transaction, with the same fence.
 *
 * @example
 * const orders = postgresFence(pool);
 * const fence = httpFence({ store: fenceStore(orders), resource: (req) => `orders${req.url}`, authorize });
 */
export function fenceStore(fence: Fence): HighWaterStore {
  if (typeof fence?.raise !== "function" || typeof fence.inspect !== "function" || typeof fence.reset !== "function") {
    throw invalid("fenceStore() needs a fence: an object with raise, inspect and reset");
  }
  const get = async (resource: string) => (await fence.inspect(resource)).floor;
  return {
    get,
    async raise(resource, token) {
      try {
        await fence.raise({ name: resource, token });
        return { ok: true, floor: token };
      } catch (error) {
        if (!FenceError.is(error, "STALE_TOKEN")) throw error;
        return { ok: false, floor: error.floor ?? (await get(resource)) };
      }
    },
    reset: (resource) => fence.reset(resource),
  };
}
