/** The callers' side over real sockets: `fencedFetch` and `httpFenceClient`. */
import { getEventListeners, once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type Fence, slotOf } from "@leasehold/fence";
import { fencedFetch, httpFenceClient, memoryStore } from "@leasehold/fence/http";
import { afterEach, describe, expect, it } from "vitest";
import { LamportClock } from "../../src/client/lamport.js";
import { credentials, ENDPOINT, Service, type Settings } from "./http-service.js";
import { exclusive, permits, shared } from "./locks.js";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(settings: Partial<Settings> = {}): Promise<Service> {
  const service = await Service.start("node", { store: memoryStore(), ...settings });
  cleanups.push(() => service.close());
  return service;
}

/** A server that answers as a test says, and keeps what it was asked. */
async function answering(answer: (req: IncomingMessage, res: ServerResponse) => void) {
  const seen: IncomingMessage[] = [];
  const server = createServer((req, res) => {
    seen.push(req);
    answer(req, res);
  }).listen(0, "127.0.0.1");
  cleanups.push(() => {
    server.closeAllConnections();
    server.close();
  });
  await once(server, "listening");
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen, server };
}

const coded = (code: string) => expect.objectContaining({ code });
const newClock = () => new LamportClock(() => Promise.reject(new Error("not here")));

describe("fencedFetch", () => {
  it("presents token and mode, whatever the caller's headers are", async () => {
    const { url, seen } = await answering((_req, res) => res.end("ok"));
    const forged = { "Fencing-Token": "99", "fencing-mode": "shared", "X-Other": "kept" };
    await fencedFetch(exclusive("a", 34))(url, { headers: forged });
    await fencedFetch(shared("a", 35))(new URL(url), { method: "PUT", body: "x" });
    await fencedFetch(slotOf(permits("s", 36, 1, 2), 2))(url);
    await fencedFetch({ name: "a", token: 37, mode: "shared" })(
      new Request(url, { headers: { "x-other": "of a Request" } }),
    );
    const headers = seen.map(({ headers }) => [headers["fencing-token"], headers["fencing-mode"], headers["x-other"]]);
    expect(headers).toEqual([
      ["34", undefined, "kept"],
      ["35", "shared", undefined],
      ["36", undefined, undefined],
      ["37", "shared", "of a Request"],
    ]);
  });

  it("rejects STALE_TOKEN, with what met what, or returns the response if that is wanted", async () => {
    const service = await start();
    const put = { method: "PUT", headers: credentials, body: "x" };
    const url = `${service.url}/registers/a`;
    await fencedFetch(exclusive("a", 34))(url, put);
    const refusal = fencedFetch(exclusive("a", 33))(url, put);
    await expect(refusal).rejects.toMatchObject({ code: "STALE_TOKEN", resource: "a", token: 33, floor: 34 });
    const returned = await fencedFetch(exclusive("a", 33), { refusals: "return" })(url, put);
    expect(returned.status).toBe(409);
    expect(await returned.json()).toMatchObject({ code: "STALE_TOKEN", floor: 34 });
  });

  it("rejects LOST when the service finds that the lock is not held", async () => {
    const service = await start({ validate: async () => false });
    const send = fencedFetch(exclusive("a", 34));
    await expect(send(`${service.url}/registers/a`, { method: "PUT", body: "x" })).rejects.toMatchObject({
      code: "LOST",
      resource: "a",
      token: 34,
    });
  });

  it("leaves other answers to the caller", async () => {
    const service = await start();
    const url = `${service.url}/registers/a`;
    const denied = await fencedFetch(exclusive("a", 34))(url, { method: "PUT", body: "x" });
    expect(denied.status).toBe(403);
    expect(await denied.json()).toMatchObject({ code: "DENIED" });
    const problem = { "Content-Type": "application/problem+json" };
    const theirs: [Record<string, string>, string][] = [
      [problem, '{"type":"https://example.com/out-of-stock","status":409}'],
      [problem, '{"type":"urn:problem-type:leasehold:stale-token","code":"STALE_TOKEN","resource":"a","token":"x"}'],
      [problem, '{"type":"urn:problem-type:leasehold:stale-token","code":"SOON","resource":"a","token":1}'],
      [problem, "null"],
      [problem, "{ not json"],
      [problem, `${JSON.stringify({ type: "urn:problem-type:leasehold:lost", code: "LOST" })}${" ".repeat(40_000)}`],
      [
        { "Content-Type": "application/json" },
        '{"type":"urn:problem-type:leasehold:stale-token","code":"STALE_TOKEN"}',
      ],
    ];
    for (const [headers, body] of theirs) {
      const { url: other } = await answering((_req, res) => res.writeHead(409, headers).end(body));
      const response = await fencedFetch(exclusive("a", 34))(other);
      expect(response.status).toBe(409);
      expect(await response.text()).toBe(body);
    }
  });

  it("sends nothing for a lock that is lost", async () => {
    const { url, seen } = await answering((_req, res) => res.end("ok"));
    const lock = exclusive("a", 34);
    const send = fencedFetch(lock);
    await send(url);
    lock.lose();
    await expect(send(url)).rejects.toEqual(coded("LOST"));
    const claim = fencedFetch({ name: "a", token: 34, remainingMs: 0.001 });
    await expect(claim(url)).rejects.toEqual(coded("LOST"));
    expect(seen).toHaveLength(1);
    expect(() => fencedFetch(permits("s", 36, 1, 2))).toThrow(coded("INVALID"));
    expect(() => fencedFetch(exclusive("a", 34), { retries: 3 } as object)).toThrow(coded("INVALID"));
    expect(() => fencedFetch(exclusive("a", 34), { clock: {} as LamportClock })).toThrow(coded("INVALID"));
    expect(() => fencedFetch(exclusive("a", 34), { refusals: "ignore" as "throw" })).toThrow(coded("INVALID"));
  });

  it("aborts what is under way when the lock is lost, when the caller says so, and when a claim's time is over", async () => {
    const { url, server } = await answering(() => {}); // never answers
    const lock = exclusive("a", 34);
    const arrived = once(server, "request");
    const losing = fencedFetch(lock)(url);
    await arrived;
    lock.lose();
    await expect(losing).rejects.toBe(lock.signal.reason);

    const own = new AbortController();
    const again = once(server, "request");
    const aborting = fencedFetch(exclusive("a", 35))(url, { signal: own.signal });
    await again;
    own.abort(new Error("enough"));
    await expect(aborting).rejects.toThrow("enough");
    const third = once(server, "request");
    const ofRequest = new AbortController();
    const requested = fencedFetch(exclusive("a", 35))(new Request(url, { signal: ofRequest.signal }));
    await third;
    ofRequest.abort();
    await expect(requested).rejects.toThrow();
    await expect(
      fencedFetch(exclusive("a", 35))(url, { signal: AbortSignal.abort(new Error("before")) }),
    ).rejects.toThrow("before");
    await expect(fencedFetch({ name: "a", token: 35, remainingMs: 50 })(url)).rejects.toEqual(coded("LOST"));
  });

  it("aborts the body of an answer, too", async () => {
    const { url } = await answering((_req, res) => void res.write("half"));
    const lock = exclusive("a", 34);
    const response = await fencedFetch(lock)(url);
    const reading = response.text();
    lock.lose();
    await expect(reading).rejects.toBe(lock.signal.reason);
  });

  it("keeps a time limit of the caller's alive, and leaves nothing behind at signals that live long", async () => {
    setFlagsFromString("--expose-gc");
    const gc = runInNewContext("gc") as () => void;
    const { url } = await answering((req, res) => {
      if (req.url === "/never") gc();
      else res.end("ok");
    });
    const lock = exclusive("a", 34);
    const own = new AbortController();
    const send = fencedFetch(lock);
    await expect(send(`${url}/never`, { signal: AbortSignal.timeout(100) })).rejects.toMatchObject({
      name: "TimeoutError",
    });
    const burst = async () => {
      const answers = await Promise.all(Array.from({ length: 20 }, () => send(url, { signal: own.signal })));
      await Promise.all(answers.map((answer) => answer.text()));
    };
    for (let i = 0; i < 20; i++) await burst();
    expect(getEventListeners(lock.signal, "abort").length).toBeLessThan(2); // of more than ten Node warns
    const left = () => getEventListeners(lock.signal, "abort").length + getEventListeners(own.signal, "abort").length;
    const deadlineMs = performance.now() + 20_000;
    while (left() > 0) {
      if (performance.now() > deadlineMs) throw new Error(`${left()} listeners are left`);
      gc();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });

  it("follows no redirects: its headers would go along", async () => {
    const other = await answering((_req, res) => res.end("elsewhere"));
    const { url, seen } = await answering((_req, res) => res.writeHead(307, { location: other.url }).end());
    const send = fencedFetch(exclusive("a", 34));
    await expect(send(url)).rejects.toThrow();
    await expect(send(new Request(url))).rejects.toThrow();
    expect(seen).toHaveLength(2);
    await expect(send(url, { redirect: "follow" })).rejects.toEqual(coded("INVALID"));
    expect(seen).toHaveLength(2);
    expect((await send(url, { redirect: "manual" })).status).toBe(307);
    expect((await send(new Request(url, { redirect: "manual" }))).status).toBe(307);
    expect(other.seen).toEqual([]);
  });

  it("carries Lamport timestamps both ways", async () => {
    const serverClock = newClock();
    serverClock.observe(700);
    const service = await start({ clock: serverClock });
    const clock = newClock();
    clock.observe(40);
    const send = fencedFetch(exclusive("a", 34), { clock });
    await send(`${service.url}/registers/a`, { method: "PUT", headers: credentials, body: "x" });
    expect(clock.now()).toBeGreaterThan(700);
    clock.observe(2_000);
    await send(`${service.url}/registers/a`, { method: "PUT", headers: credentials, body: "x" });
    expect(serverClock.now()).toBeGreaterThan(2_000);
    const { url } = await answering((_req, res) => res.writeHead(200, { "lamport-timestamp": "soon" }).end("done"));
    expect(await (await fencedFetch(exclusive("a", 34), { clock })(url)).text()).toBe("done");
  });
});

describe("httpFenceClient", () => {
  function clientOf(service: { url: string }, more: object = {}): Fence {
    return httpFenceClient(service.url + ENDPOINT, { headers: credentials, ...more });
  }

  it("raises each permit, with the name of the lock", async () => {
    const asked: string[] = [];
    const service = await start({
      validate: async (name, token) => {
        asked.push(`${name} ${token}`);
        return true;
      },
    });
    const fence = clientOf(service);
    await fence.raise(permits("s", 21, 3, 5));
    expect(asked).toEqual(["s 21", "s 21"]);
    expect(await fence.inspect("s#3")).toEqual({ resource: "s#3", floor: 21 });
    expect(await fence.inspect("s#5")).toEqual({ resource: "s#5", floor: 21 });
    await fence.reset("s#3");
    expect(await fence.inspect("s#3")).toEqual({ resource: "s#3", floor: 0 });
  });

  it("tells what went wrong by its code", async () => {
    const service = await start();
    const stranger = httpFenceClient(service.url + ENDPOINT);
    await expect(stranger.raise(exclusive("a", 34))).rejects.toEqual(coded("DENIED"));
    await expect(stranger.inspect("a")).rejects.toEqual(coded("DENIED"));
    await expect(stranger.reset("a")).rejects.toEqual(coded("DENIED"));
    const unheld = await start({ validate: async () => false });
    await expect(clientOf(unheld).raise(exclusive("a", 34))).rejects.toEqual(coded("LOST"));
    const full = await start({ store: memoryStore({ resourcesMax: 1 }) });
    await clientOf(full).raise(exclusive("a", 34));
    await expect(clientOf(full).raise(exclusive("b", 34))).rejects.toEqual(coded("LIMIT"));
    const broken = await start({ store: { ...memoryStore(), get: () => Promise.reject(new Error("down")) } });
    await expect(clientOf(broken).raise(exclusive("a", 34))).rejects.toEqual(coded("UNREACHABLE"));
    const { url, server } = await answering(() => {});
    await expect(clientOf({ url }, { limitMs: 30 }).raise(exclusive("a", 34))).rejects.toEqual(coded("UNREACHABLE"));
    server.closeAllConnections();
    server.close();
    await once(server, "close");
    await expect(clientOf({ url }).raise(exclusive("a", 34))).rejects.toEqual(coded("UNREACHABLE"));
  });

  it.each([
    ["200 and nothing", 200, "", "INVALID"],
    ["200 and a page", 200, "<html>log in</html>", "INVALID"],
    ["200 and another resource", 200, '{"resource":"b","floor":34}', "INVALID"],
    ["200 and a lower floor", 200, '{"resource":"a","floor":33}', "INVALID"],
    ["200 and no number", 200, '{"resource":"a","floor":null}', "INVALID"],
    ["200 and no end", 200, `{"resource":"a","floor":34}${" ".repeat(100_000)}`, "INVALID"],
    ["a redirect", 302, "", "UNREACHABLE"],
    ["404", 404, "no such page", "INVALID"],
    ["401", 401, "", "DENIED"],
    ["429", 429, "", "UNREACHABLE"],
    ["502", 502, "bad gateway", "UNREACHABLE"],
  ])("does not take for a raise: %s", async (_title, status, body, code) => {
    const { url } = await answering((_req, res) =>
      res.writeHead(status, { location: "http://127.0.0.1:9/" }).end(body),
    );
    await expect(clientOf({ url }).raise(exclusive("a", 34))).rejects.toEqual(coded(code));
  });

  it("rejects LOST when the lock is lost meanwhile", async () => {
    const { url, server } = await answering(() => {});
    const lock = exclusive("a", 34);
    const arrived = once(server, "request");
    const raising = clientOf({ url }).raise(lock);
    await arrived;
    lock.lose();
    await expect(raising).rejects.toEqual(coded("LOST"));
    await expect(clientOf({ url }).raise({ name: "a", token: 34, remainingMs: 30 })).rejects.toEqual(coded("LOST"));
  });

  it("refuses wrong arguments", () => {
    expect(() => httpFenceClient("/relative")).toThrow(coded("INVALID"));
    expect(() => httpFenceClient("http://x", { limitMs: 0 })).toThrow(coded("INVALID"));
    expect(() => httpFenceClient("http://x", { header: {} } as object)).toThrow(coded("INVALID"));
  });
});
