/** What is measured. Each returns the loops that `measure` lets run. */
import { randomUUID } from "node:crypto";
import { Client, credentials } from "@grpc/grpc-js";
import { decode, encode, v1 } from "@leasehold/client/wire";

/** Runs `n` loops of `step(i)`. */
const loops = (n, meter, step) =>
  Array.from({ length: n }, async (_, i) => {
    while (meter.running) await step(i);
  });

/** Acquire and release of what nobody else wants, or has to wait for. */
function taking(inFlight, acquire) {
  return (meter) =>
    loops(inFlight, meter, async (i) => {
      const startedAt = performance.now();
      const lock = await acquire(i);
      const grantedAt = performance.now();
      await lock.release();
      const releasedAt = performance.now();
      meter.window.operations++;
      meter.window.record("acquire", grantedAt - startedAt);
      meter.window.record("pair", releasedAt - startedAt);
    });
}

const namesOf = (n) => Array.from({ length: n }, (_, i) => `bench/${i}`);

/** Locks of their own, as a user of the SDK takes them. */
export function pairs(client, inFlight) {
  const names = namesOf(inFlight);
  return taking(inFlight, (i) => client.acquire(names[i]));
}

/** The same while somebody watches all of them, over a connection of its own. */
export function watchedPairs(client, inFlight) {
  const watching = (async () => {
    for await (const event of client.watch({ prefix: "bench/" })) if (event.type === "lagged") return;
  })();
  watching.catch(() => {}); // it ends with the client
  return pairs(client, inFlight);
}

/** All of them readers of one lock. */
export function readers(client, inFlight) {
  return taking(inFlight, () => client.acquire("bench/read", { mode: "shared" }));
}

/** Each takes a permit of a semaphore that has one for everybody. */
export function permits(client, inFlight) {
  return taking(inFlight, () => client.acquire("bench/permits", { permits: { of: inFlight } }));
}

/** Each takes four locks of its own together. */
export function sets(client, inFlight) {
  const names = namesOf(inFlight).map((name) => [0, 1, 2, 3].map((part) => `${name}/${part}`));
  return taking(inFlight, (i) => client.acquireAll(names[i]));
}

/** Many who want one lock: how often it changes hands. */
export function handover(client, waiters) {
  return (meter) =>
    loops(waiters, meter, async () => {
      const startedAt = performance.now();
      const lock = await client.acquire("bench/contended", { wait: "60s" });
      meter.window.record("wait", performance.now() - startedAt);
      meter.window.operations++;
      await lock.release();
    });
}

/** One call per command, as a client without a session does it. */
export function unaryPairs(address, inFlight) {
  const client = new Client(address, credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
  const call = (method, request, response) => (message) =>
    new Promise((resolve, reject) => {
      const write = (value) => encode(request, value);
      const read = (bytes) => decode(response, bytes);
      const done = (error, value) => (error ? reject(error) : resolve(value));
      client.makeUnaryRequest(`/leasehold.v1.${method}`, write, read, message, done);
    });
  const createLease = call("LeaseService/CreateLease", v1.CreateLeaseRequest, v1.CreateLeaseResponse);
  const acquire = call("LockService/Acquire", v1.AcquireRequest, v1.AcquireResponse);
  const release = call("LockService/Release", v1.ReleaseRequest, v1.ReleaseResponse);
  const lease = createLease({ ttlMs: 600_000, owner: "bench" });

  return (meter) => {
    const all = loops(inFlight, meter, async (i) => {
      const { leaseId } = (await lease).lease;
      const startedAt = performance.now();
      const { grant } = await acquire({ name: `bench/${i}`, leaseId, requestId: randomUUID() });
      const grantedAt = performance.now();
      await release({ name: `bench/${i}`, token: grant.token });
      meter.window.operations++;
      meter.window.record("acquire", grantedAt - startedAt);
      meter.window.record("pair", performance.now() - startedAt);
    });
    Promise.allSettled(all).then(() => client.close());
    return all;
  };
}

/** A session with many leases whose frames renew them all, a few frames at a time. */
export function renewals(address, leases) {
  const client = new Client(address, credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
  const same = (bytes) => bytes;
  return (meter) => {
    const stream = client.makeBidiStreamRequest("/leasehold.v1.SessionService/Attach", same, same);
    const send = (frame) => stream.write(encode(v1.AttachRequest, frame));
    const run = new Promise((resolve, reject) => {
      let frame = 1;
      let created = 0;
      stream.on("error", reject);
      stream.on("data", (bytes) => {
        const response = decode(v1.AttachResponse, bytes);
        if (response.welcome) return send({ frame: ++frame, commands: createLeases(leases) });
        created += response.results.length;
        meter.window.operations += response.renewals.length;
        if (!meter.running) return resolve();
        if (created < leases) return;
        // An answer asks for the next; the first two keep the server from waiting for this process.
        if (response.results.length > 0) send({ frame: ++frame, ackedBelow: leases + 1, renew: true });
        send({ frame: ++frame, ackedBelow: leases + 1, renew: true });
      });
      send({ frame: 1, hello: { sessionId: "", epoch: 1, client: "bench" } });
    });
    return [
      run.finally(() => {
        stream.on("error", () => {}); // the cancellation
        stream.cancel();
        client.close();
      }),
    ];
  };
}

const createLeases = (n) =>
  Array.from({ length: n }, (_, i) => ({ seq: i + 1, createLease: { ttlMs: 600_000, owner: "bench" } }));
