import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer } from "node:net";
import { type EtcdKv, etcdFence, etcdGateway, fromBase64, putOp, toBase64 } from "@leasehold/fence/etcd";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startEtcd } from "../services/etcd.mjs";
import { describeWithServices } from "../services/vitest.js";
import { exclusive } from "./locks.js";

type Etcd = Awaited<ReturnType<typeof startEtcd>>;
const refused = (code: string) => expect.objectContaining({ code });
const ROUNDS = Number(process.env.LEASEHOLD_KILL_ROUNDS ?? 5);

async function read(kv: EtcdKv, key: string): Promise<string | undefined> {
  const { kvs } = await kv.range({ key: toBase64(key) });
  return kvs?.[0] && fromBase64(kvs[0].value).toString();
}

/** Passes requests on to etcd, and drops the connection instead of the answer while `losing`. */
async function lossyProxy(port: number) {
  const state = { losing: false };
  const server = createTcpServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    client.pipe(upstream);
    upstream.on("data", (chunk) => {
      if (state.losing) client.destroy();
      else client.write(chunk);
    });
    for (const socket of [client, upstream]) {
      socket.on("error", () => {});
      socket.on("close", () => {
        client.destroy();
        upstream.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { state, server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

describeWithServices("the etcd gateway and its faults", ["etcd"], () => {
  let server: Etcd;
  beforeAll(async () => {
    server = await startEtcd();
  });
  afterAll(() => server?.stop());

  it("an answer that is lost is told as OUTCOME_UNKNOWN, and the write may be there", async () => {
    const proxy = await lossyProxy(server.port);
    try {
      const fence = etcdFence(etcdGateway(proxy.url));
      const lock = exclusive("lost", 3);
      await fence.raise(lock);
      proxy.state.losing = true;
      const unknown = { code: "OUTCOME_UNKNOWN", resource: "lost", token: 3, retryable: false };
      await expect(fence.put(lock, "lost", "v")).rejects.toMatchObject(unknown);
      expect(await read(etcdGateway(server.url), "lost")).toBe("v");
      await expect(fence.raise(exclusive("lost", 4))).rejects.toMatchObject({ code: "UNREACHABLE", token: 4 });
      await expect(fence.inspect("lost")).rejects.toEqual(refused("UNREACHABLE"));
      await expect(fence.reset("lost/other")).rejects.toEqual(refused("UNREACHABLE"));
      proxy.state.losing = false;
      await expect(fence.put(exclusive("lost", 2), "lost", "late")).rejects.toEqual(refused("STALE_TOKEN"));
    } finally {
      proxy.server.close();
    }
  });

  it("a member that is stopped is given up in time", async () => {
    const fence = etcdFence(etcdGateway(server.url, { timeoutMs: 1_000 }));
    const lock = exclusive("stopped", 3);
    await fence.raise(lock);
    server.pause();
    try {
      await expect(fence.put(lock, "stopped", "v")).rejects.toEqual(refused("OUTCOME_UNKNOWN"));
      await expect(fence.raise(lock)).rejects.toEqual(refused("UNREACHABLE"));
    } finally {
      server.resume();
    }
  });

  it("a member that cannot be connected to is passed over: nothing was sent to it", async () => {
    const dead = await lossyProxy(server.port);
    await new Promise((resolve) => dead.server.close(resolve));
    const fence = etcdFence(etcdGateway([dead.url, server.url]));
    await fence.put(exclusive("members", 1), "members", "v");
    const alone = etcdFence(etcdGateway([dead.url, dead.url]));
    await expect(alone.put(exclusive("members", 1), "k", "v")).rejects.toMatchObject({ code: "UNREACHABLE" });
    await expect(alone.raise(exclusive("members", 1))).rejects.toMatchObject({ code: "UNREACHABLE" });
  });

  it(`after kill -9 of etcd under load nothing acknowledged is lost (${ROUNDS} rounds)`, async () => {
    const kv = etcdGateway(server.url);
    let token = 0;
    let acknowledged = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const fence = etcdFence(kv);
      const worker = async () => {
        for (;;) {
          const mine = ++token;
          try {
            const success = [putOp("k9/a", String(mine)), putOp("k9/b", String(mine))];
            await fence.txn(exclusive("k9", mine), { success });
            acknowledged = Math.max(acknowledged, mine);
          } catch (error) {
            const { code } = error as { code?: string };
            expect(["STALE_TOKEN", "OUTCOME_UNKNOWN", "UNREACHABLE"]).toContain(code);
            if (code !== "STALE_TOKEN") return;
          }
        }
      };
      const enough = acknowledged + 30;
      const workers = Array.from({ length: 6 }, worker);
      await expect.poll(() => acknowledged, { timeout: 30_000, interval: 1 }).toBeGreaterThan(enough);
      await server.kill9();
      await Promise.all(workers);
      await server.restart();
      const a = Number(await read(kv, "k9/a"));
      const { floor } = await fence.inspect("k9");
      expect(Number(await read(kv, "k9/b"))).toBe(a);
      expect(floor, "raised in the same transaction").toBe(a);
      expect(a).toBeGreaterThanOrEqual(acknowledged);
      await expect(fence.put(exclusive("k9", floor - 1), "k9/a", "late")).rejects.toEqual(refused("STALE_TOKEN"));
    }
  });
});

describe("the etcd gateway", () => {
  let server: Server;
  let answer: { status: number; body: string };
  let url: string;
  const seen: { path: string | undefined; authorization: string | undefined }[] = [];
  beforeAll(async () => {
    server = createServer((request, response) => {
      seen.push({ path: request.url, authorization: request.headers.authorization });
      response.writeHead(answer.status, { location: "http://127.0.0.1:1/" });
      response.end(answer.body);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => server.close());

  it("tells refusals from what it does not know", async () => {
    const kv = etcdGateway(url);
    const codes: (readonly [number, string, string])[] = [
      [400, '{"code":3,"message":"etcdserver: request is too large"}', "INVALID"],
      [403, '{"code":7,"message":"etcdserver: permission denied"}', "DENIED"],
      [401, '{"code":16,"message":"etcdserver: invalid auth token"}', "DENIED"],
      [429, '{"code":8,"message":"etcdserver: mvcc: database space exceeded"}', "LIMIT"],
      [503, '{"code":14,"message":"etcdserver: request timed out"}', "OUTCOME_UNKNOWN"],
      [500, '{"code":13}', "OUTCOME_UNKNOWN"],
      [500, '{"code":"constructor"}', "OUTCOME_UNKNOWN"],
      [502, "<html>bad gateway</html>", "OUTCOME_UNKNOWN"],
      [200, "<html>welcome</html>", "OUTCOME_UNKNOWN"],
      [200, "null", "OUTCOME_UNKNOWN"],
      [302, "", "OUTCOME_UNKNOWN"],
      [404, "Not Found", "INVALID"],
    ];
    for (const [status, body, code] of codes) {
      answer = { status, body };
      await expect(kv.txn({}), body).rejects.toEqual(refused(code));
      const ofReads = code === "OUTCOME_UNKNOWN" ? "UNREACHABLE" : code;
      await expect(kv.range({ key: "a" }), body).rejects.toEqual(refused(ofReads));
    }
  });

  it("sends what it is told to, to where it is told", async () => {
    answer = { status: 200, body: "{}" };
    await etcdGateway(`${url}/behind/a/proxy`, { headers: { authorization: "secret" } }).txn({});
    expect(seen.at(-1)).toEqual({ path: "/behind/a/proxy/v3/kv/txn", authorization: "secret" });
    const asked: unknown[] = [];
    const own: typeof fetch = (input, init) => {
      asked.push(String(input));
      return fetch(input, init);
    };
    await etcdGateway(`${url}/`, { fetch: own }).range({ key: "a" });
    expect(asked).toEqual([`${url}/v3/kv/range`]);
  });

  it("takes no more than it can hold", async () => {
    answer = { status: 200, body: `{"kvs":"${"x".repeat(33 * 1024 * 1024)}"}` };
    await expect(etcdGateway(url).txn({})).rejects.toEqual(refused("OUTCOME_UNKNOWN"));
  });

  it("refuses wrong URLs and options", () => {
    for (const wrong of ["", "localhost:2379", "ftp://a", "http://a?b", "http://a#b", [], [7], null, 7]) {
      expect(() => etcdGateway(wrong as string), String(wrong)).toThrow(refused("INVALID"));
    }
    expect(() => etcdGateway(url, { timeoutMs: 0 })).toThrow(refused("INVALID"));
    expect(() => etcdGateway(url, { timeout: 5 } as object)).toThrow(refused("INVALID"));
  });
});
