/** The fence in front of HTTP and gRPC handlers, over one connection. The handlers take turns. */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { fenceClientInterceptor, fenceServerInterceptor } from "@leasehold/fence/grpc";
import { fencedFetch, httpFence, levelStore, memoryStore } from "@leasehold/fence/http";
import { Level } from "level";

const LOCK = { name: "orders/42", token: 34 };
const BODY = JSON.stringify({ state: "paid", cents: 4_200 });
const authorize = () => true;

/** `put`: what a handler does with what it has received. */
async function startHttp(store, put) {
  const fence = httpFence({ store, resource: (req) => req.url.slice("/fenced/".length), authorize, serialize: true });
  const save = async (req, res) => {
    let text = "";
    for await (const chunk of req) text += chunk;
    await put(req.url, text);
    res.end("saved");
  };
  const fenced = fence.node(save);
  const server = createServer((req, res) => (req.url.startsWith("/fenced/") ? fenced(req, res) : save(req, res)));
  await once(server.listen(0, "127.0.0.1"), "listening");
  return { server, port: server.address().port };
}

function send(agent, port, path, headers) {
  return new Promise((resolve, reject) => {
    const req = request({ agent, port, host: "127.0.0.1", method: "PUT", path, headers }, (res) => {
      res.resume();
      res.on("end", () => (res.statusCode === 200 ? resolve() : reject(new Error(`answered ${res.statusCode}`))));
    });
    req.on("error", reject);
    req.end(BODY);
  });
}

/** Only the server's side: the caller sets the header itself. */
function httpRow(title, port, agent) {
  const headers = { "content-type": "application/json" };
  const presented = { ...headers, "fencing-token": String(LOCK.token) };
  return {
    title,
    plain: () => send(agent, port, `/plain/${LOCK.name}`, headers),
    fenced: () => send(agent, port, `/fenced/${LOCK.name}`, presented),
  };
}

/** Both sides. */
function fetchRow(title, port) {
  const fenced = fencedFetch(LOCK);
  const init = { method: "PUT", body: BODY };
  const read = async (response) => void (await response.text());
  return {
    title,
    plain: async () => read(await fetch(`http://127.0.0.1:${port}/plain/${LOCK.name}`, init)),
    fenced: async () => read(await fenced(`http://127.0.0.1:${port}/fenced/${LOCK.name}`, init)),
  };
}

const serialize = (message) => Buffer.from(JSON.stringify(message));
const deserialize = (bytes) => JSON.parse(bytes.toString());
const method = (name) => ({
  path: `/bench.Orders/${name}`,
  requestStream: false,
  responseStream: false,
  requestSerialize: serialize,
  requestDeserialize: deserialize,
  responseSerialize: serialize,
  responseDeserialize: deserialize,
});

async function startGrpc(interceptors) {
  const server = new grpc.Server({ interceptors });
  const registers = new Map();
  const pay = (call, done) => {
    registers.set(call.request.name, call.request.body);
    done(null, {});
  };
  server.addService({ pay: method("Pay") }, { pay });
  const credentials = grpc.ServerCredentials.createInsecure();
  const port = await new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", credentials, (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  const call = (options) =>
    new Promise((resolve, reject) => {
      const message = { name: LOCK.name, body: BODY };
      const done = (error) => (error ? reject(error) : resolve());
      const { path, requestSerialize, responseDeserialize } = method("Pay");
      client.makeUnaryRequest(path, requestSerialize, responseDeserialize, message, new grpc.Metadata(), options, done);
    });
  const close = () => {
    client.close();
    server.forceShutdown();
  };
  return { call, close };
}

async function grpcRow(title) {
  const resource = ({ message }) => message.name;
  const fence = fenceServerInterceptor({ grpc, store: memoryStore(), resource, authorize, serialize: true });
  const [without, behind] = [await startGrpc([]), await startGrpc([fence])];
  const options = { interceptors: [fenceClientInterceptor({ grpc, lock: LOCK })] };
  const close = () => {
    without.close();
    behind.close();
  };
  return { row: { title, plain: () => without.call({}), fenced: () => behind.call(options) }, close };
}

/** Nothing here waits for a disk or another machine, so what is measured first would be the compiler. */
async function warmUp(rows) {
  for (const { plain, fenced } of rows) {
    for (let i = 0; i < 3_000; i++) {
      await plain();
      await fenced();
    }
  }
}

export async function open() {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-bench-"));
  const db = new Level(folder);
  const agents = [0, 1].map(() => new Agent({ keepAlive: true, maxSockets: 1 }));
  const registers = new Map();
  const memory = await startHttp(memoryStore(), (name, text) => registers.set(name, text));
  const level = await startHttp(levelStore(db), (name, text) => db.put(name, text, { sync: true }));
  const { row, close } = await grpcRow("gRPC unary call into memory");
  const rows = [
    httpRow("HTTP PUT into memory", memory.port, agents[0]),
    httpRow("HTTP PUT into LevelDB, synced", level.port, agents[1]),
    fetchRow("HTTP PUT into memory by fetch", memory.port),
    row,
  ];
  await warmUp(rows);
  return {
    rows,
    async close() {
      for (const agent of agents) agent.destroy();
      for (const { server } of [memory, level]) {
        server.closeAllConnections();
        server.close();
      }
      close();
      await db.close();
      rmSync(folder, { recursive: true });
    },
  };
}
