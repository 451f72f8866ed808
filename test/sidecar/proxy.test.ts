/** The fencing proxy between real HTTP clients and a real service behind `httpFence`. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { type AddressInfo, connect } from "node:net";
import { text } from "node:stream/consumers";
import { httpFence, memoryStore } from "@leasehold/fence/http";
import { expect, onTestFinished, test } from "vitest";
import type { ProblemBody } from "../../src/sidecar/api/schemas.js";
import { leasehold } from "../cli/support.js";
import { type Address, memoryServer } from "../e2e/in-process.js";
import { until } from "../e2e/support.js";
import { client } from "../run/support.js";
import { ask, SidecarProcess, target } from "./support.js";

const LOCK = "registers";
const PROXY = ["--lock", LOCK, "--proxy-listen", "127.0.0.1:0"];

/** A storage that does what a test says. */
async function storage(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<Storage> {
  const server = createServer({ requestTimeout: 0 }, handler);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

interface Storage {
  readonly server: Server;
  readonly url: string;
}

async function proxied(url: string, ...flags: string[]): Promise<[Address, SidecarProcess]> {
  const server = await memoryServer();
  const sidecar = await SidecarProcess.start(server, ...PROXY, "--proxy", url, ...flags);
  await held(sidecar);
  return [server, sidecar];
}

const held = (sidecar: SidecarProcess) =>
  until(async () => /^leasehold_sidecar_proxy_held 1$/m.test((await sidecar.ask("GET", "/metrics")).text));

interface Fenced extends Storage {
  readonly registers: Map<string, string>;
  /** Of the floors. */
  readonly store: ReturnType<typeof memoryStore>;
  /** The tokens of all requests, in order. */
  readonly tokens: (string | undefined)[];
}

/** A service with registers that are all guarded by the one lock. It asks the lock server, as its own client. */
async function fenced(server: Address): Promise<Fenced> {
  const own = await client(server);
  const store = memoryStore();
  const fence = httpFence<IncomingMessage>({
    store,
    resource: () => LOCK,
    validate: (name, token) => own.validate(name, token),
    clock: own.clock,
  });
  const registers = new Map<string, string>();
  const guarded = fence.node(async (request: IncomingMessage, response: ServerResponse) => {
    registers.set(request.url ?? "", await text(request));
    response.end("written");
  });
  const tokens: (string | undefined)[] = [];
  const running = await storage((request, response) => {
    tokens.push(request.headers["fencing-token"]?.toString());
    guarded(request, response).catch(() => {}); // cut off within the body
  });
  return { ...running, registers, tokens, store };
}

test("a real fence admits what comes through the proxy, and nothing that goes around it", async () => {
  const server = await memoryServer();
  const service = await fenced(server);
  const sidecar = await SidecarProcess.start(server, ...PROXY, "--proxy", service.url);
  await held(sidecar);
  const put = (url: string, body: string) => fetch(`${url}/registers/a`, { method: "PUT", body });
  const written = await put(sidecar.proxyUrl, "one");
  expect([written.status, await written.text()]).toEqual([200, "written"]);
  expect(service.registers.get("/registers/a")).toBe("one");
  expect(Number(written.headers.get("lamport-timestamp"))).toBeGreaterThan(0);
  expect((await put(service.url, "around")).status).toBe(428);
  expect(service.registers.get("/registers/a")).toBe("one");
});

test("exactly the headers of the fence, and none that the application wrote", async () => {
  const seen: IncomingMessage["headers"][] = [];
  const store = await storage((request, response) => {
    seen.push(request.headers);
    response.setHeader("Connection", "close, X-Private");
    response.setHeader("X-Private", "1");
    response.setHeader("Keep-Alive", "timeout=3");
    response.setHeader("Set-Cookie", ["a=1", "b=2"]);
    response.setHeader("Lamport-Timestamp", "500000");
    response.end("done");
  });
  const [, sidecar] = await proxied(`${store.url}/base/`);
  const headers = {
    "Fencing-Token": "99999",
    Fencing_Token: "99998",
    "fencing-mode": "shared",
    "Lamport-Timestamp": "1000",
    Connection: "X-Hop, keep-alive",
    "X-Hop": "1",
    TE: "trailers",
    "Proxy-Authorization": "secret",
    Upgrade: "h2c",
    "HTTP2-Settings": "AAA",
    "X-Kept": ["1", "2"],
    Authorization: "Bearer of the application",
  };
  const answer = await ask(sidecar.proxyAddress, "GET", "/a/../b?x=1", undefined, { headers });
  expect([answer.status, answer.text]).toEqual([200, "done"]);
  const [got] = seen;
  expect(got).toMatchObject({ "fencing-token": "1", via: "1.1 leasehold-sidecar", "x-kept": "1, 2" });
  expect(got).toMatchObject({ authorization: "Bearer of the application", host: new URL(store.url).host });
  expect(Number(got?.["lamport-timestamp"])).toBeGreaterThan(1_000);
  for (const name of [
    "fencing_token",
    "fencing-mode",
    "x-hop",
    "te",
    "proxy-authorization",
    "upgrade",
    "http2-settings",
  ])
    expect(got, name).not.toHaveProperty(name);
  expect(answer.headers["set-cookie"]).toEqual(["a=1", "b=2"]);
  expect(answer.headers).not.toHaveProperty("x-private");
  expect(Number(answer.headers["lamport-timestamp"])).toBeGreaterThan(500_000);
  expect((await sidecar.ask("GET", "/v1/status")).body.timestamp).toBeGreaterThan(500_000);
});

test("paths, methods, statuses and bodies of any size pass unchanged, in both directions", async () => {
  const store = await storage((request, response) => {
    response.setHeader("X-Method", request.method ?? "");
    response.setHeader("X-Url", request.url ?? "");
    response.statusCode = Number(new URL(request.url ?? "", "http://x").searchParams.get("status") ?? 200);
    if (request.method === "HEAD" || response.statusCode === 204) response.end();
    else request.pipe(response);
  });
  const [, sidecar] = await proxied(store.url);
  const big = Buffer.alloc(20_000_000, "0123456789");
  for (const headers of [{ "Content-Length": String(big.length) }, { "Transfer-Encoding": "chunked" }]) {
    const answer = await ask(sidecar.proxyAddress, "POST", "/x%2Fy?z", big, { headers });
    expect(answer.headers["x-url"]).toBe("/x%2Fy?z");
    expect(Buffer.from(answer.text).equals(big)).toBe(true);
  }
  for (const method of ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "PROPFIND"]) {
    const answer = await ask(sidecar.proxyAddress, method, "/x");
    expect([answer.status, answer.headers["x-method"]]).toEqual([200, method]);
  }
  for (const status of [201, 204, 304, 404, 409, 500]) {
    expect((await ask(sidecar.proxyAddress, "PUT", `/x?status=${status}`, "b")).status).toBe(status);
  }
  const curl = await new Promise((resolve) => {
    execFile(
      "curl",
      ["-sS", "-T", process.execPath, "-o", "/dev/null", "-w", "%{http_code} %{size_upload}", `${sidecar.proxyUrl}/f`],
      (_e, out) => resolve(out),
    );
  });
  expect(curl).toMatch(/^200 \d{7,}$/);
});

test("503 while the lock is not held, and nothing reaches the storage", async () => {
  let requests = 0;
  const store = await storage((_request, response) => {
    requests++;
    response.end();
  });
  const server = await memoryServer();
  const other = await (await client(server)).acquire(LOCK);
  const sidecar = await SidecarProcess.start(server, ...PROXY, "--proxy", store.url);
  const refused = await ask<ProblemBody>(sidecar.proxyAddress, "PUT", "/a", "x");
  expect([refused.status, refused.body.code, refused.headers["retry-after"]]).toEqual([503, "LOST", "1"]);
  expect(requests).toBe(0);
  await other.release();
  await held(sidecar);
  expect((await ask(sidecar.proxyAddress, "PUT", "/a", "x")).status).toBe(200);
});

test("a loss cuts off what is in flight: 503 before the answer, a broken one after its begin; then it holds again", async () => {
  let broken = 0;
  const store = await storage((request, response) => {
    response.on("close", () => {
      if (!response.writableFinished) broken++;
    });
    if (request.url === "/begun") response.write("begun");
  });
  const [server, sidecar] = await proxied(store.url);
  const silent = ask<ProblemBody>(sidecar.proxyAddress, "PUT", "/silent", "x");
  const begun = httpRequest({ ...target(sidecar.proxyAddress), path: "/begun" });
  begun.on("error", () => {});
  begun.end();
  const [response] = (await once(begun, "response")) as [IncomingMessage];
  const rest = text(response);
  rest.catch(() => {});
  await until(async () => /in_flight 2$/m.test((await sidecar.ask("GET", "/metrics")).text));
  await leasehold(["release", LOCK, "--force", "--yes", "--addr", server.address]);
  const cut = await silent;
  expect([cut.status, cut.body.code]).toEqual([503, "LOST"]);
  await expect(rest).rejects.toThrow();
  await until(() => broken === 2, 20_000, "the end at the storage");
  await held(sidecar);
  const metrics = (await sidecar.ask("GET", "/metrics")).text;
  expect(metrics).toContain('leasehold_sidecar_proxied_total{outcome="aborted"} 2');
});

test("a forced release waits for what is in flight to be cut off", async () => {
  const store = await storage(() => {});
  const [server, sidecar] = await proxied(store.url, "--ttl", "10m");
  const silent = ask(sidecar.proxyAddress, "PUT", "/silent", "x");
  await until(async () => /in_flight 1$/m.test((await sidecar.ask("GET", "/metrics")).text));
  const next = (await client(server)).acquire(LOCK, { wait: "30s" });
  await leasehold(["release", LOCK, "--force", "--yes", "--addr", server.address]);
  expect((await silent).status).toBe(503);
  expect((await next).token).toBe(2); // long before the TTL
});

test("a sidecar that was stopped past its TTL forwards nothing under the old token", async () => {
  const server = await memoryServer();
  const service = await fenced(server);
  const { tokens } = service;
  const sidecar = await SidecarProcess.start(server, ...PROXY, "--proxy", service.url, "--ttl", "2s");
  await held(sidecar);
  expect((await ask(sidecar.proxyAddress, "PUT", "/registers/a", "before")).status).toBe(200);
  // The head and half of a body are with the sidecar when it is stopped, and a whole request arrives meanwhile.
  const slow = httpRequest({ ...target(sidecar.proxyAddress), method: "PUT", path: "/registers/a", agent: false });
  let slowEnded = false;
  const end = () => {
    slowEnded = true;
  };
  slow.on("error", end).on("response", end);
  slow.setHeader("content-length", "8");
  slow.write("late");
  await until(async () => /in_flight 1$/m.test((await sidecar.ask("GET", "/metrics")).text));
  sidecar.signal("SIGSTOP");
  const meanwhile = ask<ProblemBody>(sidecar.proxyAddress, "PUT", "/registers/a", "meanwhile");
  slow.end("late");
  const next = await (await client(server)).acquire(LOCK, { wait: "30s" });
  const put = { method: "PUT", headers: { "fencing-token": String(next.token) }, body: "after" };
  expect((await fetch(`${service.url}/registers/a`, put)).status).toBe(200);
  const before = tokens.length;
  sidecar.signal("SIGCONT");
  const refused = await meanwhile;
  expect([refused.status, refused.body.code]).toEqual([503, "LOST"]);
  await until(() => slowEnded);
  expect(service.registers.get("/registers/a")).toBe("after");
  expect(tokens.slice(before)).toEqual([]);
  await next.release();
  await held(sidecar);
  expect((await ask(sidecar.proxyAddress, "PUT", "/registers/a", "again")).status).toBe(200);
  expect(Number(tokens.at(-1))).toBeGreaterThan(next.grant.token);
});

test("what the fence refuses reaches the application as the fence said it", async () => {
  const server = await memoryServer();
  const service = await fenced(server);
  const sidecar = await SidecarProcess.start(server, ...PROXY, "--proxy", service.url);
  await held(sidecar);
  await service.store.raise(LOCK, 1_000); // as if a later holder had been here
  const refused = await ask<ProblemBody>(sidecar.proxyAddress, "PUT", "/registers/a", "x");
  expect([refused.status, refused.body]).toMatchObject([409, { code: "STALE_TOKEN", token: 1, floor: 1_000 }]);
  expect(service.registers.size).toBe(0);
});

test("what it does not forward: too long bodies, upgrades, foreign targets, web pages", async () => {
  const store = await storage((request, response) => {
    request.resume();
    request.on("end", () => response.end());
  });
  const [, sidecar] = await proxied(store.url, "--proxy-body", "1000");
  const send = (options: object, body?: string) => ask<ProblemBody>(sidecar.proxyAddress, "PUT", "/a", body, options);
  expect((await send({}, "x".repeat(1_000))).status).toBe(200);
  expect((await send({}, "x".repeat(1_001))).status).toBe(413);
  expect((await send({ headers: { "Transfer-Encoding": "chunked" } }, "x".repeat(1_001))).status).toBe(413);
  expect((await send({ headers: { Connection: "Upgrade", Upgrade: "websocket" } })).status).toBe(501);
  expect((await send({ headers: { Origin: "https://evil.example" } })).status).toBe(403);
  expect((await send({ headers: { Host: "evil.example" } })).status).toBe(403);
  const foreign = await ask<ProblemBody>(sidecar.proxyAddress, "GET", "http://evil.example/");
  expect(foreign.status).toBe(400);
  expect((await send({}, "x")).status).toBe(200);
});

test("a storage that is gone, silent, or speaks nonsense", async () => {
  const store = await storage((request) => {
    if (request.url === "/nonsense") request.socket.end("nonsense\r\n\r\n");
    if (request.url === "/cut") request.socket.destroy();
  });
  const [, sidecar] = await proxied(store.url, "--proxy-timeout", "500ms");
  const get = async (path: string) => {
    const { status, body } = await ask<ProblemBody>(sidecar.proxyAddress, "GET", path);
    return [status, body.code, body.retryable];
  };
  expect(await get("/silent")).toEqual([504, "UNREACHABLE", true]);
  expect(await get("/nonsense")).toEqual([502, "UNREACHABLE", true]);
  expect(await get("/cut")).toEqual([502, "UNREACHABLE", true]);
  store.server.closeAllConnections();
  store.server.close();
  expect(await get("/gone")).toEqual([502, "UNREACHABLE", true]);
  await until(async () => /in_flight 0$/m.test((await sidecar.ask("GET", "/metrics")).text));
});

test("a connection that the storage has closed meanwhile is replaced", async () => {
  const store = await storage((_request, response) => response.end("ok"));
  store.server.keepAliveTimeout = 0; // says nothing of when it closes
  const [, sidecar] = await proxied(store.url);
  for (let i = 0; i < 20; i++) {
    expect((await ask(sidecar.proxyAddress, "GET", "/a")).status).toBe(200);
    store.server.closeIdleConnections();
  }
});

test("an application that hangs up ends its request at the storage", async () => {
  let begun = 0;
  let ended = 0;
  const store = await storage((request, response) => {
    begun++;
    request.on("error", () => {});
    response.on("close", () => ended++);
  });
  const [, sidecar] = await proxied(store.url);
  const { host, port } = target(sidecar.proxyAddress);
  const socket = connect(Number(port), String(host));
  socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  await until(() => begun === 1);
  socket.destroy();
  await until(() => ended === 1);
});

test("asked to stop, it lets requests end that are on their way, and refuses others", async () => {
  let finish: () => void = () => {};
  const store = await storage((_request, response) => {
    finish = () => response.end("finished");
  });
  const [server, sidecar] = await proxied(store.url, "--ttl", "10m", "--stop-after", "60s");
  const first = ask(sidecar.proxyAddress, "PUT", "/a", "x");
  await until(async () => /in_flight 1$/m.test((await sidecar.ask("GET", "/metrics")).text));
  sidecar.signal("SIGTERM");
  await until(async () => (await sidecar.ask("GET", "/readyz")).status === 503);
  expect((await ask<ProblemBody>(sidecar.proxyAddress, "PUT", "/b", "x")).body.code).toBe("CLOSED");
  finish();
  expect((await first).text).toBe("finished");
  expect(await sidecar.exit()).toBe(0);
  expect((await (await client(server)).describe(LOCK)).holders).toEqual([]);
});

test("an election and a proxy of the same name share the lock", async () => {
  const store = await storage((request, response) => response.end(request.headers["fencing-token"]));
  const [, sidecar] = await proxied(store.url, "--elect", LOCK);
  const leader = await sidecar.ask("GET", "/leader");
  expect(leader.body).toMatchObject({ isLeader: true, token: 1 });
  expect((await ask(sidecar.proxyAddress, "GET", "/")).text).toBe("1");
});
