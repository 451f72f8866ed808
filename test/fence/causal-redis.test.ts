/** Causal sessions on a real Redis with replicas, of which one lags whenever the tests hold back its stream. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { type RedisClient, redisCausal } from "@leasehold/fence/causal";
import { Redis } from "ioredis";
import { createClient } from "redis";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { until } from "../services/processes.mjs";
import { startRedis } from "../services/redis.mjs";
import { describeWithServices } from "../services/vitest.js";
import { LIMIT_MS } from "./causal-support.js";

/** What the tests use of both drivers. */
interface Driver extends RedisClient {
  get(key: string): Promise<string | null>;
  set(key: string, value: string): Promise<unknown>;
}

const coded = (code: string) => expect.objectContaining({ code });

/** Passes bytes on to the port; while it is held back, those that come from there wait. */
async function valve(port: number) {
  const sockets = new Set<Socket>();
  let open = true;
  const server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
    }
    client.pipe(upstream);
    upstream.on("data", (data) => client.write(data));
    upstream.on("close", () => client.destroy());
    client.on("close", () => upstream.destroy());
    upstreams.add(upstream);
    if (!open) upstream.pause();
  });
  const upstreams = new Set<Socket>();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    holdBack: () => {
      open = false;
      for (const upstream of upstreams) upstream.pause();
    },
    letGo: () => {
      open = true;
      for (const upstream of upstreams) upstream.resume();
    },
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

type Server = Awaited<ReturnType<typeof startRedis>>;

const field = async (server: Server, name: string) =>
  new RegExp(`^${name}:(.*?)\r?$`, "m").exec(await server.command("INFO replication"))?.[1] ?? "";

/** Makes it a replica of that port, in sync. */
async function follow(server: Server, port: number): Promise<void> {
  await server.command(`REPLICAOF 127.0.0.1 ${port}`);
  const inSync = async () => (await field(server, "master_link_status")) === "up";
  await until(inSync, { what: "the replica in sync", limitMs: LIMIT_MS });
}

const drivers: [string, (server: Server, endings: (() => unknown)[]) => Promise<Driver>][] = [
  [
    "ioredis",
    async (server, endings) => {
      const redis = new Redis(server.port, { host: "127.0.0.1" });
      redis.on("error", () => undefined);
      endings.push(() => redis.disconnect());
      return redis;
    },
  ],
  [
    "node-redis",
    async (server, endings) => {
      const redis = createClient({ url: server.url });
      redis.on("error", () => undefined);
      await redis.connect();
      endings.push(() => redis.destroy());
      return redis;
    },
  ],
];

describeWithServices("causal sessions on Redis", ["redis"], () => {
  describe.each(drivers)("with %s", (_, open) => {
    let endings: (() => unknown)[] = [];
    let primary: Server;
    let replica: Server;
    let stream: Awaited<ReturnType<typeof valve>>;
    let db: Driver;
    let copy: Driver;

    beforeEach(async () => {
      const settings = { "repl-diskless-sync-delay": "0" };
      [primary, replica] = await Promise.all([startRedis({ settings }), startRedis({ settings })]);
      stream = await valve(primary.port);
      endings = [() => primary.stop(), () => replica.stop(), () => stream.close()];
      await follow(replica, stream.port);
      [db, copy] = [await open(primary, endings), await open(replica, endings)];
      await db.set("note", "old");
      await expect.poll(() => copy.get("note"), { timeout: LIMIT_MS }).toBe("old");
    });
    afterEach(async () => {
      for (const end of endings.splice(0).reverse()) await end();
    });
    const sessions = (waitMs = LIMIT_MS) => redisCausal({ primary: db, replicas: [copy], waitMs });
    const note = (redis: Driver) => redis.get("note");

    it("wait for the replica, which shows the old value meanwhile", async () => {
      stream.holdBack();
      const session = sessions().session();
      await session.write((redis) => redis.set("note", "new"));
      const read = session.read(note);
      let settled = false;
      read.finally(() => {
        settled = true;
      });
      expect(await note(copy)).toBe("old"); // what a naive read shows
      expect(settled).toBe(false);
      stream.letGo();
      expect(await read).toBe("new");
      expect(session.lastRead).toMatchObject({ on: "replica", replica: 0, why: "applied", covered: true });
    });

    it("go to the primary when the replica does not get there in time", async () => {
      stream.holdBack();
      const session = sessions(200).session();
      await session.write((redis) => redis.set("note", "new"));
      const other = sessions(200).session();
      other.extract(session.inject(new Headers()));
      for (const one of [session, other]) {
        expect(await one.read(note)).toBe("new");
        expect(one.lastRead).toMatchObject({ on: "primary", why: "behind", covered: true });
      }
      expect(await sessions().session().read(note)).toBe("old"); // who has written nothing asks for nothing
    });

    it("take the position behind the write: one from before it does not cover it", async () => {
      stream.holdBack();
      const [right, wrong] = [sessions(200).session(), sessions(200).session()];
      await wrong.noteWrite();
      await Promise.all([db.set("note", "new"), right.noteWrite()]); // without waiting in between
      expect(await right.read(note)).toBe("new");
      expect(await wrong.read(note)).toBe("old");
    });

    it("count what a failed callback may have written", async () => {
      stream.holdBack();
      const session = sessions(200).session();
      const fails = session.write(async (redis) => {
        await redis.set("note", "new");
        throw new Error("mine");
      });
      await expect(fails).rejects.toThrow("mine");
      expect(await session.read(note)).toBe("new");
    });

    it("go to the primary for a forged header, within their time", async () => {
      const session = sessions(200).session();
      await session.write((redis) => redis.set("note", "new"));
      const forged = (session.position as string).replace(/\d+$/, "9223372036854775807");
      const other = sessions(200).session(forged);
      expect(await other.read(note)).toBe("new");
      expect(other.lastRead).toMatchObject({ on: "primary", why: "behind", covered: false });
      const foreign = sessions().session(`redis:${"0".repeat(40)}:1`);
      expect(await foreign.read(note)).toBe("new");
      expect(foreign.lastRead).toMatchObject({ on: "primary", why: "other_history", covered: false });
      expect(foreign.lastRead?.waitedMs).toBeLessThan(10_000);
      expect(await foreign.read(note)).toBe("new"); // it has gone on from the primary's position
      expect(foreign.lastRead).toMatchObject({ on: "replica" });
    });

    it("leave a frozen replica alone after its first silence, and come back to it", async () => {
      let asked = 0;
      const counted = new Proxy(copy, {
        get(target, name) {
          if (name === "info") asked++;
          const value: unknown = Reflect.get(target, name, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
      const session = redisCausal({ primary: db, replicas: [counted], waitMs: 300 }).session();
      await session.write((redis) => redis.set("note", "new"));
      expect(await session.read(note)).toBe("new");
      asked = 0;
      replica.pause();
      try {
        const reads = Array.from({ length: 50 }, () => session.read(note));
        expect(new Set(await Promise.all(reads))).toEqual(new Set(["new"]));
        expect(session.lastRead).toMatchObject({ on: "primary", why: "unreachable" });
        const beganMs = performance.now();
        for (let i = 0; i < 100; i++) expect(await session.read(note)).toBe("new");
        expect(performance.now() - beganMs).toBeLessThan(100 * 150); // they do not wait 300 ms each
        expect(asked).toBe(1); // and its queue does not grow
      } finally {
        replica.resume();
      }
      const where = async () => {
        await session.read(note);
        return session.lastRead?.on;
      };
      await expect.poll(where, { timeout: LIMIT_MS }).toBe("replica");
    });

    it("know their position in the stream of a new primary, and a position that it has not got", async () => {
      const third = await startRedis();
      endings.unshift(() => third.stop());
      await follow(third, stream.port);
      const before = sessions().session();
      await before.write((redis) => redis.set("note", "before"));
      const offset = (server: Server) => field(server, "slave_repl_offset");
      const position = (before.position as string).split(":")[2] as string;
      for (const server of [replica, third]) {
        await until(async () => Number(await offset(server)) >= Number(position), { what: "replicas there" });
      }
      stream.holdBack();
      const lost = sessions().session();
      await lost.write((redis) => redis.set("note", "lost"));

      await primary.kill9();
      await replica.command("REPLICAOF NO ONE");
      await follow(third, replica.port);
      expect(await field(third, "master_replid2")).toBe((before.position as string).split(":")[1]); // a partial resync
      const after = redisCausal({ primary: copy, replicas: [await open(third, endings)], waitMs: LIMIT_MS });
      const kept = after.session(before.position);
      expect(await kept.read(note)).toBe("before");
      expect(kept.lastRead).toMatchObject({ on: "replica", why: "applied" });
      // However far the new stream goes, what was lost does not become part of it.
      for (let i = 0; i < 100; i++) await copy.set(`filler/${i}`, "x".repeat(100));
      const gone = after.session(lost.position);
      expect(await gone.read(note)).toBe("before");
      expect(gone.lastRead).toMatchObject({ on: "primary", why: "other_history", covered: false });
      expect(await gone.read(note)).toBe("before"); // and it goes on from the new primary's position
      expect(gone.lastRead).toMatchObject({ on: "replica", why: "applied" });
    });

    it("refuse to take a replica for the primary", async () => {
      stream.holdBack();
      const session = sessions().session();
      await session.write((redis) => redis.set("note", "new"));
      const confused = redisCausal({ primary: copy, replicas: [], waitMs: 100 }).session(session.position);
      await expect(confused.read(note)).rejects.toEqual(coded("UNREACHABLE"));
    });
  });
});
