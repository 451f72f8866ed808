import { FenceError } from "../errors.js";
import { checkKeys, checkWhole } from "../token.js";
import type { HighWaterStore } from "./high-water.js";

const RESOURCES_MAX = 100_000;

export interface MemoryStoreOptions {
  /** How many resources it remembers at most. Default: 100,000. */
  readonly resourcesMax?: number | undefined;
}

/**
 * Floors in this process's memory. A restart forgets them, and a stale holder is then let in until its successor comes. For
 * tests, and for services whose state is in memory, too.
 *
 * When it is full it refuses new resources with LIMIT. It drops none: a floor that is forgotten lets old holders in.
 *
 * @example
 * const fence = httpFence({ store: memoryStore(), resource: (req) => `carts${req.url}`, authorize });
 */
export function memoryStore(options: MemoryStoreOptions = {}): HighWaterStore {
  checkKeys(options, ["resourcesMax"], "the options of memoryStore()");
  const resourcesMax = checkWhole(options.resourcesMax ?? RESOURCES_MAX, "resourcesMax", 1, 10_000_000);
  const floors = new Map<string, number>();
  return {
    async get(resource) {
      return floors.get(resource) ?? 0;
    },
    async raise(resource, token) {
      const floor = floors.get(resource);
      if (floor !== undefined && token <= floor) return { ok: token === floor, floor };
      if (floor === undefined && floors.size >= resourcesMax) {
        throw new FenceError("LIMIT", `the floors of ${resourcesMax} resources are remembered, and no more`, {
          resource,
        });
      }
      floors.set(resource, token);
      return { ok: true, floor: token };
    },
    async reset(resource) {
      floors.delete(resource);
    },
  };
}
