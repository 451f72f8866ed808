/**
 * The moments at which the proxy looks at its lock. A process that wakes from a stall may read what a socket has for it
 * before anything has told it of its loss; here the lock is lost at such a moment, and nobody tells.
 */
import { once } from "node:events";
import { Agent, createServer, request as httpRequest, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type Clock, type Leadership, LeaseholdError, type LockState } from "@leasehold/client";
import { expect, onTestFinished, test } from "vitest";
import { Forward } from "../../src/sidecar/proxy/forward.js";
import type { Outcome } from "../../src/sidecar/proxy/proxy.js";
import { until } from "../e2e/support.js";
import { ask } from "./support.js";

const HELD: LockState = { is: "held", remainingMs: 1_000 };
const LOST: LockState = { is: "lost", reason: "expired" };
const addressOf = (server: Server) => `127.0.0.1:${(server.address() as AddressInfo).port}`;

async function listening(server: Server): Promise<Server> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return server;
}

/** A proxy whose lock is what `state` says, a storage that notes what arrives, and what came of the requests. */
async function setup(state: () => LockState, answer: "at the end" | "at once" = "at the end") {
  let clock = 41;
  const ticking = { now: () => clock, tick: () => ++clock, observe: () => clock } as unknown as Clock;
  const arrived: string[] = [];
  /** Requests that broke off at the storage. */
  const broken: Error[] = [];
  const store = await listening(
    createServer((request, response) => {
      arrived.push(`${request.method} ${request.headers["fencing-token"]} ${request.headers["lamport-timestamp"]}`);
      request.on("error", (error) => broken.push(error));
      request.on("data", (chunk) => arrived.push(String(chunk)));
      if (answer === "at once") response.write("begun");
      request.on("end", () => {
        arrived.push("(end)");
        response.end("done");
      });
    }),
  );
  const outcomes: Outcome[] = [];
  const agent = new Agent({ keepAlive: true });
  const term = {
    get state() {
      return state();
    },
    get token() {
      if (state().is !== "held") throw new LeaseholdError("LOST", "the lock is lost");
      return 33;
    },
  } as unknown as Leadership;
  const target = new URL(`http://${addressOf(store)}`);
  const onEnd = (outcome: Outcome) => outcomes.push(outcome);
  const proxy = await listening(
    createServer((request, response) => {
      const options = { target, agent, term, clock: ticking, bodyBytesMax: 1_000, idleMsMax: 5_000, onEnd };
      new Forward(request, response, options).start();
    }),
  );
  return { address: addressOf(proxy), arrived, broken, outcomes };
}

test("while it is held, everything goes on", async () => {
  const { address, arrived, outcomes } = await setup(() => HELD);
  expect((await ask(address, "PUT", "/", "body")).text).toBe("done");
  expect(arrived).toEqual(["PUT 33 42", "body", "(end)"]);
  await until(() => outcomes.length > 0);
  expect(outcomes).toEqual(["forwarded"]);
});

test.each([
  ["PUT", "body"],
  ["DELETE", undefined],
])("lost before the connection to the storage stands: nothing of a %s arrives", async (method, body) => {
  const { address, arrived, outcomes } = await setup(() => LOST);
  const refused = await ask(address, method, "/", body);
  expect([refused.status, refused.body.code]).toEqual([503, "LOST"]);
  expect([arrived, outcomes]).toEqual([[], ["aborted"]]);
});

test("lost between two pieces of a body: the second does not arrive", async () => {
  let state: LockState = HELD;
  const { address, arrived, outcomes } = await setup(() => state);
  const [host, port] = address.split(":");
  const request = httpRequest({ host, port, method: "PUT" });
  request.on("error", () => {});
  request.write("first");
  await until(() => arrived.includes("first"));
  state = LOST;
  request.end("second");
  const [response] = (await once(request, "response")) as [IncomingMessage];
  expect(response.statusCode).toBe(503);
  expect([arrived, outcomes]).toEqual([["PUT 33 42", "first"], ["aborted"]]);
});

test("lost after the body, before its end is written: the storage does not take it for whole", async () => {
  let state: LockState = HELD;
  const { address, arrived, broken } = await setup(() => state);
  const [host, port] = address.split(":");
  const request = httpRequest({ host, port, method: "PUT", headers: { "transfer-encoding": "chunked" } });
  request.on("error", () => {});
  request.write("all of it");
  await until(() => arrived.includes("all of it"));
  state = LOST;
  request.end();
  const [response] = (await once(request, "response")) as [IncomingMessage];
  expect(response.statusCode).toBe(503);
  await until(() => broken.length === 1);
  expect(arrived).toEqual(["PUT 33 42", "all of it"]);
});

test("lost while the answer comes: it breaks off", async () => {
  let state: LockState = HELD;
  const { address, outcomes } = await setup(() => state, "at once");
  const [host, port] = address.split(":");
  const request = httpRequest({ host, port, method: "PUT" });
  request.on("error", () => {});
  request.write("first");
  const [response] = (await once(request, "response")) as [IncomingMessage];
  let broken = false;
  response.on("error", () => {
    broken = true;
  });
  response.resume();
  state = LOST;
  request.end("second");
  await until(() => broken);
  expect(outcomes).toEqual(["aborted"]);
});
