/** Every request of the sidecar's API, against a real server. */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { Validator } from "@seriousme/openapi-schema-validator";
import { expect, test } from "vitest";
import type { HoldBody, ProblemBody } from "../../src/sidecar/api/schemas.js";
import { acquireOnly } from "../cli/acquire-only.js";
import { type Address, memoryServer } from "../e2e/in-process.js";
import { root, ServerProcess, temporaryFolder, until } from "../e2e/support.js";
import { client } from "../run/support.js";
import { run, SidecarProcess } from "./support.js";

async function both(...flags: string[]): Promise<[Address, SidecarProcess]> {
  const server = await memoryServer();
  return [server, await SidecarProcess.start(server, ...flags)];
}

test("the description is valid OpenAPI, is served, and is the file among the documents", async () => {
  const [, sidecar] = await both();
  const { body } = await sidecar.ask("GET", "/v1/openapi.json");
  const result = await new Validator().validate(structuredClone(body));
  expect(result.errors ?? []).toEqual([]);
  expect(result.valid).toBe(true);
  expect(JSON.parse(readFileSync(join(root, "docs/openapi/sidecar.json"), "utf8"))).toEqual(body);
});

test("a lock is taken, seen, refused to others, and released", async () => {
  const [server, sidecar] = await both("--owner", "shop");
  const request = { maxHold: "1m", metadata: "order 42", ttl: "20s" };
  const taken = await sidecar.ask<HoldBody>("POST", "/v1/locks/orders%2F42/acquire", request);
  expect(taken.status).toBe(200);
  expect(taken.body).toMatchObject({ name: "orders/42", mode: "exclusive", token: 1, state: "held", tie: "maxHold" });
  expect(taken.body.remainingMs).toBeGreaterThan(15_000);
  expect(JSON.stringify(taken.body)).not.toContain("lease");
  const outside = await (await client(server)).describe("orders/42");
  expect(outside.holders[0]).toMatchObject({ token: 1, owner: "shop" });

  const seen = await sidecar.ask("GET", "/v1/locks/orders%2F42");
  expect(seen.body).toMatchObject({ holders: [{ token: 1, owner: "shop", metadata: "order 42" }], waitersTotal: 0 });
  const refused = await sidecar.ask<ProblemBody>("POST", "/v1/lock/acquire?name=orders/42", { maxHold: 1_000 });
  expect(refused.status).toBe(423);
  expect(refused.body).toMatchObject({
    code: "BUSY",
    retryable: true,
    busy: { holders: [{ owner: "shop", token: 1 }] },
  });

  const listed = await sidecar.ask("GET", "/v1/holds");
  expect(listed.body).toMatchObject({ total: 1, holds: [{ holdId: taken.body.holdId }] });
  expect((await sidecar.ask("GET", `/v1/holds/${taken.body.holdId}`)).body).toMatchObject({ token: 1 });
  expect((await sidecar.ask("POST", "/v1/locks/orders%2F42/release", { token: 7 })).status).toBe(409);
  expect((await sidecar.ask("POST", "/v1/locks/other/release", { token: 1 })).status).toBe(409);
  expect((await sidecar.ask("POST", "/v1/locks/orders%2F42/release", { token: 1 })).body).toEqual({ released: true });
  expect((await sidecar.ask("GET", `/v1/holds/${taken.body.holdId}`)).status).toBe(404);
  expect((await (await client(server)).describe("orders/42")).holders).toEqual([]);
});

test("shared, semaphores, waits, and the queue", async () => {
  const [, sidecar] = await both();
  const take = (query: string) => sidecar.ask<HoldBody>("POST", `/v1/lock/acquire?maxHold=1m&${query}`);
  expect((await take("name=s&mode=shared")).body.mode).toBe("shared");
  expect((await take("name=s&mode=shared")).status).toBe(200);
  const one = await take("name=p&permits=3&take=2");
  expect(one.body).toMatchObject({ mode: "semaphore", slots: [0, 1] });
  expect((await take("name=p&permits=3&take=2")).status).toBe(423);
  const waiting = take("name=p&permits=3&take=2&wait=20s");
  await until(async () => (await sidecar.ask("GET", "/v1/lock?name=p")).body.waitersTotal === 1);
  expect((await sidecar.ask("GET", "/v1/status")).body).toMatchObject({ waits: 1, holds: 3, connection: "connected" });
  await sidecar.ask("DELETE", `/v1/holds/${one.body.holdId}`);
  expect((await waiting).body).toMatchObject({ slots: [0, 1] });
});

test("a heartbeat keeps a hold, and without one the server ends it", async () => {
  const [server, sidecar] = await both();
  const beat = 2_000;
  const { body } = await sidecar.ask<HoldBody>("POST", "/v1/locks/a/acquire", { heartbeat: beat, ttl: "5s" });
  expect(body).toMatchObject({ tie: "heartbeat", heartbeatMs: beat });
  const grantedAt = performance.now();
  let kept = 0;
  while (performance.now() - grantedAt < 2 * beat) {
    const answer = await sidecar.ask<HoldBody>("POST", `/v1/holds/${body.holdId}/keep`);
    expect(answer.status).toBe(200);
    kept = answer.body.untilMonotonicMs;
    await until(() => Number(process.hrtime.bigint()) / 1e6 > kept - 1_000);
  }
  const waiter = await client(server);
  const next = await waiter.acquire("a", { wait: "20s" });
  expect(Number(process.hrtime.bigint()) / 1e6).toBeGreaterThan(kept); // not before the application had to know
  expect(next.token).toBeGreaterThan(body.token);
  const late = await sidecar.ask<ProblemBody>("POST", `/v1/holds/${body.holdId}/keep`);
  expect([late.status, late.body.code, late.body.lost]).toEqual([410, "LOST", "expired"]);
  expect((await sidecar.ask("GET", `/v1/holds/${body.holdId}`)).status).toBe(410);
  expect((await sidecar.ask("DELETE", `/v1/holds/${body.holdId}`)).body).toEqual({ released: false });
});

test("a hold must say what ends it when its application is gone", async () => {
  const [server, sidecar] = await both();
  const answer = await sidecar.ask<ProblemBody>("POST", "/v1/locks/a/acquire");
  expect([answer.status, answer.body.code]).toEqual([400, "INVALID"]);
  const { body } = await sidecar.ask<HoldBody>("POST", "/v1/locks/a/acquire", { maxHold: "300ms" });
  expect((await sidecar.ask("POST", `/v1/holds/${body.holdId}/keep`)).status).toBe(400);
  const next = await (await client(server)).acquire("a", { wait: "20s" });
  expect(next.token).toBeGreaterThan(body.token);
});

test("a request that is repeated with its id gets the same hold, also at the same time", async () => {
  const [, sidecar] = await both();
  const take = (more: object = {}) =>
    sidecar.ask<HoldBody>("POST", "/v1/locks/a/acquire", { maxHold: "1m", wait: "20s", requestId: "r1", ...more });
  const [first, second] = await Promise.all([take(), take()]);
  expect(second.body.holdId).toBe(first.body.holdId);
  expect((await take()).body.token).toBe(first.body.token);
  expect((await take({ maxHold: "2m" })).status).toBe(400);
  await sidecar.ask("DELETE", `/v1/holds/${first.body.holdId}`);
  expect((await take()).status).toBe(410); // a late duplicate takes nothing
  expect((await sidecar.ask("GET", "/v1/lock?name=a")).body.holders).toEqual([]);
});

test("an answer that nobody takes leaves no lock behind, and a wait that is given up leaves the queue", async () => {
  const [server, sidecar] = await both();
  const holder = await client(server);
  const lock = await holder.acquire("a");
  const gone = sidecar.hold("/v1/locks/a/acquire?maxHold=1h&wait=10m");
  const waiters = async () => (await holder.describe("a")).waitersTotal;
  await until(async () => (await waiters()) === 1);
  gone.close();
  await until(async () => (await waiters()) === 0);
  await lock.release();
  expect((await holder.describe("a")).holders).toEqual([]);
});

test("deadlocks are found with what the application says that it holds", async () => {
  const [, sidecar] = await both();
  const take = (name: string, more: object = {}) =>
    sidecar.ask<HoldBody & ProblemBody>("POST", `/v1/locks/${name}/acquire`, { maxHold: "1m", ...more });
  const a = await take("a");
  const b = await take("b");
  const first = take("b", { holding: [a.body.holdId], wait: "20s" });
  await until(async () => (await sidecar.ask("GET", "/v1/lock?name=b")).body.waitersTotal === 1);
  const second = await take("a", { holding: [b.body.holdId], wait: "20s" });
  expect([second.status, second.body.code]).toEqual([409, "DEADLOCK"]);
  expect(second.body.knot?.length).toBeGreaterThan(0);
  await sidecar.ask("DELETE", `/v1/holds/${b.body.holdId}`);
  expect((await first).status).toBe(200);
});

test("the clock", async () => {
  const [, sidecar] = await both();
  const one = await sidecar.ask("POST", "/v1/clock/tick");
  const many = await sidecar.ask("POST", "/v1/clock/tick", { observed: 5_000, count: 3 });
  expect(many.body.first).toBeGreaterThan(5_000);
  expect(Number(many.body.last) - Number(many.body.first)).toBe(2);
  expect(Number(one.body.last)).toBeLessThan(Number(many.body.first));
  const seen = await sidecar.ask("POST", "/v1/clock/observe", { timestamp: 9_000 });
  expect(seen.body.timestamp).toBe(9_001);
  const absurd = await sidecar.ask<ProblemBody>("POST", "/v1/clock/observe", { timestamp: 2 ** 53 - 2 });
  expect([absurd.status, absurd.body.code]).toEqual([409, "CLOCK_JUMP"]);
  expect((await sidecar.ask("POST", "/v1/clock/tick", { observed: 2 ** 53 - 2 })).status).toBe(409);
  expect((await sidecar.ask("POST", "/v1/clock/tick")).body.first).toBeGreaterThan(9_001); // the clock is unharmed
});

const NAMES = [".", "..", "../..", "a/b", "a%2Fb", "?", "#", "a b", "a+b", "ä/ö", "\\", "%", "😀", "v1", "release"];

test.each(NAMES)("the name %j, in the path and in the query", async (name) => {
  const [, sidecar] = await both();
  const encoded = encodeURIComponent(name);
  const byPath = await sidecar.ask<HoldBody>("POST", `/v1/locks/${encoded}/acquire`, { maxHold: "1m" });
  expect([byPath.status, byPath.body.name]).toEqual([200, name]);
  const byQuery = await sidecar.ask("GET", `/v1/lock?name=${encoded}`);
  expect(byQuery.body).toMatchObject({ name, holders: [{ token: byPath.body.token }] });
  // What normalises paths, as curl and fetch do with dots, uses the query.
  const fetched = await fetch(`${sidecar.url}/v1/lock/release?name=${encoded}&token=${byPath.body.token}`, {
    method: "POST",
  });
  expect(await fetched.json()).toEqual({ released: true });
  const curled = await run("curl", ["-sS", "-XPOST", `${sidecar.url}/v1/lock/acquire?maxHold=1m&name=${encoded}`]);
  expect(JSON.parse(curled.stdout)).toMatchObject({ name });
});

test("a unix socket, with its mode, for curl; one that a dead sidecar left is replaced", async () => {
  const path = join(await temporaryFolder(), "sidecar.sock");
  const server = await memoryServer();
  const first = await SidecarProcess.start(server, "--listen", `unix:${path}`);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  first.signal("SIGKILL");
  await first.exit();
  const sidecar = await SidecarProcess.start(server, "--listen", `unix:${path}`, "--socket-mode", "660");
  expect(statSync(path).mode & 0o777).toBe(0o660);
  expect((await sidecar.ask("GET", "/v1/status")).status).toBe(200);
  const curl = await run("curl", ["-sS", "--unix-socket", path, "http://x/readyz"]);
  expect(curl.stdout).toBe("ready\n");
  const second = SidecarProcess.spawn(["--addr", server.address, "--listen", `unix:${path}`]);
  expect(await second.exit()).toBe(70); // the first one lives
  expect((await sidecar.ask("GET", "/v1/status")).status).toBe(200);
});

test("probes and metrics, also on their own address, where nothing else is", async () => {
  const [, sidecar] = await both("--ops-listen", "127.0.0.1:0");
  for (const path of ["/healthz", "/readyz", "/metrics"]) {
    expect((await sidecar.ask("GET", path)).status).toBe(200);
    expect((await fetch(`http://${sidecar.opsAddress}${path}`)).status).toBe(200);
  }
  for (const path of ["/v1/holds", "/leader", "/v1/status"]) {
    expect((await fetch(`http://${sidecar.opsAddress}${path}`)).status).toBe(404);
  }
  await sidecar.ask("POST", "/v1/locks/secret-name/acquire", { maxHold: "1m" });
  const { text } = await sidecar.ask("GET", "/metrics");
  expect(text).toMatch(/^leasehold_sidecar_holds 1$/m);
  expect(text).toContain('leasehold_sidecar_requests_total{route="/v1/locks/{name}/acquire",status="200"} 1');
  expect(text).not.toContain("secret-name");
  expect((await sidecar.ask("GET", "/leader")).status).toBe(404);
});

test("without a server it serves, is not ready, and says so; it goes on when there is one", async () => {
  const first = await ServerProcess.start("memory:");
  await first.kill();
  const sidecar = SidecarProcess.spawn(["--addr", first.address, "--listen", "127.0.0.1:0"]);
  await sidecar.serving();
  expect((await sidecar.ask("GET", "/healthz")).status).toBe(200);
  expect((await sidecar.ask("GET", "/readyz")).status).toBe(503);
  const refused = await sidecar.ask<ProblemBody>("POST", "/v1/locks/a/acquire", { maxHold: "1m" });
  expect([refused.status, refused.body.code, refused.headers["retry-after"]]).toEqual([503, "UNREACHABLE", "1"]);
  expect((await sidecar.ask("GET", "/v1/lock?name=a")).status).toBe(503);
  await first.restart();
  await until(async () => (await sidecar.ask("GET", "/readyz")).status === 200, 30_000, "readiness");
  expect((await sidecar.ask("POST", "/v1/locks/a/acquire", { maxHold: "1m" })).status).toBe(200);
});

test("is ready beside a server whose policy lets it acquire only, also after a while without work", async () => {
  const { server, credentials, denied } = await acquireOnly();
  const sidecar = await SidecarProcess.start(server, ...credentials, "--log-level", "debug");
  await until(() => sidecar.log.includes('"connection":"idle"'), 20_000, "idleness");
  expect(await sidecar.ask("GET", "/readyz")).toMatchObject({ status: 200, text: "ready\n" });
  expect(denied()).toEqual([]);
});
