/** Watching over real sockets. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay, setImmediate as turn } from "node:timers/promises";
import { Metadata } from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import { type Client, connect } from "../../src/client/index.js";
import { encode, encodeStatus, v1 } from "../../src/client/wire/index.js";
import { GrpcServer } from "./grpc-server.js";
import { say } from "./watch-support.js";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(): Promise<GrpcServer> {
  const server = await GrpcServer.start();
  cleanups.push(() => server.stop());
  return server;
}

async function connected(target: string): Promise<Client> {
  const client = await connect(target);
  cleanups.push(() => client.close());
  return client;
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within 10 s: ${what}`);
    await delay(5);
  }
}

const response = (...events: ReturnType<typeof say.granted>[]) =>
  encode(v1.WatchResponse, { events, timestamp: events.at(-1)?.timestamp ?? 0 });

describe("a watch", () => {
  it("goes on where it was when the stream breaks, and ends with the loop", async () => {
    const server = await start();
    let ended = false;
    server.onWatch = (watch) => {
      const after = decodedAfter(server);
      watch.write(response(say.granted(after + 1, "a", after + 1)));
      if (after < 3) watch.end();
      else {
        watch.on("cancelled", () => {
          ended = true;
        });
      }
    };
    const client = await connected(server.target);
    const tokens: number[] = [];
    for await (const event of client.watch({ name: "a" }, { fromNow: true })) {
      if (event.type === "granted") tokens.push(event.holder.token);
      if (tokens.length === 4) break;
    }
    expect(tokens).toEqual([1, 2, 3, 4]);
    expect(server.watchRequests.map(({ after, fromNow }) => [after, fromNow])).toEqual([
      [0, true],
      [1, false],
      [2, false],
      [3, false],
    ]);
    await until(() => ended, "the server is told");
  });

  it("reads the reason of a refusal from the trailers", async () => {
    const server = await start();
    server.onWatch = (watch) => {
      const metadata = new Metadata();
      metadata.set("grpc-status-details-bin", encodeStatus({ code: 8, message: "too many watchers", reason: "LIMIT" }));
      watch.emit("error", { code: 8, details: "too many watchers", metadata });
    };
    const client = await connected(server.target);
    const watching = client.watch({ prefix: "" })[Symbol.asyncIterator]().next();
    await expect(watching).rejects.toMatchObject({ code: "LIMIT", message: "too many watchers" });
  });

  it("that is not read fast enough holds up the server, not this process's memory", async () => {
    const server = await start();
    const total = 50_000;
    let written = 0;
    let read = 0;
    let aheadMax = 0;
    server.onWatch = async (watch) => {
      while (written < total) {
        const events = Array.from({ length: 50 }, () => say.granted(++written, "a", written, "v".repeat(40)));
        if (!watch.write(response(...events))) await once(watch, "drain");
        aheadMax = Math.max(aheadMax, written - read);
      }
    };
    const client = await connected(server.target);
    const events = client.watch({ name: "a" }, { fromNow: true })[Symbol.asyncIterator]();
    while (read < total) {
      const { value } = await events.next();
      if (value?.timestamp !== ++read) throw new Error(`${read} expected, got ${value?.timestamp}`);
      await turn(); // a turn of the event loop for each: the server could write far more
    }
    expect(aheadMax).toBeLessThan(total / 4);
    await events.return?.();
  });
});

const decodedAfter = (server: GrpcServer): number => server.watchRequests.at(-1)?.after ?? 0;

describe("a script", () => {
  const run = (target: string, body: string) =>
    new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
      const module = new URL("../../src/client/dist/index.js", import.meta.url).href;
      const script = `import { connect } from ${JSON.stringify(module)};
        const client = await connect(${JSON.stringify(target)});
        ${body}`;
      const args = ["--input-type=module", "-e", script];
      const child = execFile(process.execPath, args, { timeout: 15_000 }, (error, stdout, stderr) => {
        resolve({ code: error ? (error.code ?? error.signal) : 0, stdout, stderr });
      });
      cleanups.push(() => child.kill("SIGKILL"));
    });

  it("ends by itself when its loop has ended, without close", async () => {
    const server = await start();
    server.onWatch = (watch) => void watch.write(response(say.reset(1), say.synced(1)));
    const ended = await run(
      server.target,
      `for await (const event of client.watch({ prefix: "" })) if (event.type === "synced") break;
       for await (const leader of client.observe("e")) { console.log(leader); break; }`,
    );
    expect(ended).toEqual({ code: 0, stdout: "null\n", stderr: "" });
  });

  it("goes on while it watches, however quiet it is, even if the server is away for a while", async () => {
    const server = await start();
    const ended = run(
      server.target,
      `for await (const event of client.watch({ prefix: "" }, { after: 1 })) { console.log(event.type); break; }`,
    );
    await until(() => server.watchRequests.length === 1, "the script watches");
    await until(() => server.streams.size === 0, "its session is idle and closed");
    server.stop();
    const again = await GrpcServer.start(undefined, server.target);
    cleanups.push(() => again.stop());
    again.onWatch = (watch) => void watch.write(response(say.granted(2, "a", 1)));
    expect(await ended).toMatchObject({ code: 0, stdout: "granted\n" });
  });
});
