/**
 * A service on a machine whose wall clock is off. It answers HTTP: it passes a message around a ring, and takes and frees
 * two kinds of leases. Started by race.mjs, under `faketime`.
 */
import { once } from "node:events";
import { createServer } from "node:http";
import { connect } from "@leasehold/client";
import Database from "better-sqlite3";
import { atWork } from "../common/worker.mjs";
import { naiveLeases } from "./naive-lease.mjs";

const { job, report } = atWork();
const db = new Database(job.file, { timeout: 5_000 });
const naive = naiveLeases(db);
const client = await connect(job.leasehold, { owner: job.name, ttl: job.ttl });
// It works under a lock of its own, as services do: the renewals tell the server what this machine's clock says.
await client.acquire(`service/${job.name}`);

/** Receives the message, and sends it on: two events, of which the first is a cause of the second. */
async function pass(request) {
  const events = JSON.parse(await text(request));
  // The Lamport clock: what arrives moves it, what is sent carries it. Headers do the rest.
  const receivedAt = client.clock.extract(request.headers) ?? client.clock.tick();
  events.push({ at: job.name, wallMs: Date.now(), lamport: receivedAt });
  if (events.length >= job.hops) return events;
  const headers = client.clock.inject({ "content-type": "application/json" });
  events.push({ at: job.name, wallMs: Date.now(), lamport: client.clock.now() });
  const next = await fetch(request.headers.next.split(",")[events.length % 3], {
    method: "POST",
    headers: { ...headers, next: request.headers.next },
    body: JSON.stringify(events),
  });
  return next.json();
}

let lock;
const actions = {
  "/pass": pass,
  "/naive/take": () => naive.take("billing", job.name, job.ttl),
  "/naive/free": () => naive.free("billing", job.name).changes,
  async "/lock/take"() {
    const attempt = await client.tryAcquire("billing");
    if (attempt.acquired) lock = attempt.lock;
    return attempt.acquired;
  },
  "/lock/free": () => lock?.release(),
};

async function text(stream) {
  let all = "";
  for await (const chunk of stream.setEncoding("utf8")) all += chunk;
  return all;
}

const server = createServer(async (request, response) => {
  try {
    response.end(JSON.stringify((await actions[request.url](request)) ?? null));
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
}).listen(0, "127.0.0.1");
await once(server, "listening");
report({ url: `http://127.0.0.1:${server.address().port}` });
