// What the transports do with what access control says; what it says, and why, is tested elsewhere.
import { status } from "@grpc/grpc-js";
import { decode, encode, v1 } from "@leasehold/client/wire";
import { afterEach, describe, expect, it } from "vitest";
import type { Principal, Refusal } from "../../src/server/core/types.js";
import type { WireFailure } from "../../src/server/rpc/errors.js";
import type { Access, Demand, Identity, Peer } from "../../src/server/security/access.js";
import type { RouteFailure } from "../../src/server/sequencer/routes.js";
import { type GrpcFailure, startServer, type TestServer, until } from "./support.js";

const denied: Refusal = { kind: "refused", reason: "DENIED", message: "not for you" };
const unknown: WireFailure = { reason: "UNAUTHENTICATED", message: "who are you?", retryAfterMs: 0 };
const tooMuch: RouteFailure = { reason: "LIMIT", message: "slow down", retryAfterMs: 70 };
const quota = { leasesMax: 1, locksMax: 2, waitersMax: 3 };

/** Knows callers by their bearer token, forbids names that begin with "x", and lets a test do the rest. */
class TestAccess implements Access {
  readonly authentication = true;
  readonly peers: Peer[] = [];
  readonly demands: Demand[] = [];
  readonly withdraw = new Set<(failure: WireFailure) => void>();
  /** Requests that may still be made. */
  credit = 1_000;
  /** Not null: the answer waits for it. */
  asked: Promise<void> | null = null;

  authenticate(peer: Peer): Identity | WireFailure | Promise<Identity | WireFailure> {
    this.peers.push(peer);
    const answer = peer.authorization === undefined ? unknown : this.identity(peer.authorization);
    return this.asked === null ? answer : this.asked.then(() => answer);
  }

  private identity(name: string): Identity {
    const principal: Principal = { name, quota };
    return {
      principal,
      permits: (demand) => {
        this.demands.push(demand);
        return demand.name.startsWith("x") || demand.verb === "admin" ? denied : null;
      },
      sees: () => true,
      pace: () => 0,
      charge: (requests) => {
        if (requests > this.credit) return tooMuch;
        this.credit -= requests;
        return null;
      },
      onWithdrawn: (listener) => {
        this.withdraw.add(listener);
        return () => this.withdraw.delete(listener);
      },
    };
  }
}

let t: TestServer;
let access: TestAccess;

async function start(authorization: string | undefined = "Bearer a"): Promise<void> {
  access = new TestAccess();
  t = await startServer({ closeMsMax: 50 }, { access });
  if (authorization !== undefined) t.client.header("authorization", authorization);
}

afterEach(async () => {
  await t.stop();
  expect(t.bugs).toEqual([]);
});

const failureOf = (call: Promise<unknown>): Promise<GrpcFailure> =>
  call.then(
    () => Promise.reject(new Error("it was answered")),
    (failure: GrpcFailure) => failure,
  );

const acquire = (name: string) => ({ name, mode: 1 });

describe("a unary call", () => {
  it("of nobody is refused before it is read, and Status is no exception", async () => {
    await start();
    t.client.header("authorization", undefined);
    for (const [method, bytes] of [
      ["LockService/Acquire", Buffer.from([255])],
      ["AdminService/Status", Buffer.alloc(0)],
    ] as const) {
      const failure = await failureOf(t.client.call(method, bytes));
      expect(failure).toMatchObject({ code: status.UNAUTHENTICATED, reasonTrailer: "UNAUTHENTICATED" });
    }
    expect(t.sink.commands).toEqual([]);
  });

  it("carries its principal into the core, and tells Status whom it takes the caller for", async () => {
    await start();
    await t.client.acquire(acquire("a"));
    expect((await t.sink.first("call")).principal).toEqual({ name: "Bearer a", quota });
    expect(access.demands).toEqual([{ verb: "acquire", name: "a", prefix: false }]);
    const bytes = await t.client.call("AdminService/Status", Buffer.alloc(0));
    expect(decode(v1.StatusResponse, bytes).principal).toBe("Bearer a");
  });

  it("for what is not permitted is refused and never reaches the core", async () => {
    await start();
    const failure = await failureOf(t.client.acquire(acquire("x1")));
    expect(failure).toMatchObject({ code: status.PERMISSION_DENIED, reasonTrailer: "DENIED" });
    const all = encode(v1.AcquireAllRequest, { locks: [acquire("a"), acquire("x2")] });
    expect(await failureOf(t.client.call("LockService/AcquireAll", all))).toMatchObject({ reasonTrailer: "DENIED" });
    expect(t.sink.all("call")).toEqual([]);
  });

  it("beyond the quota is refused with the time to wait", async () => {
    await start();
    access.credit = 1;
    await t.client.acquire(acquire("a"));
    const failure = await failureOf(t.client.acquire(acquire("a")));
    expect(failure).toMatchObject({ code: status.RESOURCE_EXHAUSTED, details: { reason: "LIMIT", retryAfterMs: 70 } });
    expect(t.sink.all("call")).toHaveLength(1);
  });

  it("that is given up while somebody asks who it is leaves no trace", async () => {
    await start();
    let tell = () => {};
    access.asked = new Promise((resolve) => {
      tell = resolve;
    });
    const abort = new AbortController();
    const failure = failureOf(t.client.call("LockService/Acquire", Buffer.alloc(0), { signal: abort.signal }));
    await until("it is asked who calls", () => access.peers.length === 1);
    expect(t.server.stats().calls).toBe(1);
    abort.abort();
    expect(await failure).toMatchObject({ code: status.CANCELLED });
    await until("the call is gone", () => t.server.stats().calls === 0);
    tell();
    await access.asked;
    expect(t.sink.commands).toEqual([]);
  });

  it("of which nobody knows yet who makes it ends when the server drains", async () => {
    await start();
    access.asked = new Promise(() => {});
    const failure = failureOf(t.client.acquire(acquire("a")));
    await until("it is asked who calls", () => access.peers.length === 1);
    await t.server.drain(500);
    expect(await failure).toMatchObject({ reasonTrailer: "CLOSED" });
  });
});

describe("a session", () => {
  it("of nobody ends at once", async () => {
    await start();
    t.client.header("authorization", undefined);
    const failure = await t.client.attach().hello().status();
    expect(failure).toMatchObject({ code: status.UNAUTHENTICATED, reasonTrailer: "UNAUTHENTICATED" });
    expect(t.sink.commands).toEqual([]);
    expect(t.server.stats().streams).toBe(0);
  });

  it("keeps in the network what its client sends before it is known", async () => {
    await start();
    let tell = () => {};
    access.asked = new Promise((resolve) => {
      tell = resolve;
    });
    const stream = t.client.attach().hello();
    await until("it is asked who calls", () => access.peers.length === 1);
    expect(t.sink.commands).toEqual([]);
    tell();
    expect((await stream.frame(0)).welcome?.sessionId).not.toBe("");
    expect((await t.sink.first("attach")).principal).toEqual({ name: "Bearer a", quota });
  });

  it("gets a refusal in the place of each command that is not permitted; the others go on", async () => {
    await start();
    const stream = t.client.attach().hello();
    await stream.frame(0);
    const lease = { sessionLease: 1 };
    stream.send({
      frame: 2,
      commands: [
        { seq: 2, acquire: { ...acquire("x1"), ...lease } },
        { seq: 3, acquire: { ...acquire("a"), ...lease } },
      ],
    });
    const { results } = await stream.frame(1);
    expect(results.map(({ seq, failure }) => [seq, failure?.reason])).toEqual([
      [2, "DENIED"],
      [3, undefined],
    ]);
    const frame = await t.sink.first("frame");
    expect(frame.requests[0]?.request).toEqual(denied);
    expect(frame.principal?.name).toBe("Bearer a");
  });

  it("that asks for too much is refused what it asks for, and keeps what it has", async () => {
    await start();
    const stream = t.client.attach().hello();
    await stream.frame(0);
    access.credit = 1;
    stream.send({
      frame: 2,
      renew: true,
      ackedBelow: 1,
      commands: [2, 3].map((seq) => ({ seq, acquire: { ...acquire("a"), sessionLease: 1 } })),
    });
    const { results } = await stream.frame(1);
    expect(results.map(({ failure }) => [failure?.reason, failure?.retryAfterMs])).toEqual([
      ["LIMIT", 70],
      ["LIMIT", 70],
    ]);
    expect(await t.sink.first("frame")).toMatchObject({ renew: true, ackedBelow: 1, requests: [] });
  });

  it("may send again what it has announced; with more of that it ends, as it may have had its effect before", async () => {
    await start();
    const stream = t.client.attach().hello({ sessionId: "s", epoch: 2, outstanding: [2] });
    await stream.frame(0);
    access.credit = 0;
    const again = [{ seq: 2, acquire: { ...acquire("a"), sessionLease: 1 } }];
    stream.send({ frame: 2, commands: again });
    expect(await t.sink.first("frame")).toMatchObject({ frame: 2, requests: [{ seq: 2 }] });
    stream.send({ frame: 3, commands: again });
    expect(await stream.status()).toMatchObject({ reasonTrailer: "LIMIT" });
    expect(t.sink.all("frame")).toHaveLength(1);
  });

  it("ends when its credentials are withdrawn, and is forgotten", async () => {
    await start();
    const stream = t.client.attach().hello();
    await stream.frame(0);
    expect(access.withdraw.size).toBe(1);
    for (const listener of access.withdraw) listener(unknown);
    expect(await stream.status()).toMatchObject({ reasonTrailer: "UNAUTHENTICATED" });
    expect(access.withdraw.size).toBe(0);
    await until("the core learns of it", () => t.sink.all("detach").length === 1);
  });
});

describe("a watch", () => {
  const watch = (request: Parameters<typeof v1.WatchRequest.encode>[0]) =>
    t.client.serverStream("LockService/Watch", encode(v1.WatchRequest, request));

  it("of nobody, and of what is not permitted, is refused", async () => {
    await start();
    expect(await watch({ prefix: "x" })).toMatchObject({ reasonTrailer: "DENIED" });
    t.client.header("authorization", undefined);
    expect(await watch({ prefix: "a" })).toMatchObject({ reasonTrailer: "UNAUTHENTICATED" });
    expect(access.demands).toEqual([{ verb: "observe", name: "x", prefix: true }]);
  });

  it("ends when its credentials are withdrawn", async () => {
    await start();
    const ended = watch({ name: "a" });
    await until("it has begun", () => access.withdraw.size === 1);
    for (const listener of access.withdraw) listener(unknown);
    expect(await ended).toMatchObject({ reasonTrailer: "UNAUTHENTICATED" });
    expect(access.withdraw.size).toBe(0);
  });

  it("that its client ends is forgotten", async () => {
    await start();
    const abort = new AbortController();
    const bytes = encode(v1.WatchRequest, { name: "a" });
    void t.client.serverStream("LockService/Watch", bytes, abort.signal);
    await until("it has begun", () => access.withdraw.size === 1);
    abort.abort();
    await until("it is forgotten", () => access.withdraw.size === 0);
  });
});
