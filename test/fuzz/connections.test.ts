/**
 * Connections that cost the server something and give it nothing: idle ones by the thousand, and those that send a byte now
 * and then. Others are served meanwhile, and it all comes to an end.
 *
 * A tenth of the numbers by default; LEASEHOLD_SCALE=1 (`npm run test:scale`) for all of them.
 */
import { once } from "node:events";
import { type ClientHttp2Session, connect as http2Connect } from "node:http2";
import { type Socket, connect as tcpConnect } from "node:net";
import { connect } from "@leasehold/client";
import { expect, onTestFinished, test } from "vitest";
import { ServerProcess, until } from "../e2e/support.js";

const SCALE = Number(process.env.LEASEHOLD_SCALE ?? "0.1");
const IDLE = Math.round(10_000 * SCALE);
const TIMEOUT_MS = 180_000;

const addressOf = (text: string): [port: number, host: string] => {
  const [host = "", port] = text.split(":");
  return [Number(port), host];
};

async function open(address: string): Promise<Socket> {
  const socket = tcpConnect(...addressOf(address));
  socket.on("error", () => undefined); // a reset is as good as an end
  socket.resume();
  await once(socket, "connect");
  onTestFinished(() => void socket.destroy());
  return socket;
}

async function openMany(address: string, count: number): Promise<Socket[]> {
  const sockets: Socket[] = [];
  while (sockets.length < count) {
    const batch = Math.min(100, count - sockets.length);
    sockets.push(...(await Promise.all(Array.from({ length: batch }, () => open(address)))));
  }
  return sockets;
}

/** Locks that can be taken and given back in a row while something else goes on; each within its wait. */
async function served(address: string, pairs = 50): Promise<void> {
  const client = await connect(address, { wait: "10s" });
  for (let i = 0; i < pairs; i++) await client.withLock(`a/${i}`, () => undefined);
  await client.close();
}

const closed = (sockets: readonly Socket[]) => sockets.filter((socket) => socket.closed).length;
const scrape = async (server: ServerProcess) => (await fetch(`http://${server.opsAddress}/metrics`)).status;

test(
  `${IDLE} connections that say nothing are dropped, and hold nobody up`,
  async () => {
    const server = await ServerProcess.start("memory:", "--limits-keepalive-ms", "1s");
    const sockets = await openMany(server.address, IDLE);
    await served(server.address);
    expect(await scrape(server)).toBe(200);
    // They answer no ping of HTTP/2.
    await until(() => closed(sockets) === sockets.length, 90_000, "the end of the idle connections");
    await served(server.address);
  },
  TIMEOUT_MS,
);

test(
  `${IDLE} idle clients of HTTP/2, alive and without a call, are kept at small cost`,
  async () => {
    const server = await ServerProcess.start("memory:");
    const before = await residentBytes(server);
    const sessions: ClientHttp2Session[] = [];
    for (let i = 0; i < IDLE; i++) {
      const session = http2Connect(`http://${server.address}`);
      session.on("error", () => undefined);
      onTestFinished(() => session.destroy());
      sessions.push(session);
      if (i % 100 === 99) await once(session, "connect");
    }
    await until(() => sessions.every((session) => !session.connecting), 60_000, "all connections");
    await served(server.address);
    const perConnection = ((await residentBytes(server)) - before) / IDLE;
    console.log(`${Math.round(perConnection / 1_024)} KiB a connection`);
    expect(perConnection).toBeLessThan(200 * 1_024);
    expect(sessions.some((session) => session.closed)).toBe(false);
  },
  TIMEOUT_MS,
);

async function residentBytes(server: ServerProcess): Promise<number> {
  const text = await (await fetch(`http://${server.opsAddress}/metrics`)).text();
  return Number(/^process_resident_memory_bytes (\S+)$/m.exec(text)?.[1]);
}

test(
  "requests that come a byte at a time are given up, on either port; scrapes, probes and locks go on",
  async () => {
    const server = await ServerProcess.start("memory:", "--limits-keepalive-ms", "1s");
    const slow = {
      ops: await openMany(server.opsAddress, 40),
      grpc: await openMany(server.address, 200),
    };
    const said = {
      ops: "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
      grpc: "PRI * HTTP/2.0\r\n\r\nSM\r\n",
    };
    const dribble = setInterval(() => {
      for (const [kind, sockets] of Object.entries(slow)) {
        for (const socket of sockets) {
          const text = said[kind as keyof typeof said];
          if (socket.writable) socket.write(text[socket.bytesWritten] ?? (kind === "ops" ? "x" : ""));
        }
      }
    }, 50);
    onTestFinished(() => clearInterval(dribble));
    await served(server.address);
    expect(await scrape(server)).toBe(200);
    await until(() => closed(slow.ops) === slow.ops.length, 60_000, "the end of the slow requests to the ops port");
    await until(() => closed(slow.grpc) === slow.grpc.length, 60_000, "the end of the slow requests to the gRPC port");
    expect(await scrape(server)).toBe(200);
  },
  TIMEOUT_MS,
);

test("a client that opens a call and never sends it whole is given up when it does not answer", async () => {
  const server = await ServerProcess.start("memory:", "--limits-hello-ms-max", "500ms");
  const session = http2Connect(`http://${server.address}`);
  onTestFinished(() => session.destroy());
  const headers = { ":method": "POST", te: "trailers", "content-type": "application/grpc" };
  const attach = session.request({ ...headers, ":path": "/leasehold.v1.SessionService/Attach" });
  attach.write(Buffer.from([0, 0, 0, 0, 99, 1])); // a message of 99 bytes, of which one comes
  attach.resume();
  const [trailers] = await once(attach, "response"); // nothing but trailers
  expect(trailers["leasehold-reason"]).toBe("INVALID");
  await served(server.address);
});
