/**
 * The noisy one. Takes the name of a kind of noise and makes it until it is told to stop; then says how much it was. What
 * it does it does with bare HTTP/2 and prepared bytes, as a client library would spend more on a request than a server.
 *
 * It asks at a fixed rate, whatever is answered, and gives up a request only when as many are open as the server permits
 * on its connections.
 */
import { existsSync, readdirSync } from "node:fs";
import { connect } from "node:http2";
import { setPriority } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { decode, encode, v1 } from "@leasehold/client/wire";

const [address, perSecond, ...tokens] = process.argv.slice(2);
const rate = Number(perSecond);
/** Each kind is another principal's, so that none pays for what the one before has used up. */
let token;
/** Requests are made in portions, this often. */
const STEP_MS = 20;
const CONNECTIONS = 4;
/** Of a session that renews them: about as many as its quota lets it make at once. */
const LEASES = 150;
/** More frames than a third of the rate are more renewals than the noisy one itself can read. */
const SLOWER = 3;
const SERVER = `http://${address}`;

// As if it had a machine of its own: the server and the others get the processor first.
const threads = existsSync("/proc/self/task") ? readdirSync("/proc/self/task").map(Number) : [0];
for (const thread of threads) setPriority(thread, 19);

const framed = (bytes) => {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
};

const headers = (path) => ({
  ":method": "POST",
  ":path": `/leasehold.v1.${path}`,
  "content-type": "application/grpc",
  te: "trailers",
  authorization: `Bearer ${token}`,
});

function open(session, path) {
  const stream = session.request(headers(path));
  stream.on("error", () => {});
  return stream;
}

function connection() {
  const session = connect(SERVER);
  session.on("error", () => {});
  return session;
}

/** Calls `portion(n)` with the number of requests that are due, until there is nothing more to do. */
async function paced(noise, portion) {
  const startedAt = performance.now();
  let due = 0;
  while (noise.running) {
    await delay(STEP_MS);
    const total = Math.floor(((performance.now() - startedAt) / 1_000) * rate);
    await portion(total - due);
    due = total;
  }
}

/** Messages out of the bytes of a stream. */
function reader(onMessage) {
  let kept = Buffer.alloc(0);
  return (chunk) => {
    kept = Buffer.concat([kept, chunk]);
    while (kept.length >= 5 && kept.length >= 5 + kept.readUInt32BE(1)) {
      const end = 5 + kept.readUInt32BE(1);
      onMessage(kept.subarray(5, end));
      kept = kept.subarray(end);
    }
  };
}

/** A session that sends frames of so many commands, and knows which were answered. */
function session(client, noise, leases = 1) {
  const stream = open(client, "SessionService/Attach");
  const self = { frame: 0, seq: 0, answered: 0, welcome: false };
  const write = (frame) => stream.write(framed(encode(v1.AttachRequest, frame)));
  stream.on(
    "data",
    reader((bytes) => {
      const { welcome, results } = decode(v1.AttachResponse, bytes);
      if (welcome) {
        self.welcome = true;
        self.send(Array.from({ length: leases }, () => ({ createLease: { ttlMs: 60_000 } })));
      }
      for (const { seq, failure } of results) {
        self.answered = Math.max(self.answered, seq);
        noise[failure ? "refused" : "served"]++;
      }
    }),
  );
  stream.on("close", () => {
    self.welcome = false;
    noise.ended++;
  });
  self.send = (commands) => {
    if (!self.welcome || stream.writableLength > 1 << 20) return;
    noise.asked += commands.length;
    for (const command of commands) command.seq = ++self.seq;
    write({ frame: ++self.frame, ackedBelow: self.answered + 1, commands });
  };
  self.renew = () => {
    if (!self.welcome || stream.writableLength > 1 << 20) return;
    noise.asked++;
    write({ frame: ++self.frame, ackedBelow: self.answered + 1, renew: true });
  };
  write({ frame: ++self.frame, hello: { sessionId: "", epoch: 1, client: "noise" } });
  return self;
}

const acquire = (i) => ({ name: `noise/${i % 64}`, mode: 1, sessionLease: 1 });

/** `perFrame(due)`: of how many commands its frames are. */
const frames = (perFrame) => async (noise) => {
  const client = connection();
  const sessions = Array.from({ length: CONNECTIONS }, () => session(client, noise));
  let owed = 0;
  let turn = 0;
  await paced(noise, (due) => {
    owed += due;
    const size = perFrame(due);
    for (; size > 0 && owed >= size; owed -= size) {
      const commands = Array.from({ length: size }, (_, i) => ({ acquire: acquire(i) }));
      sessions[turn++ % sessions.length].send(commands);
    }
  });
  client.destroy();
};

/** Frames that renew all leases of a session. */
async function renewals(noise) {
  const client = connection();
  const { renew } = session(client, noise, LEASES);
  await paced(noise, (due) => {
    for (let i = 0; i < due / SLOWER; i++) renew();
  });
  client.destroy();
}

const unaryAcquire = framed(encode(v1.AcquireRequest, { name: "noise/unary", mode: 1, ttlMs: 60_000 }));

/** A unary call, which tells what came of it. */
function call(client, noise, bytes = unaryAcquire, path = "LockService/Acquire") {
  noise.asked++;
  const stream = open(client, path);
  const told = (head) => {
    const code = head["grpc-status"];
    if (code !== undefined) noise[code === "0" ? "served" : "refused"]++;
  };
  stream.on("response", told);
  stream.on("trailers", told);
  stream.resume();
  stream.end(bytes);
  return new Promise((resolve) => stream.on("close", resolve));
}

async function unary(noise) {
  const clients = Array.from({ length: CONNECTIONS }, connection);
  const open = clients.map(() => 0);
  let turn = 0;
  await paced(noise, (due) => {
    for (let i = 0; i < due; i++) {
      const index = turn++ % clients.length;
      if (open[index] >= 1_000) continue;
      open[index]++;
      void call(clients[index], noise).then(() => open[index]--);
    }
  });
  for (const client of clients) client.destroy();
}

/** Each call on a connection of its own. */
async function connections(noise) {
  let opened = 0;
  await paced(noise, (due) => {
    for (let i = 0; i < due && opened < 500; i++) {
      const client = connection();
      opened++;
      void call(client, noise).then(() => client.destroy());
      client.on("close", () => opened--);
    }
  });
}

const watchAll = framed(encode(v1.WatchRequest, { prefix: "" }));

/** Watches of everything, as many as there may be. */
async function watches(noise) {
  const clients = Array.from({ length: CONNECTIONS }, connection);
  const open = clients.map(() => 0);
  let turn = 0;
  await paced(noise, (due) => {
    for (let i = 0; i < due; i++) {
      const index = turn++ % clients.length;
      if (open[index] >= 1_000) continue;
      open[index]++;
      void call(clients[index], noise, watchAll, "LockService/Watch").then(() => open[index]--);
    }
  });
  for (const client of clients) client.destroy();
}

const kinds = {
  "session, frames of a step": frames((due) => Math.ceil(due / CONNECTIONS)),
  "session, a frame each": frames(() => 1),
  "session, 8,192 in a frame": frames(() => 8_192),
  "session, renewals": renewals,
  "unary calls": unary,
  "new connections": connections,
  "watches of everything": watches,
};

let noise = null;
process.on("message", (kind) => {
  if (kind === "stop") {
    noise.running = false;
    return;
  }
  const current = { running: true, asked: 0, served: 0, refused: 0, ended: 0 };
  noise = current;
  token = tokens[Object.keys(kinds).indexOf(kind)];
  const startedAt = performance.now();
  void kinds[kind](current).then(() => {
    const seconds = (performance.now() - startedAt) / 1_000;
    process.send({ seconds, ...current });
  });
});
process.on("disconnect", () => process.exit(0));
process.send(Object.keys(kinds));
