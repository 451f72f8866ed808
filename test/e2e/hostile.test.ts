/** What no client library sends, against the whole server: it stays up, nothing changes, the others are served. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect as tcpConnect } from "node:net";
import { Client, credentials, type ServiceError, status } from "@grpc/grpc-js";
import { expect, onTestFinished, test } from "vitest";
import { encode, v1 } from "../../src/client/wire/index.js";
import { ServerProcess, temporaryFolder, until } from "./support.js";
import { UnaryClient } from "./unary-client.js";

const raw = (bytes: Buffer) => bytes;

async function start(...flags: string[]) {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}/data`, ...flags);
  const client = new UnaryClient(server.address);
  const hostile = new Client(server.address, credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
  onTestFinished(() => hostile.close());
  const { grant } = await client.acquire({ name: "held", ttlMs: 60_000 });
  const before = await client.call("Status", {});
  const unharmed = async () => {
    const after = await client.call("Status", {});
    for (const key of ["lastToken", "leases", "locks", "holds", "waiters"] as const)
      expect(after[key]).toBe(before[key]);
    expect(await client.call("Validate", { name: "held", token: grant?.token as number })).toMatchObject({
      held: true,
    });
    expect(server.log).not.toMatch(/this is a bug/);
  };
  const send = (bytes: Buffer): Promise<ServiceError> =>
    new Promise((resolve, reject) => {
      hostile.makeUnaryRequest("/leasehold.v1.LockService/Acquire", raw, raw, bytes, (error) =>
        error ? resolve(error) : reject(new Error("it was accepted")),
      );
    });
  return { server, client, hostile, unharmed, send };
}

test("garbage bytes on the port: the connection is closed", async () => {
  const { server, unharmed } = await start();
  const [host, port] = server.address.split(":") as [string, string];
  for (let i = 0; i < 20; i++) {
    const socket = tcpConnect(Number(port), host);
    socket.on("error", () => undefined); // a reset is as good as an end
    socket.resume();
    socket.write(randomBytes(1 + i * 1_000));
    await once(socket, "close");
  }
  await unharmed();
});

test("malformed messages, a name that is not UTF-8, and a frame over the limit", async () => {
  const { send, unharmed } = await start();
  for (const bytes of [Buffer.from([0x0a, 2, 0xff, 0xfe]), Buffer.from([0x0a, 0xff, 0xff]), Buffer.from("garbage")]) {
    const error = await send(bytes);
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(error.metadata.get("leasehold-reason")).toEqual(["INVALID"]);
  }
  expect((await send(Buffer.alloc(1_500_000))).code).toBe(status.RESOURCE_EXHAUSTED);
  expect((await send(Buffer.alloc(5_000_000))).code).toBe(status.RESOURCE_EXHAUSTED);
  await unharmed();
});

test("a client that stops reading loses its stream, and only its stream", async () => {
  const { client, hostile, server } = await start("--limits-stream-buffered-bytes-max", "256KiB");
  const metadata = Buffer.alloc(4_000, "x");
  for (let i = 0; i < 60; i++) await client.acquire({ name: `large/${i}`, ttlMs: 60_000, metadata });
  const stream = hostile.makeBidiStreamRequest("/leasehold.v1.SessionService/Attach", raw, raw);
  stream.on("error", () => undefined);
  stream.write(encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1, client: "deaf" } }));
  const sessions = async () => (await client.call("Status", {})).sessions;
  await until(async () => (await sessions()) === 1);
  // Nobody listens for data, so nothing is read; each answer has a quarter of a mebibyte.
  const commands = Array.from({ length: 40 }, (_, i) => ({
    seq: i + 1,
    listLocks: { prefix: "large/", pageSize: 60 },
  }));
  stream.write(encode(v1.AttachRequest, { frame: 2, commands }));
  await until(async () => (await sessions()) === 0, 20_000, "the end of the stream");
  stream.cancel();
  for (let i = 0; i < 60; i++) {
    const { holders } = await client.call("DescribeLock", { name: `large/${i}` });
    await client.call("Release", { name: `large/${i}`, token: holders[0]?.token as number });
  }
  expect(await client.call("Validate", { name: "held", token: 1 })).toMatchObject({ held: true });
  expect(server.log).not.toMatch(/this is a bug/);
}, 60_000);
