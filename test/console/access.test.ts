/** Who may see what and take what away; and what pages of other sites may do, which is nothing. */
import { expect, test } from "vitest";
import { as, ask, startConsole, testAccess } from "./support.js";

const force = "/api/v1/locks/ci%2Fbuild/force-release";
const json = { "content-type": "application/json" };

test("whoever is not known sees nothing but probes and the page itself", async () => {
  const { url } = await startConsole(testAccess());
  for (const path of [
    "status",
    "locks",
    "locks/a",
    "locks/a/timeline",
    "leases",
    "sessions",
    "elections",
    "top",
    "events",
  ]) {
    const answer = await ask(url, `/api/v1/${path}`);
    expect([answer.status, answer.json?.error.reason], path).toEqual([401, "UNAUTHENTICATED"]);
    expect(answer.headers["www-authenticate"], path).toBe("Bearer");
    expect((await ask(url, `/api/v1/${path}`, { headers: as("wrong") })).status, path).toBe(401);
  }
  const metrics = await ask(url, "/metrics");
  expect([metrics.status, metrics.headers["www-authenticate"]]).toEqual([401, "Bearer"]);
  expect((await ask(url, "/metrics", { headers: as("ci") })).text).toContain("leasehold_");
  for (const path of ["/healthz", "/readyz", "/console/"]) expect((await ask(url, path)).status, path).toBe(200);
});

test("whoever may see only some locks sees only these", async () => {
  const { url } = await startConsole(testAccess());
  const headers = as("ci");
  const permitted = ["status", "locks?prefix=ci/", "locks/ci%2Fx", "locks/ci%2Fx/timeline", "elections?prefix=ci/"];
  for (const path of permitted) expect((await ask(url, `/api/v1/${path}`, { headers })).status, path).toBe(200);
  const denied = [
    "locks",
    "locks?prefix=c",
    "locks/other",
    "locks/other/timeline",
    "elections",
    "leases",
    "sessions",
    "top",
    "events",
    "events?name=x",
  ];
  for (const path of denied) {
    const answer = await ask(url, `/api/v1/${path}`, { headers });
    expect([answer.status, answer.json?.error.reason], path).toEqual([403, "DENIED"]);
  }
});

test("whoever asks too much is told when to come back", async () => {
  const access = testAccess();
  const { url } = await startConsole(access);
  access.exhausted.add("viewer");
  const answer = await ask(url, "/api/v1/locks", { headers: as("viewer") });
  expect([answer.status, answer.json]).toEqual([
    429,
    { error: { reason: "LIMIT", message: "too many requests", retryAfterMs: 7 } },
  ]);
});

test("only an administrator takes a lock away, in one step or in two", async () => {
  const { url, client } = await startConsole(testAccess());
  const holder = await client("holder");
  const lock = await holder.acquire("ci/build");
  const body = JSON.stringify({ reason: "stuck", now: true });
  for (const token of ["viewer", "ci"]) {
    const answer = await ask(url, force, { method: "POST", headers: { ...json, ...as(token) }, body });
    expect([answer.status, answer.json.error.reason], token).toEqual([403, "DENIED"]);
  }
  expect(lock.state.is).toBe("held");
  const headers = { ...json, ...as("admin") };
  const wrong = await ask(url, force, { method: "POST", headers, body: JSON.stringify({ token: 999_999 }) });
  expect([wrong.status, wrong.json.error.reason]).toEqual([409, "STALE_TOKEN"]);

  const asked = await ask(url, force, {
    method: "POST",
    headers,
    body: JSON.stringify({ token: lock.token, reason: "r" }),
  });
  expect(asked.json).toMatchObject({ ended: [], revoking: [lock.token] });
  const again = await holder.acquire("ci/other");
  const now = await ask(url, force.replace("build", "other"), { method: "POST", headers, body });
  expect(now.json).toEqual({ ended: [again.token], revoking: [], withinMs: 0 });
});

test("without authentication nothing is taken away, and it is told how it could be", async () => {
  const { url, client } = await startConsole();
  const lock = await (await client("holder")).acquire("ci/build");
  const answer = await ask(url, force, { method: "POST", headers: json, body: "{}" });
  expect([answer.status, answer.json.error.message]).toEqual([403, expect.stringContaining("set authTokens")]);
  expect(lock.state.is).toBe("held");
});

test("bodies are JSON, short and well-formed", async () => {
  const { url } = await startConsole(testAccess());
  const post = (body: string, headers: Record<string, string> = json) =>
    ask(url, force, { method: "POST", headers: { ...headers, ...as("admin") }, body });
  const bad: [answer: ReturnType<typeof post>, status: number, message: string][] = [
    [post("{}", {}), 415, "application/json"],
    [post("{}", { "content-type": "text/plain" }), 415, "application/json"],
    [post("{"), 400, "not JSON"],
    [post("[]"), 400, "expected object"],
    [post('{"token":-1}'), 400, "token"],
    [post('{"token":1.5}'), 400, "token"],
    [post('{"now":"yes"}'), 400, "now"],
    [post('{"forever":true}'), 400, "forever"],
    [post(JSON.stringify({ reason: "x".repeat(300) })), 400, "300 bytes"],
    [post(JSON.stringify({ reason: "a\nb" })), 400, "control character"],
    [post(" ".repeat(5_000)), 413, "4096 bytes"],
  ];
  for (const [answer, status, message] of bad) {
    const { status: is, json: body } = await answer;
    expect([is, body.error.message]).toEqual([status, expect.stringContaining(message)]);
  }
});

test("a page of another site gets nothing", async () => {
  const open = await startConsole();
  const port = new URL(open.url).port;
  const own = { host: `localhost:${port}` };
  const headers: [headers: Record<string, string>, status: number][] = [
    [own, 200],
    [{ host: `127.0.0.1:${port}` }, 200],
    [{ host: `[::1]:${port}` }, 200],
    [{ host: `console.localhost:${port}` }, 200],
    [{ host: `localhost.evil.example:${port}` }, 403], // rebinding
    [{ host: "evil.example" }, 403],
    [{ ...own, "sec-fetch-site": "same-origin", origin: `http://localhost:${port}` }, 200],
    [{ ...own, "sec-fetch-site": "none" }, 200],
    [{ ...own, "sec-fetch-site": "cross-site" }, 403],
    [{ ...own, "sec-fetch-site": "same-site" }, 403], // another port of this machine
    [{ ...own, origin: "http://evil.example" }, 403],
    [{ ...own, origin: "null" }, 403],
    [{ ...own, origin: "http://localhost:1" }, 403],
  ];
  for (const [sent, status] of headers) {
    expect((await ask(open.url, "/api/v1/status", { headers: sent })).status, JSON.stringify(sent)).toBe(status);
  }
  // With authentication any name will do: another site's page knows no token. But it may not use this browser.
  const { url } = await startConsole(testAccess());
  const named = { ...as("admin"), host: "leasehold.example" };
  expect((await ask(url, "/api/v1/status", { headers: named })).status).toBe(200);
  const foreign = { ...named, ...json, origin: "https://evil.example" };
  expect((await ask(url, force, { method: "POST", headers: foreign, body: "{}" })).status).toBe(403);
});
