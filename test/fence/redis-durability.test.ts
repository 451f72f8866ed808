/** What is done so that a floor survives, and what comes of it: replicas, eviction, `kill -9`. */
import { type RedisFence, redisFence } from "@leasehold/fence/redis";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RedisServer, startRedis } from "../services/redis.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive, shared } from "./locks.js";
import { drivers } from "./redis-clients.js";

const refused = (code: string) => expect.objectContaining({ code });
const ROUNDS = Number(process.env.LEASEHOLD_KILL_ROUNDS ?? 5);
/** For a raise that is expected to fail. */
const SHORT_MS = 600;

async function withClient<T>(url: string, use: (client: Redis) => Promise<T>): Promise<T> {
  const client = new Redis(url);
  client.on("error", () => {});
  try {
    return await use(client);
  } finally {
    client.disconnect();
  }
}

describeWithServices("a Redis fence and replicas", ["redis"], () => {
  let server: RedisServer & { replica: RedisServer | undefined };
  let replica: RedisServer;
  beforeAll(async () => {
    server = await startRedis({ replica: true });
    replica = server.replica as RedisServer;
  });
  afterAll(() => server?.stop());

  for (const driver of drivers.filter((one) => !one.cluster)) {
    it(`a raise waits for the replica (${driver.name})`, async () => {
      const name = `waits/${driver.name}`;
      const { client, close } = await driver.connect(server.url);
      const fence = redisFence(client, { timeoutMs: SHORT_MS });
      try {
        const patient = redisFence(client);
        for (let token = 1; token <= 20; token++) {
          await patient.raise(exclusive(name, token));
          expect(await replica.command(`GET leasehold:fence:{${name}}`)).toContain(`\r\n${token}\r\n`);
        }
        replica.pause();
        const unreachable = { code: "UNREACHABLE", resource: name, token: 30, retryable: true };
        await expect(fence.raise(exclusive(name, 30))).rejects.toMatchObject(unreachable);
        await expect(fence.raise(exclusive(name, 30)), "again").rejects.toMatchObject(unreachable);
        await expect(fence.set(exclusive(name, 30), name, "v"), "a write").rejects.toMatchObject(unreachable);
        await redisFence(client, { replicas: 0 }).set(exclusive(name, 30), name, "by one who does not ask");
        await fence.raise(shared(name, 31)); // has nothing to wait for
        replica.resume();
        await patient.raise(exclusive(name, 30));
      } finally {
        replica.resume();
        await close();
      }
    });
  }

  it("a raise wants as many as are asked for", async () => {
    await withClient(server.url, async (client) => {
      await redisFence(client, { replicas: 1 }).raise(exclusive("one", 1));
      const two = redisFence(client, { replicas: 2, timeoutMs: SHORT_MS });
      await expect(two.raise(exclusive("two", 1))).rejects.toThrow(/floor not on replicas.*1 of 2/);
    });
  });

  it("a replica that is still waiting for its first copy counts, too", async () => {
    const newcomer = await startRedis();
    try {
      await server.command("CONFIG SET repl-diskless-sync-delay 600"); // the primary waits for more of them before it copies
      await newcomer.command(`REPLICAOF 127.0.0.1 ${server.port}`);
      await expect.poll(() => server.command("INFO replication")).toMatch(/connected_slaves:2[\s\S]*wait_bgsave/);
      await withClient(server.url, async (client) => {
        const fence = redisFence(client, { timeoutMs: SHORT_MS });
        await expect(fence.raise(exclusive("newcomer", 1))).rejects.toThrow("1 of 2 have acknowledged");
        await redisFence(client, { replicas: 1 }).raise(exclusive("newcomer", 1));
      });
    } finally {
      await newcomer.stop();
      await server.command("CONFIG SET repl-diskless-sync-delay 0");
      await expect.poll(() => server.command("INFO replication")).toContain("connected_slaves:1");
    }
  });

  it("the answer of WAIT on another connection, as a pool has, does not pass for an acknowledgement", async () => {
    await withClient(server.url, async (other) => {
      await other.set("earlier", 1);
      await expect.poll(() => other.wait(1, 100)).toBe(1);
      await withClient(server.url, async (client) => {
        const answers: unknown[] = [];
        client.call = (async (...args: [string, ...string[]]) => {
          answers.push(await other.call(...args));
        }) as unknown as typeof client.call;
        replica.pause();
        try {
          const fence = redisFence(client, { timeoutMs: SHORT_MS });
          await expect(fence.raise(exclusive("pooled", 5))).rejects.toEqual(refused("UNREACHABLE"));
        } finally {
          replica.resume();
        }
        expect(answers[0], "the trap is one").toBe(1);
      });
    });
  });

  it("a primary that is none any more when the answer comes is told from one that is", async () => {
    await withClient(server.url, async (client) => {
      const fence = redisFence(client);
      client.call = (async () => {
        await server.command(`REPLICAOF 127.0.0.1 ${replica.port}`); // both follow each other now: nobody is a primary
      }) as unknown as typeof client.call;
      replica.pause();
      try {
        await expect(fence.raise(exclusive("deposed", 5))).rejects.toThrow("another server has become the primary");
      } finally {
        await server.command("REPLICAOF NO ONE");
        replica.resume();
      }
    });
  });

  it("a floor survives the failover that its raise has waited for", async () => {
    const own = await startRedis({ replica: true });
    try {
      await withClient(own.url, async (client) => {
        const fence = redisFence(client);
        await fence.set(exclusive("failover", 33), "failover", "v33");
        await fence.raise(exclusive("failover", 34));
      });
      await own.kill9();
      const heir = own.replica as RedisServer;
      await heir.command("REPLICAOF NO ONE");
      await withClient(heir.url, async (client) => {
        const fence = redisFence(client);
        expect((await fence.inspect("failover")).floor).toBe(34);
        const late = fence.set(exclusive("failover", 33), "failover", "late");
        await expect(late).rejects.toMatchObject({ code: "STALE_TOKEN", floor: 34 });
        await fence.set(exclusive("failover", 34), "failover", "v34");
      });
    } finally {
      await own.stop();
    }
  });
});

describeWithServices("a Redis fence hurries the replicas by WAIT", ["redis"], () => {
  for (const driver of drivers) {
    it(`by ${driver.name}`, async () => {
      const server = await startRedis({ cluster: driver.cluster });
      const { client, close } = await driver.connect(server.url);
      try {
        const fence = redisFence(client, { replicas: 1, timeoutMs: SHORT_MS });
        await expect(fence.raise(exclusive("hurried", 1))).rejects.toThrow("0 of 1 have acknowledged");
        expect(await server.command("INFO commandstats")).toMatch(/cmdstat_wait:calls=\d/);
      } finally {
        await close();
        await server.stop();
      }
    });
  }
});

describeWithServices("a Redis fence and eviction", ["redis"], () => {
  const open = (policy: string, maxmemory: string) =>
    startRedis({ settings: { maxmemory, "maxmemory-policy": policy } });

  async function withServer(policy: string, maxmemory: string, use: (client: Redis) => Promise<void>): Promise<void> {
    const server = await open(policy, maxmemory);
    try {
      await withClient(server.url, use);
    } finally {
      await server.stop();
    }
  }

  /** Writes until the memory is full several times over, or the floor is gone. */
  async function floorAfterCrowd(client: Redis, fence: RedisFence): Promise<number> {
    const value = "x".repeat(20_000);
    for (let batch = 0; batch < 40; batch++) {
      const keys = Array.from({ length: 50 }, (_, i) => `crowd/${batch}/${i}`);
      await Promise.all(keys.map((key) => client.set(key, value, "EX", 1_000)));
      if ((await fence.inspect("evicted")).floor === 0) return 0;
    }
    return (await fence.inspect("evicted")).floor;
  }

  describe("a server that may evict any key", () => {
    it("is refused by whatever comes first, until its setting is mended", async () => {
      await withServer("allkeys-lru", "8mb", async (client) => {
        const fence = redisFence(client);
        await expect(fence.raise(exclusive("evicted", 5))).rejects.toThrow(/allkeys-lru/);
        await expect(fence.set(exclusive("evicted", 5), "k", "v")).rejects.toEqual(refused("INVALID"));
        await expect(fence.set(shared("evicted", 5), "k", "v")).rejects.toEqual(refused("INVALID"));
        expect(await client.exists("k")).toBe(0);
        await client.config("SET", "maxmemory-policy", "noeviction");
        await fence.set(exclusive("evicted", 5), "k", "v");
      });
    });

    it("is one that has forgotten a floor, if that is accepted", async () => {
      await withServer("allkeys-random", "8mb", async (client) => {
        const fence = redisFence(client, { eviction: "accept" });
        await fence.raise(exclusive("evicted", 5));
        expect(await floorAfterCrowd(client, fence)).toBe(0);
      });
    });
  });

  it("a server that evicts only keys with a time limit keeps the floor", async () => {
    await withServer("volatile-random", "8mb", async (client) => {
      const fence = redisFence(client);
      await fence.raise(exclusive("evicted", 5));
      expect(await floorAfterCrowd(client, fence)).toBe(5);
      expect(await client.info("stats")).toMatch(/evicted_keys:[1-9]/);
    });
  });

  it("a policy without a limit of memory evicts nothing", async () => {
    await withServer("allkeys-lru", "0", async (client) => {
      await redisFence(client).raise(exclusive("evicted", 5));
    });
  });

  it("who may not ask for INFO is told, and can do without", async () => {
    await withServer("noeviction", "0", async (client) => {
      await client.acl("SETUSER", "app", "on", ">secret", "~*", "+@all", "-info", "-wait");
      const app = new Redis({
        port: client.options.port as number,
        username: "app",
        password: "secret",
        enableReadyCheck: false,
      });
      try {
        await expect(redisFence(app).raise(exclusive("a", 1))).rejects.toThrow(/permission|can't run this command/);
        const fence = redisFence(app, { eviction: "accept", replicas: 0 });
        await fence.set(exclusive("a", 2), "a", "v");
        expect((await fence.inspect("a")).floor).toBe(2);
      } finally {
        app.disconnect();
      }
    });
  });
});

describeWithServices("a Redis fence and kill -9 of Redis", ["redis"], () => {
  it(`floor and data are consistent, and nothing acknowledged is lost (${ROUNDS} rounds)`, async () => {
    const server = await startRedis({ appendonly: true });
    let token = 0;
    let acknowledged = 0;
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const client = new Redis(server.url, { retryStrategy: () => null, enableOfflineQueue: true });
        client.on("error", () => {});
        const fence = redisFence(client);
        const script = "redis.call('set', KEYS[1], ARGV[1]) redis.call('set', KEYS[2], ARGV[1])";
        let writing = true;
        const worker = async () => {
          while (writing) {
            const mine = ++token;
            try {
              await fence.run(exclusive("k9", mine), { script, keys: ["k9/a", "k9/b"], args: [mine] });
              acknowledged = Math.max(acknowledged, mine);
            } catch (error) {
              const code = (error as { code?: string }).code;
              expect(["STALE_TOKEN", "UNREACHABLE", "OUTCOME_UNKNOWN"]).toContain(code);
              if (code !== "STALE_TOKEN") return;
            }
          }
        };
        const enough = acknowledged + 100;
        const workers = Array.from({ length: 8 }, worker);
        await expect.poll(() => acknowledged, { timeout: 20_000, interval: 1 }).toBeGreaterThan(enough);
        await server.kill9();
        writing = false;
        await Promise.all(workers);
        client.disconnect();
        await server.restart();

        await withClient(server.url, async (after) => {
          const [a, b] = (await after.mget("k9/a", "k9/b")).map(Number) as [number, number];
          const { floor } = await redisFence(after).inspect("k9");
          expect(a, "one script's writes").toBe(b);
          expect(a).toBeGreaterThanOrEqual(acknowledged);
          expect(floor).toBeGreaterThanOrEqual(a);
          const late = redisFence(after).set(exclusive("k9", floor - 1), "k9/a", "late");
          await expect(late).rejects.toMatchObject({ code: "STALE_TOKEN", floor });
        });
      }
    } finally {
      await server.stop();
    }
  });
});
