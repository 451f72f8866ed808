import { redisFence } from "@leasehold/fence/redis";
import { Cluster, Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hashTag, slotOfKey } from "../../src/fence/redis/slots.js";
import { type RedisServer, startRedis } from "../services/redis.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive, permits } from "./locks.js";

const slot = (key: string) => slotOfKey(Buffer.from(key));
const refused = (code: string) => expect.objectContaining({ code });
/** A client that cannot be reached: whatever is sent to it would wait. */
const nobody = { evalsha: () => new Promise<never>(() => {}), eval: () => new Promise<never>(() => {}) };

describe("hash slots", () => {
  it("are those of the cluster specification", () => {
    expect(slot("123456789")).toBe(0x31c3); // its check value of the CRC
    expect(slot("foo{bar}{zap}")).toBe(slot("bar")); // and its examples of hash tags
    expect(slot("foo{{bar}}zap")).toBe(slot("{bar"));
    expect(slot("{user1000}.following")).toBe(slot("{user1000}.followers"));
    expect(slot("foo{}{bar}")).not.toBe(slot("bar"));
    expect(hashTag("foo{}{bar}")).toBe("foo{}{bar}");
  });
});

describe("the keys of a Redis fence", () => {
  const fence = redisFence(nobody, { cluster: true });

  it("have the tag that Redis would hash of the resource", () => {
    expect(fence.tag("orders/42")).toBe("orders/42");
    expect(fence.tag("{user:7}/cart")).toBe("user:7");
    expect(fence.tag("a{b")).toBe("a{b");
    expect(fence.tag("a}b%")).toBe("a%7Db%25");
    expect(fence.tag("{}x")).toBe("{%7Dx");
  });

  it("leave a tag between braces as it is meant, for any name", () => {
    for (const name of ["a", "{a}", "a}b", "{", "}", "{}", "}{", "{}{a}", "%7D", "a{b}c", "日本}🔒"]) {
      const tag = fence.tag(name);
      expect(hashTag(`{${tag}}:data`)).toBe(tag);
      expect(hashTag(`leasehold:fence:{${tag}}${name}`)).toBe(tag);
    }
  });

  const write = (key: string | Buffer, resource = "orders/42") => fence.set(exclusive(resource, 1), key, "v");
  it("refuse data of another slot in a cluster, and the fence's own keys, before anything is sent", async () => {
    await expect(write("orders/43")).rejects.toEqual(refused("INVALID"));
    await expect(write(Buffer.from("{orders/43}"))).rejects.toEqual(refused("INVALID"));
    await expect(write("{orders/42}:a", "{user:7}/cart")).rejects.toEqual(refused("INVALID"));
    await expect(fence.del(exclusive("a", 1), "a", "b")).rejects.toEqual(refused("INVALID"));
    await expect(write("leasehold:fence:{orders/42}")).rejects.toEqual(refused("INVALID"));
    await expect(write(Buffer.from("leasehold:fence:{orders/42}"))).rejects.toEqual(refused("INVALID"));
    await expect(write("")).rejects.toEqual(refused("INVALID"));
    await expect(write(7 as unknown as string)).rejects.toEqual(refused("INVALID"));
  });

  it("take the driver's key prefix into account", async () => {
    const prefixed = redisFence({ ...nobody, options: { keyPrefix: "app:" } } as typeof nobody, { cluster: true });
    await expect(prefixed.set(exclusive("orders/42", 1), "orders/42", "v")).rejects.toThrow("slot");
  });

  it("refuse a tag that cannot stand between braces", async () => {
    for (const tag of ["", "a}b", 7, undefined, "x".repeat(2_000)]) {
      const odd = redisFence(nobody, { tag: () => tag as string });
      await expect(odd.set(exclusive("a", 1), "a", "v")).rejects.toEqual(refused("INVALID"));
    }
  });

  it("and wrong options, at once", () => {
    const wrong: object[] = [
      { prefix: "" },
      { prefix: "a{b" },
      { prefix: 7 },
      { tag: "orders" },
      { cluster: 1 },
      { replicas: -1 },
      { replicas: "all" },
      { eviction: "allow" },
      { timeoutMs: 0 },
      { timeoutMS: 10 },
    ];
    for (const options of wrong) expect(() => redisFence(nobody, options)).toThrow(refused("INVALID"));
    for (const client of [null, undefined, {}, { eval: () => {} }, "redis://"]) {
      expect(() => redisFence(client as typeof nobody)).toThrow(refused("INVALID"));
    }
  });
});

describeWithServices("the keys of a fence in a Redis cluster", ["redis"], () => {
  let server: RedisServer;
  let client: Redis;
  beforeAll(async () => {
    server = await startRedis({ cluster: true });
    client = new Redis(server.url);
  });
  afterAll(async () => {
    client?.disconnect();
    await server?.stop();
  });

  it("are in the slots that the server says", async () => {
    const seed = Number(process.env.LEASEHOLD_SEED ?? 1 + Math.floor(Math.random() * 2 ** 31));
    let state = seed;
    const letters = ["{", "}", "a", "b", "%", ":", "é", "🔒"];
    for (let i = 0; i < 500; i++) {
      let key = "";
      do {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
        key += letters[(state >>> 16) % letters.length];
      } while ((state >>> 8) % 9 !== 0);
      expect(slot(key), `${key}, seed ${seed}`).toBe(await client.cluster("KEYSLOT", key));
    }
  });

  it("can be written together, and are one slot for all resources of a tag", async () => {
    const cluster = new Cluster([server.url], { keyPrefix: "app:" });
    try {
      const fence = redisFence(cluster, { tag: () => "shop" });
      await fence.set(exclusive("orders/42", 7), "{shop}orders/42", "paid");
      await fence.set(permits("stock", 8, 3), Buffer.from("{shop}stock/3"), 12);
      await expect(fence.set(exclusive("orders/42", 6), "{shop}x", "late")).rejects.toEqual(refused("STALE_TOKEN"));
      await expect(fence.set(exclusive("orders/42", 7), "orders/42", "v")).rejects.toEqual(refused("INVALID"));
      expect(await client.get("app:{shop}orders/42")).toBe("paid");
      expect(await client.get("app:leasehold:fence:{shop}orders/42")).toBe("7");
      expect(await client.get("app:leasehold:fence:{shop}stock#3")).toBe("8");
    } finally {
      cluster.disconnect();
    }
  });
});
