/** The client over real sockets. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as connectSocket, createServer, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { ServerCredentials } from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import { type Client, connect } from "../../src/client/index.js";
import { GrpcServer } from "./grpc-server.js";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(...args: Parameters<typeof GrpcServer.start>): Promise<GrpcServer> {
  const server = await GrpcServer.start(...args);
  cleanups.push(() => server.stop());
  return server;
}

async function connected(...args: Parameters<typeof connect>): Promise<Client> {
  const client = await connect(...args);
  cleanups.push(() => client.close());
  return client;
}

/** A port on which nobody listens. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address ? address.port : 0;
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within 10 s: ${what}`);
    await delay(5);
  }
}

/** Passes bytes on to a server until it is cut. */
async function proxy(target: string): Promise<{ target: string; cut(): void }> {
  const sockets = new Set<Socket>();
  const [host = "", port = ""] = target.split(":");
  const server = createServer((near) => {
    const far = connectSocket(Number(port), host);
    near.pipe(far).pipe(near);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {});
    }
  }).listen(0, "127.0.0.1");
  const cut = () => {
    for (const socket of sockets) socket.destroy();
    sockets.clear();
  };
  cleanups.push(() => server.close(), cut);
  await once(server, "listening");
  return { target: `127.0.0.1:${(server.address() as { port: number }).port}`, cut };
}

const pem = (name: string) => readFileSync(new URL(`./tls/${name}.pem`, import.meta.url));

describe("over TCP", () => {
  it("takes and releases locks, and says goodbye", async () => {
    const server = await start();
    const client = await connected(server.target);
    expect(await client.withLock("a", (lock) => lock.token)).toBe(1);
    const lock = await client.acquire("a");
    expect(lock.grant).toEqual({ token: 2, timestamp: 1, leaseId: "L", slots: [] });
    expect(await lock.release()).toBe(true);
    await client.close();
    await until(() => server.streams.size === 0, "the stream is closed");
    await expect(client.acquire("a")).rejects.toMatchObject({ code: "CLOSED" });
  });

  it("resumes when the connection is cut", async () => {
    const server = await start();
    const { target, cut } = await proxy(server.target);
    const client = await connected(target);
    const lock = await client.acquire("a");
    cut();
    await until(() => server.hellos.length === 2, "the session is resumed");
    expect(server.hellos[1]).toMatchObject({ sessionId: "s1", epoch: 2, claims: [1], clusterId: "c1" });
    expect(lock.state.is).toBe("held");
    expect(await lock.release()).toBe(true);
  });

  it("survives a stop of the server and finds it again", async () => {
    const first = await start();
    const client = await connected(first.target);
    const lock = await client.acquire("a");
    first.stop();
    const second = await start(ServerCredentials.createInsecure(), first.target);
    await until(() => second.hellos.length === 1, "the session is resumed");
    expect(second.hellos[0]).toMatchObject({ sessionId: "s1", claims: [1] });
    expect(lock.state.is).toBe("held");
    await client.close();
  });

  it("reads the reason of a refusal from the trailers", async () => {
    const server = await start();
    server.refusal = { code: 16, reason: "DENIED", message: "no credentials" };
    await expect(connect(server.target)).rejects.toMatchObject({ code: "DENIED", message: "no credentials" });
    server.refusal = { code: 14, reason: "STORE_DOWN", message: "recovering" };
    const client = await connected(server.target);
    expect(server.hellos).toHaveLength(3);
    expect((await client.acquire("a")).token).toBe(1);
  });

  it("tries several addresses in turn", async () => {
    const server = await start();
    const client = await connected([`127.0.0.1:${await freePort()}`, server.target]);
    expect((await client.acquire("a")).token).toBe(1);
  });

  it("does not ask a proxy to reach this machine", async () => {
    const server = await start();
    const dead = `http://127.0.0.1:${await freePort()}`;
    for (const name of ["http_proxy", "https_proxy", "grpc_proxy"]) {
      const before = process.env[name];
      process.env[name] = dead;
      cleanups.push(() => {
        if (before === undefined) delete process.env[name];
        else process.env[name] = before;
      });
    }
    const client = await connected(server.target);
    expect((await client.acquire("a")).token).toBe(1);
  });

  it("says when nobody listens", async () => {
    const port = await freePort();
    await expect(connect(`localhost:${port}`, { timeout: "500ms" })).rejects.toMatchObject({
      code: "UNREACHABLE",
      message: `cannot reach localhost:${port} (ECONNREFUSED). Start one: npx leasehold serve`,
    });
  });

  it("says when somebody listens who does not answer", async () => {
    const server = createServer((socket) => cleanups.push(() => socket.destroy())).listen(0, "127.0.0.1");
    cleanups.push(() => server.close());
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    await expect(connect(`127.0.0.1:${port}`, { timeout: "300ms" })).rejects.toMatchObject({ code: "UNREACHABLE" });
  });
});

describe("over a unix socket", () => {
  it("works alike", async () => {
    const server = await GrpcServer.startOnSocket();
    cleanups.push(() => server.stop());
    const client = await connected(server.target);
    expect(await client.withLock("a", (lock) => lock.token)).toBe(1);
  });
});

describe("over TLS", () => {
  const serve = () => start(ServerCredentials.createSsl(null, [{ private_key: pem("key"), cert_chain: pem("cert") }]));

  it("trusts whom it is told to trust", async () => {
    const server = await serve();
    const client = await connected(server.target, { tls: { ca: pem("cert"), serverName: "leasehold.test" } });
    expect((await client.acquire("a")).token).toBe(1);
  });

  it("trusts nobody else", async () => {
    const server = await serve();
    await expect(connect(server.target, { tls: {}, timeout: "500ms" })).rejects.toMatchObject({ code: "UNREACHABLE" });
  });

  it("refuses what is no certificate", async () => {
    await expect(connect("localhost:1", { tls: { ca: "x", cert: "y", key: "z" } })).rejects.toMatchObject({
      code: "INVALID",
    });
  });
});

describe("a script", () => {
  const run = (target: string, body: string) =>
    new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
      const module = new URL("../../src/client/dist/index.js", import.meta.url).href;
      const script = `import { connect } from ${JSON.stringify(module)};
        const client = await connect(${JSON.stringify(target)});
        ${body}`;
      const child = execFile(
        process.execPath,
        ["--input-type=module", "-e", script],
        { timeout: 15_000 },
        (error, stdout, stderr) => {
          resolve({ code: error ? (error.code ?? error.signal) : 0, stdout, stderr });
        },
      );
      cleanups.push(() => child.kill("SIGKILL"));
    });

  it("ends by itself when it has released its locks, without close", async () => {
    const server = await start();
    const ended = await run(
      server.target,
      `const lock = await client.acquire("a"); await lock.release(); console.log("released");`,
    );
    expect(ended).toEqual({ code: 0, stdout: "released\n", stderr: "" });
  });

  it("ends by itself when it has only connected", async () => {
    const server = await start();
    expect(await run(server.target, "")).toMatchObject({ code: 0, stderr: "" });
  });

  it("goes on while it waits, even if the server is away for a while", async () => {
    const server = await start();
    server.answering = false;
    const ended = run(server.target, `console.log((await client.acquire("a")).token); process.exit(0);`);
    await until(() => server.hellos.length === 1, "the script connects");
    server.stop();
    await delay(300);
    const again = await start(ServerCredentials.createInsecure(), server.target);
    expect(await ended).toMatchObject({ code: 0, stdout: "1\n" });
    expect(again.hellos).toHaveLength(1);
  });

  it("can require the package", async () => {
    const server = await start();
    const module = new URL("../../src/client/dist/index.js", import.meta.url).pathname;
    const flag = process.features.require_module ? [] : ["--experimental-require-module"];
    const script = `require(${JSON.stringify(module)}).connect(${JSON.stringify(server.target)}).then((client) => client.close())`;
    const args = [...flag, "--input-type=commonjs", "-e", script];
    const error = await new Promise((resolve) => execFile(process.execPath, args, { timeout: 15_000 }, resolve));
    expect(error).toBeNull();
  });
});
