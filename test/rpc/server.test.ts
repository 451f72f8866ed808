// The server as a whole: draining, health, reflection, unix sockets, streams that do not close.
import { execFile } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { status } from "@grpc/grpc-js";
import { decode, encode, v1 } from "@leasehold/client/wire";
import { protoPath as healthProtoPath, service as healthService } from "grpc-health-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { healthDescriptorSet } from "../../src/server/rpc/health-descriptor.js";
import {
  type GrpcFailure,
  grant,
  grpcMessage,
  outcome,
  startServer,
  TestClient,
  type TestServer,
  TestStream,
  until,
} from "./support.js";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../..", import.meta.url));

let t: TestServer;

beforeEach(async () => {
  t = await startServer({ closeMsMax: 50 });
});

afterEach(async () => {
  await t.stop();
});

/** SERVING, NOT_SERVING, or the code of the error. */
async function health(service = ""): Promise<string> {
  const { Check } = healthService;
  if (Check === undefined) throw new Error("no Check");
  const bytes = await t.client
    .call(Check.path, Check.requestSerialize({ service }))
    .catch((error: GrpcFailure) => error.code);
  return typeof bytes === "number"
    ? (status[bytes] ?? "")
    : (Check.responseDeserialize(bytes) as { status: string }).status;
}

describe("health", () => {
  it("follows setServing, for the server and for each service", async () => {
    expect(await health()).toBe("NOT_SERVING");
    t.server.setServing(true);
    expect(await health()).toBe("SERVING");
    expect(await health("leasehold.v1.LockService")).toBe("SERVING");
    expect(await health("leasehold.v1.NoService")).toBe("NOT_FOUND");
    t.server.setServing(false);
    expect(await health()).toBe("NOT_SERVING");
  });

  it("can be watched, by a bounded number", async () => {
    const bounded = await startServer({ auxiliaryStreamsMax: 1 });
    const first = bounded.client.grpc.makeServerStreamRequest(
      "/grpc.health.v1.Health/Watch",
      (b: Buffer) => b,
      (b: Buffer) => b,
      Buffer.alloc(0),
    );
    const seen: string[] = [];
    first.on("data", (b: Buffer) => seen.push(b.toString("hex")));
    let ended = false;
    first.on("end", () => {
      ended = true;
    });
    first.on("error", () => {});
    await until("the first status", () => seen.length === 1);
    const second = new TestStream(bounded.client.grpc, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    expect((await second.status()).details?.reason).toBe("LIMIT");
    bounded.server.setServing(true);
    await until("the second status", () => seen.length === 2);
    expect(seen).toEqual(["0802", "0801"]);
    await bounded.stop();
    await until("the watch ends with the server", () => ended);
  });
});

describe("reflection", () => {
  const buf = join(root, "node_modules/.bin/buf");
  const curl = async (path: string, ...options: string[]) => {
    const args = ["curl", "--http2-prior-knowledge", "--protocol", "grpc", ...options];
    const { stdout } = await run(buf, [...args, `http://127.0.0.1:${t.port}${path}`], { cwd: tmpdir() });
    return stdout;
  };

  it.each(["grpc-v1", "grpc-v1alpha"])("lets buf curl call a method without proto files (%s)", async (version) => {
    const stdout = await curl("/leasehold.v1.AdminService/Status", "--reflect-protocol", version);
    expect(JSON.parse(stdout)).toMatchObject({ version: "1.2.3", serving: true, waiters: "4" });
  });

  it("lets buf curl show the status of an error", async () => {
    const error = (await curl("/leasehold.v1.LockService/DescribeLock", "-d", "{}").catch((e: unknown) => e)) as {
      stderr: string;
    };
    expect(error.stderr).toMatch(/invalid_argument/);
    expect(error.stderr).toMatch(/name must not be empty/);
  });

  it("knows the health service too", async () => {
    t.server.setServing(true);
    expect(JSON.parse(await curl("/grpc.health.v1.Health/Check", "-d", "{}"))).toEqual({ status: "SERVING" });
  });

  it("has the descriptor that the proto file of the health service compiles to", async () => {
    const directory = mkdtempSync(join(tmpdir(), "leasehold-rpc-"));
    mkdirSync(join(directory, "grpc/health/v1"), { recursive: true });
    copyFileSync(healthProtoPath, join(directory, "grpc/health/v1/health.proto"));
    const args = ["build", "--exclude-source-info", "--as-file-descriptor-set", "-o", "out.binpb"];
    await run(buf, args, { cwd: directory });
    expect(readFileSync(join(directory, "out.binpb")).toString("base64")).toBe(healthDescriptorSet);
    rmSync(directory, { recursive: true });
  });

  it("lists the services", async () => {
    expect((await curl("", "--list-services")).trim().split("\n")).toEqual([
      "grpc.health.v1.Health",
      "leasehold.v1.AdminService",
      "leasehold.v1.ClockService",
      "leasehold.v1.LeaseService",
      "leasehold.v1.LockService",
      "leasehold.v1.SessionService",
    ]);
  });

  it.each([
    ["a name that does not exist", "220178", /no symbol x/],
    ["an extension", "2a030a0178", /no extensions/],
    ["nothing", "", /does not know/],
  ])("answers %s with an error in the response", async (_what, request, words) => {
    for (const version of ["v1", "v1alpha"]) {
      const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
      const call = t.client.grpc.makeBidiStreamRequest<Buffer, Buffer>(
        path,
        (b) => b,
        (b) => b,
      );
      const answer = new Promise<Buffer>((resolve) => call.once("data", resolve));
      call.write(Buffer.from(request, "hex"));
      expect((await answer).toString("latin1")).toMatch(words);
      call.end();
    }
  });

  it("ends with INVALID on garbage", async () => {
    const stream = new TestStream(t.client.grpc, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    const failure = await stream.sendRaw(Buffer.from([0x3a, 0x7f])).status();
    expect([failure.code, failure.details?.reason]).toEqual([status.INVALID_ARGUMENT, "INVALID"]);
  });
});

describe("draining", () => {
  it("delivers what is held, ends what waits, refuses what is new", async () => {
    t.server.setServing(true);
    const stream = t.client.attach().hello();
    await stream.frame(0);
    t.sink.hold = true;
    stream.send({ frame: 2, commands: [{ seq: 1, release: { name: "n", token: 1 } }] });
    const held = t.client.call("LockService/Release", encode(v1.ReleaseRequest, { name: "n", token: 1 }));
    const waits = t.client.acquire({ name: "n", waitMs: 9, requestId: "r" }).catch((error: unknown) => error);
    await until("two calls and a frame", () => t.sink.all("call").length === 2 && t.sink.all("frame").length === 1);

    const drained = t.server.drain(5_000);
    expect(await health()).toBe("NOT_SERVING");
    const refused = (await t.client.acquire({ name: "n" }).catch((error: unknown) => error)) as GrpcFailure;
    expect([refused.code, refused.details?.reason]).toEqual([status.UNAVAILABLE, "CLOSED"]);
    expect((await t.client.attach().hello().status()).details?.reason).toBe("CLOSED");

    // All but the acquire is answered, in order; the barrier last.
    const isWait = (c: { kind: string; request?: { kind: string } }) =>
      c.kind === "call" && c.request?.kind === "acquire";
    for (const command of t.sink.commands.filter((c) => c.kind !== "attach" && !isWait(c))) t.sink.process(command);
    await held;
    expect((await stream.frame(1)).results).toMatchObject([{ seq: 1, release: {} }]);
    expect((await waits) as GrpcFailure).toMatchObject({ code: status.UNAVAILABLE, reasonTrailer: "CLOSED" });
    expect((await stream.status()).details?.reason).toBe("CLOSED");
    await drained;
    expect(t.sink.all("callGone")).toEqual([]);
    expect(t.server.stats()).toEqual({ calls: 0, streams: 0 });
    await expect(t.client.acquire({ name: "n" })).rejects.toMatchObject({ code: status.UNAVAILABLE });
  });

  it("takes back a grant that comes too late", async () => {
    t.sink.hold = true;
    const waits = t.client.acquire({ name: "n", waitMs: 9, requestId: "r" }).catch((error: unknown) => error);
    const call = await t.sink.first("call");
    const drained = t.server.drain(5_000);
    for (const barrier of t.sink.all("call").filter(({ request }) => request.kind === "status"))
      t.sink.process(barrier);
    await waits;
    t.sink.reply(call.route, [outcome(call, 0, grant)]);
    expect(t.sink.all("callGone")).toMatchObject([{ token: 41 }]);
    await drained;
  });

  it("ends within its grace although the sequencer never answers and a client does not let go", async () => {
    const stream = t.client.attach().hello();
    await stream.frame(0);
    t.sink.hold = true;
    const session = connectHttp2(`http://127.0.0.1:${t.port}`);
    session.on("error", () => {});
    const open = session.request({
      ":method": "POST",
      ":path": "/leasehold.v1.LockService/Acquire",
      "content-type": "application/grpc",
    });
    open.on("error", () => {});
    open.write(grpcMessage(encode(v1.AcquireRequest, { name: "n" })));
    await new Promise((resolve) => session.ping(resolve)); // the server knows the stream now
    let closed = false;
    session.on("close", () => {
      closed = true;
    });
    await t.server.drain(100);
    await until("the connection is cut", () => closed);
    expect((await stream.status()).code).toBe(status.UNAVAILABLE);
  });
});

describe("a stream that has ended", () => {
  it.each([
    ["reads nothing", { initialWindowSize: 0 }],
    ["leaves its own half open", {}],
  ])("is reset when its client %s", async (_what, settings) => {
    const session = connectHttp2(`http://127.0.0.1:${t.port}`, { settings });
    session.on("error", () => {});
    await new Promise((resolve) => session.once("localSettings", resolve));
    const stream = session.request({
      ":method": "POST",
      ":path": "/leasehold.v1.SessionService/Attach",
      "content-type": "application/grpc",
    });
    stream.on("error", () => {});
    let closed = false;
    stream.on("close", () => {
      closed = true;
    });
    stream.resume();
    stream.write(grpcMessage(encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1 } })));
    await t.sink.first("attach");
    stream.write(grpcMessage(encode(v1.AttachRequest, { frame: 9 })));
    await t.sink.first("detach");
    await until("the stream is closed", () => closed);
    session.destroy();
  });
});

describe("unix sockets", () => {
  const directory = mkdtempSync(join(tmpdir(), "leasehold-rpc-"));
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it("are served, and one that a killed server left behind is replaced", async () => {
    const path = join(directory, "a.sock");
    // Bound by a process that ends without tidying up.
    const script = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
    await run(process.execPath, ["-e", script]).catch(() => {});
    await t.server.listen(`unix:${path}`);
    const client = new TestClient(`unix:${path}`);
    const bytes = await client.call("LockService/Validate", encode(v1.ValidateRequest, { name: "n", token: 1 }));
    expect(decode(v1.ValidateResponse, bytes).held).toBe(true);
    client.close();
  });

  it("on which somebody listens are left alone, and so are files", async () => {
    const directory2 = mkdtempSync(join(tmpdir(), "leasehold-rpc-"));
    const path = join(directory2, "b.sock");
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(path, resolve));
    await expect(t.server.listen(`unix:${path}`)).rejects.toThrow(/EADDRINUSE/);
    other.close();
    const file = join(directory2, "file");
    writeFileSync(file, "precious");
    await expect(t.server.listen(`unix:${file}`)).rejects.toThrow();
    rmSync(directory2, { recursive: true });
  });

  it("a port that is taken is refused", async () => {
    const other = await startServer();
    await expect(other.server.listen(`127.0.0.1:${t.port}`)).rejects.toThrow(/EADDRINUSE/);
    await other.stop();
  });
});
