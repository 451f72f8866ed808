/** Which requests are let in, and how the others are refused: with each framework, over real sockets. */
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { text } from "node:stream/consumers";
import { type Admitted, type HighWaterStore, type HttpRequest, httpFence, memoryStore } from "@leasehold/fence/http";
import { afterEach, describe, expect, it } from "vitest";
import { LamportClock } from "../../src/client/lamport.js";
import {
  credentials,
  ENDPOINT,
  FRAMEWORKS,
  type Framework,
  Service,
  type Settings,
  type Work,
} from "./http-service.js";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(framework: Framework, settings: Partial<Settings> = {}, work?: Work): Promise<Service> {
  const service = await Service.start(framework, { store: memoryStore(), ...settings }, work);
  cleanups.push(() => service.close());
  return service;
}

interface Sent {
  readonly token?: number | string;
  readonly mode?: string;
  readonly method?: string;
  readonly headers?: Record<string, string>;
}

async function send(service: Service, path: string, sent: Sent = {}) {
  const { token, mode, method = "PUT", headers = {} } = sent;
  const response = await fetch(service.url + path, {
    method,
    headers: {
      ...credentials,
      ...(token === undefined ? {} : { "Fencing-Token": String(token) }),
      ...(mode === undefined ? {} : { "Fencing-Mode": mode }),
      ...headers,
    },
    ...(method === "GET" ? {} : { body: `v${token}` }),
  });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** Refusals are told apart by their problem, never by their text. */
function problem({ status, headers, text }: Awaited<ReturnType<typeof send>>): Record<string, unknown> {
  expect(headers.get("content-type")?.split(";")[0]).toBe("application/problem+json");
  expect(headers.get("cache-control")).toBe("no-store");
  const parsed = JSON.parse(text) as Record<string, unknown>;
  expect(parsed.status).toBe(status);
  return parsed;
}

describe.each(FRAMEWORKS)("with %s", (framework) => {
  it("admits current tokens and refuses stale ones", async () => {
    const admitted: (Admitted | undefined)[] = [];
    const service = await start(framework, {}, async (_resource, _value, req) => {
      admitted.push(service.fence.of(req));
      return "";
    });
    expect(await send(service, "/registers/a", { token: 34 })).toMatchObject({ status: 200, text: "written" });
    const refusal = await send(service, "/registers/a?q=secret", { token: 33 });
    expect(refusal.status).toBe(409);
    expect(problem(refusal)).toEqual({
      type: "urn:problem-type:leasehold:stale-token",
      title: "The fencing token is stale",
      status: 409,
      detail: 'the token 33 is stale for "a": 34 has been used',
      instance: "/registers/a",
      code: "STALE_TOKEN",
      resource: "a",
      token: 33,
      floor: 34,
    });
    expect(await send(service, "/registers/a", { token: 34 })).toMatchObject({ status: 200 });
    expect(service.registers.get("a")).toBe("v34");
    expect(await service.fence.of({ headers: {} })).toBeUndefined();
    expect(admitted).toEqual([
      expect.objectContaining({ name: "a", resource: "a", token: 34, mode: "exclusive", slot: undefined }),
      expect.objectContaining({ claim: { name: "a", token: 34, mode: "exclusive" } }),
    ]);
  });

  it("fences slots, and checks shared holds without raising", async () => {
    const service = await start(framework);
    expect(await send(service, "/registers/s?slot=3", { token: 21 })).toMatchObject({ status: 200 });
    expect(await send(service, "/registers/s?slot=4", { token: 20 })).toMatchObject({ status: 200 });
    expect(problem(await send(service, "/registers/s?slot=3", { token: 20 }))).toMatchObject({
      resource: "s#3",
      floor: 21,
    });
    expect(problem(await send(service, "/registers/s?slot=3", { token: 22, mode: "shared" }))).toMatchObject({
      status: 400,
      code: "INVALID",
    });
    expect(await send(service, "/registers/r", { token: 30 })).toMatchObject({ status: 200 });
    expect(await send(service, "/registers/r", { token: 32, mode: "shared" })).toMatchObject({ status: 200 });
    expect(await send(service, "/registers/r", { token: 31, mode: "shared" })).toMatchObject({ status: 200 });
    expect(await send(service, "/registers/r", { token: 29, mode: "shared" })).toMatchObject({ status: 409 });
    expect(await send(service, "/registers/r", { token: 30, mode: "exclusive" })).toMatchObject({ status: 200 });
  });

  it("refuses what carries no token, unless that is permitted", async () => {
    const service = await start(framework);
    const refusal = await send(service, "/registers/a");
    expect(problem(refusal)).toMatchObject({
      status: 428,
      code: "INVALID",
      type: expect.stringMatching(/:token-required$/),
    });
    expect(service.registers.size).toBe(0);
    expect(await send(service, "/registers/a", { method: "GET" })).toMatchObject({ status: 200 }); // it is not fenced

    const lenient = await start(framework, { required: false });
    expect(await send(lenient, "/registers/a")).toMatchObject({ status: 200 });
    expect(await send(lenient, "/registers/a", { token: 34 })).toMatchObject({ status: 200 });
    expect(await send(lenient, "/registers/a", { token: 33 })).toMatchObject({ status: 409 });
  });

  it.each([
    "34, 35",
    "+34",
    "0x10",
    "034",
    "1e3",
    "34.0",
    "-1",
    "9007199254740992",
    "99999999999999999999",
    "3 4",
    "x",
    "",
  ])("refuses the token %j", async (token) => {
    const service = await start(framework);
    expect(problem(await send(service, "/registers/a", { token }))).toMatchObject({ status: 400, code: "INVALID" });
    expect(service.registers.size).toBe(0);
  });

  it("refuses modes and names that cannot be", async () => {
    const service = await start(framework);
    for (const mode of ["Shared", "exclusive, shared", "", "semaphore"]) {
      expect(problem(await send(service, "/registers/a", { token: 34, mode }))).toMatchObject({ status: 400 });
    }
    for (const path of ["a%00b", "x".repeat(600), "a%0Ab"]) {
      expect(problem(await send(service, `/registers/${path}`, { token: 34 }))).toMatchObject({ status: 400 });
    }
    expect(problem(await send(service, "/registers/a?slot=-1", { token: 34 }))).toMatchObject({ status: 400 });
    expect(service.registers.size).toBe(0);
  });

  it("raises nothing for strangers, and tells them nothing", async () => {
    const service = await start(framework);
    await send(service, "/registers/a", { token: 34 });
    const forged = await send(service, "/registers/a", { token: 2 ** 53 - 1, headers: { authorization: "Bearer x" } });
    expect(problem(forged)).toEqual({
      type: "urn:problem-type:leasehold:denied",
      title: "Not permitted",
      status: 403,
      instance: "/registers/a",
      code: "DENIED",
    });
    const stale = await send(service, "/registers/a", { token: 1, headers: { authorization: "Bearer x" } });
    expect(stale).toMatchObject({ status: 403, text: forged.text }); // not even that it is stale
    expect(await send(service, "/registers/a", { token: 35 })).toMatchObject({ status: 200 });
  });

  it("says 503 when the store fails, and not why", async () => {
    const errors: unknown[] = [];
    const cause = new Error("connect ECONNREFUSED db.internal:5432");
    const store: HighWaterStore = {
      get: () => Promise.reject(cause),
      raise: async () => ({ ok: true, floor: 1 }),
      reset: async () => {},
    };
    const service = await start(framework, { store, onError: (error) => errors.push(error) });
    const refusal = await send(service, "/registers/a", { token: 34 });
    expect(problem(refusal)).toMatchObject({ status: 503, code: "UNREACHABLE" });
    expect(refusal.headers.get("retry-after")).toBe("1");
    expect(refusal.text).not.toMatch(/ECONN|db\.internal|34/);
    expect(errors).toEqual([expect.objectContaining({ code: "UNREACHABLE", cause })]);
    expect(service.registers.size).toBe(0);
  });

  it("says 503 when the store does not answer", async () => {
    const store: HighWaterStore = { ...memoryStore(), raise: () => new Promise(() => {}) };
    const service = await start(framework, { store, limitMs: 20 });
    expect(problem(await send(service, "/registers/a", { token: 34 }))).toMatchObject({
      status: 503,
      code: "UNREACHABLE",
    });
    const full = await start(framework, { store: memoryStore({ resourcesMax: 1 }) });
    expect(await send(full, "/registers/a", { token: 34 })).toMatchObject({ status: 200 });
    expect(problem(await send(full, "/registers/b", { token: 35 }))).toMatchObject({ status: 503, code: "LIMIT" });
  });

  it("carries Lamport timestamps, stamped when the response leaves", async () => {
    const clock = new LamportClock(() => Promise.reject(new Error("not here")));
    let during = 0;
    const service = await start(framework, { clock }, async () => {
      during = clock.tick();
      return "";
    });
    const answer = await send(service, "/registers/a", { token: 34, headers: { "lamport-timestamp": "500" } });
    expect(during).toBeGreaterThan(500);
    expect(Number(answer.headers.get("lamport-timestamp"))).toBeGreaterThan(during);

    const bad = await send(service, "/registers/a", { token: 34, headers: { "lamport-timestamp": "soon" } });
    expect(problem(bad)).toMatchObject({ status: 400, code: "INVALID" });
    // What was refused is not followed: its sender may be anybody.
    await send(service, "/registers/a", { token: 33, headers: { "lamport-timestamp": "9007199254740990" } });
    expect(clock.now()).toBeLessThan(1_000);
  });

  it("answers 500 when the service's own functions fail", async () => {
    const errors: unknown[] = [];
    const service = await start(framework, {
      resource: () => {
        throw new Error("a bug at db.internal");
      },
      onError: (error) => errors.push(error),
    });
    const answer = await send(service, "/registers/a", { token: 34 });
    expect(answer.status).toBe(500);
    if (framework === "node") {
      expect(answer.text).not.toMatch(/internal/);
      expect(errors).toEqual([expect.objectContaining({ message: "a bug at db.internal" })]);
    } else {
      expect(answer.text).toMatch(/a bug/); // as the framework and its error handlers have it
    }
    const forgetful = await start(framework, { resource: (() => {}) as unknown as () => null, onError: () => {} });
    expect((await send(forgetful, "/registers/a", { token: 34 })).status).toBe(500);
    expect(forgetful.registers.size).toBe(0);
  });
});

describe("validation", () => {
  function validating(held: Set<string>) {
    const asked: string[] = [];
    const validate = async (name: string, token: number) => {
      asked.push(`${name} ${token}`);
      await new Promise(setImmediate);
      return held.has(`${name} ${token}`);
    };
    return { asked, validate };
  }

  it("asks once for each holder, with the name of the lock, and raises only for what is held", async () => {
    const { asked, validate } = validating(new Set(["a 34", "s 35"]));
    const service: Service = await start("node", {
      async validate(name, token) {
        if (asked.length === 0) await until(() => service.requests === 4); // all four of below have come
        return validate(name, token);
      },
    });
    const four = await Promise.all([1, 2, 3, 4].map(() => send(service, "/registers/a", { token: 34 })));
    expect(four.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    await send(service, "/registers/a", { token: 34 });
    expect(asked).toEqual(["a 34"]);
    const forged = problem(await send(service, "/registers/a", { token: 2 ** 53 - 1 }));
    expect(forged).toMatchObject({ status: 409, code: "LOST", resource: "a", token: 2 ** 53 - 1 });
    expect(forged).not.toHaveProperty("floor");
    expect(await send(service, "/registers/a", { token: 34 })).toMatchObject({ status: 200 }); // nothing was raised
    expect(await send(service, "/registers/s?slot=1", { token: 35 })).toMatchObject({ status: 200 });
    expect(asked).toEqual(["a 34", `a ${2 ** 53 - 1}`, "s 35"]);
    await send(service, "/registers/a", { token: 40, mode: "shared" }); // raises nothing: nothing to ask
    await send(service, "/registers/a", { token: 33 });
    expect(asked).toHaveLength(3);
  });

  it("a validated token does not lower what was raised meanwhile", async () => {
    const store = memoryStore();
    const service = await start("node", {
      store,
      validate: async () => {
        await store.raise("a", 35);
        return true;
      },
    });
    expect(problem(await send(service, "/registers/a", { token: 34 }))).toMatchObject({
      code: "STALE_TOKEN",
      floor: 35,
    });
    expect(service.registers.size).toBe(0);
  });

  it("is bounded, and its failure lets nobody in", async () => {
    let answer: (held: boolean) => void = () => {};
    const validate = () => new Promise<boolean>((resolve) => (answer = resolve));
    const service = await start("node", { validate, validationsMax: 1 });
    const first = send(service, "/registers/a", { token: 34 });
    await until(() => answer.length === 1);
    expect(problem(await send(service, "/registers/b", { token: 35 }))).toMatchObject({ status: 503, code: "LIMIT" });
    answer(true);
    expect(await first).toMatchObject({ status: 200 });

    const failing = await start("node", { validate: () => Promise.reject(new Error("no server")), limitMs: 50 });
    expect(problem(await send(failing, "/registers/a", { token: 34 }))).toMatchObject({ status: 503 });
    const silent = await start("node", { validate: () => new Promise(() => {}), limitMs: 20 });
    expect(problem(await send(silent, "/registers/a", { token: 34 }))).toMatchObject({ status: 503 });
    const odd = await start("node", { validate: (async () => "no") as unknown as () => Promise<boolean> });
    expect(problem(await send(odd, "/registers/a", { token: 34 }))).toMatchObject({ code: "LOST" });
    for (const { registers } of [failing, silent, odd]) expect(registers.size).toBe(0);
  });

  it("goes together with authorize, which is asked first", async () => {
    const { asked, validate } = validating(new Set(["a 34"]));
    const authorize = (req: HttpRequest) => req.headers.authorization === credentials.authorization;
    const service = await start("node", { validate, authorize });
    await send(service, "/registers/a", { token: 34, headers: { authorization: "x" } });
    expect(asked).toEqual([]);
    expect(await send(service, "/registers/a", { token: 34 })).toMatchObject({ status: 200 });
    expect(await send(service, "/registers/a", { token: 35 })).toMatchObject({ status: 409 });
  });
});

async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error("not within 10 s");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** The head of the response to exactly these bytes. */
async function raw(service: Service, head: string): Promise<string> {
  const socket = connect(Number(new URL(service.url).port), "127.0.0.1");
  socket.write(`PUT /registers/a HTTP/1.1\r\nHost: x\r\nAuthorization: ${credentials.authorization}\r\n${head}\r\n`);
  return (await text(socket)).split("\r\n", 1)[0] as string;
}

describe("hostile bytes", () => {
  const rest = "Connection: close\r\nContent-Length: 0\r\n";
  it.each([
    ["a token twice", "Fencing-Token: 34\r\nFencing-Token: 34\r\n", 400],
    ["two tokens", "Fencing-Token: 1\r\nfencing-token: 35\r\n", 400],
    ["Arabic digits", "Fencing-Token: \u0663\u0664\r\n", 400],
    ["full-width digits", "Fencing-Token: \uff13\uff14\r\n", 400],
    ["a NUL", "Fencing-Token: 3\x004\r\n", 400],
    ["a long token", `Fencing-Token: ${"9".repeat(8_000)}\r\n`, 400],
    ["a huge header", `Fencing-Token: ${"9".repeat(40_000)}\r\n`, 431],
    ["a mode twice", "Fencing-Token: 34\r\nFencing-Mode: shared\r\nFencing-Mode: exclusive\r\n", 400],
    ["white space around, which HTTP takes off", "Fencing-Token:  \t34 \r\n", 200],
  ])("%s", async (_title, head, status) => {
    const service = await start("node");
    expect(await raw(service, head + rest)).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(service.registers.size).toBe(status === 200 ? 1 : 0);
    expect(await service.fence.of({ headers: {} })).toBeUndefined();
  });
});

describe("the endpoint", () => {
  const at = (query: string) => `${ENDPOINT}${query}`;

  it.each(["node", "express", "fastify"] as const)("raises, reads and resets, with %s", async (framework) => {
    const service = await start(framework);
    const put = await send(service, at("?name=a%2F%C3%A4&slot=3"), { token: 34 });
    expect(put).toMatchObject({ status: 200, text: '{"resource":"a/ä#3","floor":34}' });
    expect(problem(await send(service, at("?name=a%2F%C3%A4&slot=3"), { token: 33 }))).toMatchObject({ floor: 34 });
    const get = await send(service, at("?name=a%2F%C3%A4%233"), { method: "GET" });
    expect(get).toMatchObject({ status: 200, text: '{"resource":"a/ä#3","floor":34}' });
    expect(await send(service, at("?name=a%2F%C3%A4%233"), { method: "DELETE" })).toMatchObject({
      status: 204,
      text: "",
    });
    expect(await send(service, at("?name=a%2F%C3%A4&slot=3"), { token: 33 })).toMatchObject({ status: 200 });
  });

  it("is not for strangers", async () => {
    const service = await start("node");
    await send(service, at("?name=a"), { token: 34 });
    const headers = { authorization: "x" };
    for (const method of ["PUT", "GET", "DELETE"]) {
      const refusal = await send(service, at("?name=a"), { method, token: 2 ** 53 - 1, headers });
      expect(problem(refusal)).toMatchObject({ status: 403, code: "DENIED" });
      expect(refusal.text).not.toMatch(/34/);
    }
    const closed = await start("node", { admin: undefined });
    expect(await send(closed, at("?name=a"), { method: "GET" })).toMatchObject({ status: 403 });
    expect(await send(closed, at("?name=a"), { method: "DELETE" })).toMatchObject({ status: 403 });
    const validated = await start("node", { validate: async () => false });
    expect(problem(await send(validated, at("?name=a"), { token: 34 }))).toMatchObject({ status: 409, code: "LOST" });
  });

  it("refuses what it cannot understand", async () => {
    const service = await start("node");
    const queries = [
      "",
      "?",
      "?name=",
      "?name=a&name=b",
      "?name=a&slot=x",
      "?name=a&slot=1&slot=2",
      "?name=a&floor=0",
      "?slot=1",
    ];
    for (const query of [...queries, "?name=a&slot=99999999999", `?name=${"n".repeat(600)}`, "?name=a%00"]) {
      expect(problem(await send(service, at(query), { token: 34 })), query).toMatchObject({
        status: 400,
        code: "INVALID",
      });
    }
    expect(problem(await send(service, at("?name=a")))).toMatchObject({ status: 428 });
    const post = await send(service, at("?name=a"), { method: "POST", token: 34 });
    expect(post.status).toBe(405);
    expect(post.headers.get("allow")).toBe("GET, PUT, DELETE");
  });
});

describe("setting up", () => {
  const resource = () => "a";
  const authorize = () => true;
  const store = memoryStore();
  it.each([
    ["neither authorize nor validate", { store, resource }],
    ["no store", { resource, authorize }],
    ["half a store", { store: { get: store.get }, resource, authorize }],
    ["no resource", { store, authorize }],
    ["an unknown option", { store, resource, authorize, serialise: true }],
    ["an authorize that is no function", { store, resource, authorize: true }],
    ["a validate that is no function", { store, resource, validate: "client" }],
    ["an admin that is no function", { store, resource, authorize, admin: true }],
    ["a clock that is none", { store, resource, authorize, clock: {} }],
    ["a required that is neither", { store, resource, authorize, required: 1 }],
    ["a serialize that is neither", { store, resource, authorize, serialize: "yes" }],
    ["a bound of nothing", { store, resource, authorize, waitingMax: 0 }],
    ["no time", { store, resource, authorize, waitMs: 0 }],
    ["half a millisecond", { store, resource, authorize, limitMs: 0.5 }],
    ["no validations", { store, resource, authorize, validationsMax: 0 }],
  ])("refuses %s", (_title, options) => {
    expect(() => httpFence(options as Parameters<typeof httpFence>[0])).toThrow(
      expect.objectContaining({ code: "INVALID" }),
    );
  });

  it("refuses turns where the end of the handler is not known", () => {
    const fence = httpFence({ store, resource, authorize, serialize: true });
    expect(() => fence.express()).toThrow(expect.objectContaining({ code: "INVALID" }));
    expect(() => fence.fastify()).toThrow(expect.objectContaining({ code: "INVALID" }));
  });

  it("rejects with what a handler throws, as without a fence", async () => {
    const fence = httpFence({ store: memoryStore(), resource, authorize });
    const bug = new Error("a bug");
    const thrown: unknown[] = [];
    const listener = fence.node(async () => {
      throw bug;
    });
    const server = createServer((req, res) => {
      listener(req, res).catch((error: unknown) => {
        thrown.push(error);
        res.writeHead(500).end();
      });
    }).listen(0, "127.0.0.1");
    cleanups.push(() => server.close());
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const response = await fetch(url, { method: "PUT", headers: { "fencing-token": "1" } });
    expect(response.status).toBe(500);
    expect(thrown).toEqual([bug]);
  });
});
