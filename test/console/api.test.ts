/** The API of the console over real HTTP, on a whole server with real clients. */
import { expect, onTestFinished, test } from "vitest";
import { startOps } from "../../src/server/ops/ops-server.js";
import { WallTimes } from "../../src/server/ops/wall-times.js";
import { rpcLimitDefaults, watchLimitDefaults } from "../../src/server/rpc/limits.js";
import { eventLoop } from "../../src/server/sequencer/served-clock.js";
import { WatchHub } from "../../src/server/watch/hub.js";
import { coreLimits, FakeSink, serverStatus } from "../rpc/support.js";
import { ask, startConsole } from "./support.js";

const hostile = '<img src=x onerror="alert(1)">/ü&?#%';
const path = (name: string, action = "") => `/api/v1/locks/${encodeURIComponent(name)}${action}`;

test("lists locks by prefix, page by page", async () => {
  const { url, client } = await startConsole();
  const me = await client("me");
  for (const name of ["a/1", "a/2", "a/3", "b/1", hostile]) await me.acquire(name);
  const first = await ask(url, "/api/v1/locks?prefix=a/&limit=2");
  expect(first.status).toBe(200);
  expect(first.headers).toMatchObject({ "cache-control": "no-store", "x-content-type-options": "nosniff" });
  expect(first.json.locks.map(({ name }: { name: string }) => name)).toEqual(["a/1", "a/2"]);
  expect(first.json.locks[0]).toMatchObject({ holdersTotal: 1, waitersTotal: 0, holders: [{ owner: "me" }] });
  const second = await ask(url, `/api/v1/locks?prefix=a/&limit=2&after=${encodeURIComponent(first.json.next)}`);
  expect(second.json.locks.map(({ name }: { name: string }) => name)).toEqual(["a/3"]);
  expect(second.json.next).toBe("");
  const odd = await ask(url, `/api/v1/locks?prefix=${encodeURIComponent(hostile)}`);
  expect(odd.json.locks[0].name).toBe(hostile);
});

test("shows a lock with its holders, its queue and who blocks whom", async () => {
  const { url, client } = await startConsole();
  const [anna, bert] = [await client("anna"), await client("bert")];
  await anna.acquire(hostile, { metadata: "hello" });
  const waiting = bert.acquire(hostile, { wait: "60s" }).catch(() => null);
  let lock: Record<string, unknown[]> = {};
  for (let i = 0; i < 200 && (lock.waiters?.length ?? 0) === 0; i++) lock = (await ask(url, path(hostile))).json.lock;
  expect(lock).toMatchObject({
    name: hostile,
    holders: [{ owner: "anna", metadata: Buffer.from("hello").toString("base64"), mode: "exclusive" }],
    waiters: [{ owner: "bert", position: 1, blockedBy: { lock: hostile, owner: "anna", hops: 1 } }],
    waitersTotal: 1,
  });
  expect(JSON.stringify(lock)).not.toContain("leaseId");
  await bert.close();
  await waiting;
});

test("names that paths cannot hold go into the query", async () => {
  const { url, client } = await startConsole();
  await (await client("me")).acquire("..");
  expect((await ask(url, "/api/v1/locks/?name=..")).json.lock).toMatchObject({ name: "..", holdersTotal: 1 });
  expect((await ask(url, "/api/v1/locks//timeline?name=..")).json.name).toBe("..");
  expect((await ask(url, "/api/v1/locks/a?name=b")).status).toBe(400);
});

test("tells what has happened to a lock while somebody watched", async () => {
  const { url, client } = await startConsole();
  const me = await client("me");
  const watching = me.watch({ prefix: "" })[Symbol.asyncIterator]();
  await watching.next();
  const beforeMs = Date.now();
  for (let i = 0; i < 3; i++) {
    await (await me.acquire("other")).release();
    await (await me.acquire("x")).release();
  }
  const { json } = await ask(url, path("x", "/timeline"));
  expect(json.events.map(({ kind }: { kind: string }) => kind)).toEqual(
    Array.from({ length: 3 }, () => ["granted", "holdEnded"]).flat(),
  );
  expect(json.events[1]).toMatchObject({ name: "x", end: "released", token: json.events[0].token });
  for (const { atMs } of json.events) {
    expect(atMs).toBeGreaterThanOrEqual(beforeMs - 100);
    expect(atMs).toBeLessThanOrEqual(json.nowMs);
  }
  const cut = await ask(url, path("x", "/timeline?limit=2"));
  expect(cut.json).toMatchObject({ cut: true, events: json.events.slice(-2) });
  await watching.return?.();
});

test("shows leases without their ids, elections with leader and candidates, what is hot, and the server", async () => {
  const { url, client } = await startConsole();
  const [anna, bert] = [await client("anna"), await client("bert")];
  await anna.campaign("billing", { value: "10.0.0.7" });
  await anna.acquire("plain");
  const waiting = bert.campaign("billing").catch(() => null);
  let elections: { candidatesTotal: number }[] = [];
  for (let i = 0; i < 200 && (elections[0]?.candidatesTotal ?? 0) === 0; i++) {
    elections = (await ask(url, "/api/v1/elections")).json.elections;
  }
  expect(elections).toMatchObject([
    { name: "billing", leader: { owner: "anna" }, candidates: [{ owner: "bert" }], candidatesTotal: 1 },
  ]);
  const leases = (await ask(url, "/api/v1/leases")).json.leases;
  expect(leases.map(({ owner }: { owner: string }) => owner).sort()).toEqual(["anna", "bert"]);
  expect(Object.keys(leases[0])).not.toContain("leaseId");
  const { sessions } = (await ask(url, "/api/v1/sessions")).json;
  expect(sessions).toMatchObject([
    { owner: "bert", client: expect.stringMatching(/^@leasehold\/client /), principal: "" },
    { owner: "anna", address: expect.stringMatching(/^127\.0\.0\.1:\d+$/), connectedMs: expect.any(Number) },
  ]);
  expect(JSON.stringify(sessions)).not.toContain("sessionId");
  expect((await ask(url, "/api/v1/sessions?limit=1")).json.sessions).toMatchObject([{ owner: "bert" }]);
  const top = (await ask(url, "/api/v1/top?limit=1")).json;
  expect([top.hottest.length, top.longestHolds.length, top.longestWaits.length]).toEqual([1, 1, 1]);
  expect(top.longestWaits[0]).toMatchObject({ name: "billing", waiter: { owner: "bert" } });
  const status = (await ask(url, "/api/v1/status")).json;
  expect(status).toMatchObject({
    serving: true,
    store: "memory",
    counts: { holds: 2, waiters: 1 },
    you: { principal: "", authentication: false },
  });
  await bert.close();
  await waiting;
});

test("bad input gets an answer that says what is wrong", async () => {
  const { url } = await startConsole();
  const bad: [path: string, status: number, message: string][] = [
    ["/api/v1/locks?limit=0", 400, "limit must be 1 to 1000"],
    ["/api/v1/locks?limit=1e3", 400, "limit must be 1 to 1000"],
    ["/api/v1/locks?limit=1001", 400, "limit must be 1 to 1000"],
    ["/api/v1/locks?prefx=a", 400, 'there is no parameter "prefx" here'],
    ["/api/v1/locks?prefix=a&prefix=b", 400, 'the parameter "prefix" is given twice'],
    ["/api/v1/locks?prefix=%00", 400, "control character U+0000"],
    [`/api/v1/locks?prefix=${"x".repeat(600)}`, 400, "600 bytes"],
    [`/api/v1/locks/${"x".repeat(600)}`, 400, "600 bytes"],
    ["/api/v1/locks/", 400, "name must not be empty"],
    ["/api/v1/locks/%ff", 400, "not well encoded"],
    ["/api/v1/locks/a%0ab", 400, "control character"],
    ["/api/v1/locks/a/timeline?limit=5000", 400, "limit must be 1 to 1000"],
    ["/api/v1/top?limit=101", 400, "limit must be 1 to 100"],
    ["/api/v1/leases?prefix=x", 400, "no parameter"],
    ["/api/v1/sessions?after=x", 400, "no parameter"],
    ["/api/v1/sessions?limit=0", 400, "limit"],
    ["/api/v1/events?name=a&prefix=b", 400, "either name or prefix"],
    ["/api/v1/constructor", 404, "no such thing"],
    ["/api/v1/locks/a/b/c", 404, "no such thing"],
    ["/api/v1/../../etc/passwd", 404, "no such thing"],
  ];
  for (const [where, status, message] of bad) {
    const answer = await ask(url, where);
    expect([answer.status, answer.json.error.message], where).toEqual([status, expect.stringContaining(message)]);
  }
  for (const method of ["POST", "PUT", "DELETE", "HEAD"]) {
    expect((await ask(url, "/api/v1/locks", { method })).status, method).toBe(405);
  }
  expect((await ask(url, path("a", "/force-release"))).headers).toMatchObject({ allow: "POST" });
});

test("the files of the console are a fixed table, with a strict policy", async () => {
  const { url } = await startConsole();
  expect(await ask(url, "/")).toMatchObject({ status: 302, headers: { location: "/console/" } });
  const page = await ask(url, "/console/");
  expect(page.status).toBe(200);
  expect(page.headers).toMatchObject({
    "content-type": "text/html; charset=utf-8",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": expect.stringContaining("script-src 'self'"),
  });
  expect(page.text).not.toMatch(/<script(?![^>]*src=)|style=|https?:/);
  expect((await ask(url, "/console/views/lock.js")).headers).toMatchObject({
    "content-type": "text/javascript; charset=utf-8",
  });
  const outside = [
    "../ops-server.js",
    "..%2fops-server.js",
    "views/../../answer.js",
    "views/",
    "constructor",
    "%2e%2e/x",
    "app.js/",
  ];
  for (const file of outside) expect((await ask(url, `/console/${file}`)).status, file).toBe(404);
  expect((await ask(url, "/console/", { method: "POST" })).status).toBe(405);
});

test("a server whose core does not answer still says how it is, and why", async () => {
  const sink = new FakeSink();
  sink.refusal = { reason: "STORE_DOWN", message: "the store is down", retryAfterMs: 1_000 };
  const limits = { ...coreLimits, ...rpcLimitDefaults };
  const watch = new WatchHub({ sink, limits: watchLimitDefaults, turns: eventLoop, wallMs: () => 0 });
  const ops = await startOps({
    endpoint: { kind: "tcp", host: "127.0.0.1", port: 0 },
    metrics: { render: async () => "", contentType: "text/plain" },
    readiness: () => ({ ready: true }),
    console: {
      sink,
      watch,
      coreLimits: limits,
      limits,
      wallTimes: new WallTimes(() => 0),
      hottest: () => [],
      sessions: () => [],
      serverStatus: () => ({ ...serverStatus, notServingReason: "" }),
    },
  });
  onTestFinished(() => ops.stop());
  const url = `http://${ops.address}`;
  const { status, json } = await ask(url, "/api/v1/status");
  expect([status, json.serving, json.notServingReason, json.counts]).toEqual([200, false, "the store is down", null]);
  for (const path of ["locks", "locks/a", "locks/a/timeline", "top", "leases", "elections"]) {
    const answer = await ask(url, `/api/v1/${path}`);
    expect([answer.status, answer.json.error.reason], path).toEqual([503, "STORE_DOWN"]);
  }
  expect((await ask(url, "/api/v1/events")).text).toMatch(/^event: failed\ndata: .*"STORE_DOWN"/);
});
