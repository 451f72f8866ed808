import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { Endpoint } from "../../src/server/config/endpoint.js";
import { type OpsOptions, type OpsServer, startOps } from "../../src/server/ops/ops-server.js";

const local: Endpoint = { kind: "tcp", host: "127.0.0.1", port: 0 };
let server: OpsServer | undefined;

afterEach(async () => {
  await server?.stop();
  server = undefined;
});

async function start(options: Partial<OpsOptions> = {}): Promise<string> {
  server = await startOps({
    endpoint: local,
    metrics: { render: async () => "leasehold_draining 0\n", contentType: "text/plain; version=0.0.4; charset=utf-8" },
    readiness: () => ({ ready: true }),
    ...options,
  });
  return `http://${server.address}`;
}

/** Sends bytes as they are and returns everything that comes back until the other side closes. */
function raw(address: string, bytes: string): Promise<string> {
  const [host = "", port = ""] = address.replace("http://", "").split(":");
  return new Promise((resolve) => {
    let answer = "";
    const socket = connect(Number(port), host, () => socket.write(bytes));
    socket.on("data", (chunk) => {
      answer += chunk;
    });
    socket.on("error", () => resolve(answer));
    socket.on("close", () => resolve(answer));
  });
}

describe("the ops server", () => {
  it("serves metrics in the format of Prometheus", async () => {
    const response = await fetch(`${await start()}/metrics?name=x`);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    expect(await response.text()).toBe("leasehold_draining 0\n");
  });

  it("says that it lives, whatever else", async () => {
    const url = await start({ readiness: () => ({ ready: false, reason: "the journal is down" }) });
    const response = await fetch(`${url}/healthz`);
    expect([response.status, await response.text()]).toEqual([200, "ok\n"]);
  });

  it("says whether it is ready, and why not", async () => {
    let reason: string | undefined = "recovering";
    const url = await start({ readiness: () => (reason === undefined ? { ready: true } : { ready: false, reason }) });
    const ask = async () => {
      const response = await fetch(`${url}/readyz`);
      return [response.status, await response.text()];
    };
    expect(await ask()).toEqual([503, "not ready: recovering\n"]);
    reason = undefined;
    expect(await ask()).toEqual([200, "ready\n"]);
    reason = "draining";
    expect(await ask()).toEqual([503, "not ready: draining\n"]);
  });

  it("answers HEAD without a body, other methods with 405, other paths with 404", async () => {
    const url = await start();
    const head = await fetch(`${url}/metrics`, { method: "HEAD" });
    expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([200, "21", ""]);
    const post = await fetch(`${url}/metrics`, { method: "POST", body: "x".repeat(100_000) });
    expect([post.status, post.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
    for (const path of ["/", "/metrics/", "/../etc/passwd", "/constructor"]) {
      expect((await fetch(url + path)).status, path).toBe(404);
    }
  });

  it("survives failing metrics, garbage and huge headers", async () => {
    const errors: unknown[] = [];
    const boom = new Error("boom");
    const url = await start({
      metrics: { render: () => Promise.reject(boom), contentType: "" },
      onError: (error) => errors.push(error),
    });
    const response = await fetch(`${url}/metrics`);
    expect([response.status, await response.text()]).toEqual([500, "internal error\n"]);
    expect(errors).toEqual([boom]);
    expect(await raw(url, "\u0000\u0001garbage\r\n\r\n")).toContain("400 Bad Request");
    expect(await raw(url, `GET / HTTP/1.1\r\nHost: a\r\nX: ${"x".repeat(10_000)}\r\n\r\n`)).toContain("431");
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
  });

  it("drops a connection that never finishes its headers", { timeout: 30_000 }, async () => {
    const url = await start();
    expect(await raw(url, "GET /healthz HTTP/1.1\r\nHost")).toContain("408 Request Timeout");
  });

  it("listens on a unix socket", async () => {
    const folder = mkdtempSync(join(tmpdir(), "leasehold-ops-"));
    const path = join(folder, "ops.sock");
    expect(await start({ endpoint: { kind: "unix", path } })).toBe(`http://unix:${path}`);
    const status = await new Promise((resolve, reject) => {
      request({ socketPath: path, path: "/healthz" }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on("error", reject)
        .end();
    });
    expect(status).toBe(200);
    rmSync(folder, { recursive: true });
  });

  it("rejects when the address is taken, and stops although a connection is open", async () => {
    const url = await start();
    const port = Number(url.split(":").at(-1));
    await expect(
      startOps({
        endpoint: { ...local, port },
        metrics: { render: async () => "", contentType: "" },
        readiness: () => ({ ready: true }),
      }),
    ).rejects.toMatchObject({ code: "EADDRINUSE" });
    const open = raw(url, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    await fetch(`${url}/healthz`);
    await server?.stop();
    await open;
    await expect(fetch(`${url}/healthz`)).rejects.toThrow();
  });
});
