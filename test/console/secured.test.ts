/** The console behind real authentication, a real policy and encryption; and what the audit log says of it. */
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { connect } from "@leasehold/client";
import { expect, onTestFinished, test } from "vitest";
import { until } from "../e2e/support.js";
import { file, serve, tokenLine } from "../security/support.js";
import { certificateAuthority } from "../services/certificates.mjs";
import { describeWithServices } from "../services/vitest.js";
import { as, ask } from "./support.js";

const policy = (principal: string) => `
rules:
  - principal: "${principal}"
    prefix: ""
    verbs: [acquire, observe, admin]
  - principal: "token/ci"
    prefix: "ci/"
    verbs: [acquire, observe]
`;

test("a policy decides who sees and takes what, and the audit log tells", async () => {
  const auditLog = file("");
  const server = await serve({
    authTokens: file(tokenLine("ops", "ops-secret") + tokenLine("ci", "ci-secret")),
    policy: file(policy("token/ops")),
    auditLog,
  });
  const url = `http://${server.opsAddress}`;
  const client = await connect(server.address, { token: "ci-secret" });
  onTestFinished(() => client.close());
  const lock = await client.acquire("ci/build");
  expect((await ask(url, "/api/v1/locks?prefix=ci/", { headers: as("ci-secret") })).json.locks).toHaveLength(1);
  expect((await ask(url, "/api/v1/locks", { headers: as("ci-secret") })).status).toBe(403);
  const post = (token: string) =>
    ask(url, "/api/v1/locks/ci%2Fbuild/force-release", {
      method: "POST",
      headers: { ...as(token), "content-type": "application/json", "x-request-id": "from-the-console" },
      body: JSON.stringify({ reason: "stuck", now: true }),
    });
  expect((await post("ci-secret")).status).toBe(403);
  expect((await post("ops-secret")).json.ended).toEqual([lock.token]);
  await until(() => readFileSync(auditLog, "utf8").includes("force_release"));
  const lines = readFileSync(auditLog, "utf8").trim().split("\n");
  const acts = lines.map((line) => JSON.parse(line)).filter(({ event }) => event === "force_release");
  expect(acts).toMatchObject([
    {
      principal: "token/ops",
      requestId: "from-the-console",
      address: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
      lock: "ci/build",
      now: true,
      reason: "stuck",
      outcome: "OK",
    },
  ]);
  expect(lines.join()).not.toContain("-secret");
});

describeWithServices("the console with certificates", ["openssl"], () => {
  test("a client certificate of a trusted authority is as good as a token, one of another is none", async () => {
    const [authority, other] = [await certificateAuthority(), await certificateAuthority("other")];
    const own = await authority.issue("server", { san: ["DNS:localhost", "IP:127.0.0.1"] });
    const server = await serve({
      tlsCert: own.certFile,
      tlsKey: own.keyFile,
      tlsClientCa: authority.certFile,
      tlsClientAuth: "optional",
      policy: file(policy("cert/spiffe://prod/ops")),
    });
    const san = ["URI:spiffe://prod/ops"];
    const known = await authority.issue("ops", { san });
    const foreign = await other.issue("ops", { san });
    const get = (path: string, shown: { cert?: string; key?: string }): Promise<[status: number, text: string]> =>
      new Promise((resolve, reject) => {
        const to = `https://${server.opsAddress}${path}`;
        request(to, { ca: authority.cert, cert: shown.cert, key: shown.key, agent: false }, async (response) => {
          let text = "";
          for await (const chunk of response) text += chunk;
          resolve([response.statusCode ?? 0, text]);
        })
          .on("error", reject)
          .end();
      });
    const [status, text] = await get("/api/v1/status", known);
    expect([status, JSON.parse(text).you]).toEqual([
      200,
      { principal: "cert/spiffe://prod/ops", authentication: true },
    ]);
    expect((await get("/api/v1/locks", known))[0]).toBe(200);
    for (const shown of [foreign, {}]) expect((await get("/api/v1/status", shown))[0]).toBe(401);
    expect((await get("/metrics", {}))[0]).toBe(401);
    expect((await get("/metrics", known))[0]).toBe(200);
    for (const path of ["/healthz", "/readyz", "/console/"]) expect((await get(path, {}))[0], path).toBe(200);
  });
});
