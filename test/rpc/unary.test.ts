// Unary calls over a real socket, with a sink that answers when the test says so.
import { connect as connectHttp2 } from "node:http2";
import { status } from "@grpc/grpc-js";
import { decode, encode, v1 } from "@leasehold/client/wire";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { CallGone, Outcome, Reason } from "../../src/server/core/types.js";
import type { LiveRoute, RouteFailure } from "../../src/server/sequencer/routes.js";
import {
  GrpcFailure,
  grant,
  grpcMessage,
  outcome,
  serverStatus,
  startServer,
  type TestServer,
  until,
} from "./support.js";

let t: TestServer;

beforeEach(async () => {
  t = await startServer({ closeMsMax: 100 });
});

afterEach(async () => {
  await t.stop();
});

const gone = () => t.sink.all("callGone").map(({ token }: CallGone) => token);
const waiting: Outcome = { kind: "waiting", ticketId: "T1", position: 2, pollWithinMs: 5_000 };

async function callsAreOver(): Promise<void> {
  await until("no call is open", () => t.server.stats().calls === 0);
}

describe("answers", () => {
  it("a grant carries the lease id, the timestamps and by how much the client's clock is ahead", async () => {
    t.sink.hold = true;
    const answer = t.client.acquire({ name: "n", observed: 77 });
    const call = await t.sink.first("call");
    expect(call.observed).toBe(77);
    t.sink.reply(call.route, [{ ...outcome(call, 0, grant), clockAheadBy: 5 } as never]);
    expect(await answer).toMatchObject({
      grant: { token: 41, timestamp: 9, leaseId: "SECRET", leaseTtlMs: 1_000, leaseRemainingMs: 999 },
      timestamp: 7,
      clockAheadBy: 5,
    });
  });

  it("every method is served", async () => {
    const { call } = { call: (m: string, b: Buffer) => t.client.call(m, b) };
    const lease = await call("LeaseService/CreateLease", encode(v1.CreateLeaseRequest, { ttlMs: 1_000 }));
    expect(decode(v1.CreateLeaseResponse, lease)).toMatchObject({ lease: { leaseId: "L", owner: "o" }, timestamp: 7 });
    const got = await call("LeaseService/GetLease", encode(v1.GetLeaseRequest, { leaseId: "L" }));
    expect(decode(v1.GetLeaseResponse, got)).toMatchObject({ lease: { leaseId: "L" } });
    const renewed = await call("LeaseService/RenewLease", encode(v1.RenewLeaseRequest, { leaseId: "L" }));
    expect(decode(v1.RenewLeaseResponse, renewed)).toMatchObject({ ttlMs: 1_000, remainingMs: 1_000, timestamp: 7 });
    const revoked = await call("LeaseService/RevokeLease", encode(v1.RevokeLeaseRequest, { leaseId: "L" }));
    expect(decode(v1.RevokeLeaseResponse, revoked)).toMatchObject({ revoked: true });
    const leases = await call("LeaseService/ListLeases", encode(v1.ListLeasesRequest, {}));
    expect(decode(v1.ListLeasesResponse, leases).leases).toEqual([expect.objectContaining({ displayId: "D" })]);
    const cancelled = await call("LockService/CancelAcquire", encode(v1.CancelAcquireRequest, { requestId: "r" }));
    expect(decode(v1.CancelAcquireResponse, cancelled).outcome).toBe(v1.CancelOutcome.CANCEL_OUTCOME_TICKET);
    await call("LockService/Release", encode(v1.ReleaseRequest, { name: "n", token: 1 }));
    const lock = await call("LockService/DescribeLock", encode(v1.DescribeLockRequest, { name: "n" }));
    expect(decode(v1.DescribeLockResponse, lock).name).toBe("n");
    const locks = await call("LockService/ListLocks", encode(v1.ListLocksRequest, {}));
    expect(decode(v1.ListLocksResponse, locks)).toMatchObject({ locks: [], nextPageToken: "" });
    const ticks = await call("ClockService/Tick", encode(v1.TickRequest, { observed: 3, count: 5 }));
    expect(decode(v1.TickResponse, ticks)).toMatchObject({ first: 1, last: 5 });
    const tick = t.sink.all("call").at(-1);
    expect(tick).toMatchObject({ observed: 0, request: { kind: "tick", observed: 3, count: 5 } });
    const server = await call("AdminService/Status", encode(v1.StatusRequest, {}));
    expect(decode(v1.StatusResponse, server)).toMatchObject({
      version: "1.2.3",
      serving: true,
      uptimeMs: 12,
      waiters: 4,
    });
    expect(t.bugs).toEqual([]);
  });

  const refusals: [Reason, status][] = [
    ["INVALID", status.INVALID_ARGUMENT],
    ["LIMIT", status.RESOURCE_EXHAUSTED],
    ["UNKNOWN_LEASE", status.NOT_FOUND],
    ["STALE_TOKEN", status.FAILED_PRECONDITION],
    ["CANCELLED_REQUEST", status.CANCELLED],
    ["CLOCK_JUMP", status.OUT_OF_RANGE],
    ["STORE_DOWN", status.UNAVAILABLE],
  ];
  it.each(refusals)("the refusal %s is a status of its own", async (reason, code) => {
    t.sink.answer = () => ({ kind: "refused", reason, message: "because" });
    const failure = (await t.client.acquire({ name: "n" }).catch((error: unknown) => error)) as GrpcFailure;
    expect(failure).toBeInstanceOf(GrpcFailure);
    expect([failure.code, failure.reasonTrailer, failure.message]).toEqual([code, reason, "because"]);
    expect(failure.details).toMatchObject({ code, reason, message: "because" });
    expect(gone()).toEqual([]);
  });

  const failures: [RouteFailure["reason"], status][] = [
    ["OUTCOME_UNKNOWN", status.UNKNOWN],
    ["STORE_DOWN", status.UNAVAILABLE],
    ["CLOSED", status.UNAVAILABLE],
    ["LIMIT", status.RESOURCE_EXHAUSTED],
  ];
  it.each(failures)("the failure %s of the sequencer reaches the caller", async (reason, code) => {
    t.sink.hold = true;
    const answer = t.client.acquire({ name: "n" }).catch((error: unknown) => error);
    const { route } = await t.sink.first("call");
    (route as LiveRoute).fail({ reason, message: "so", retryAfterMs: 250 });
    const early = (await answer) as GrpcFailure;
    t.sink.refusal = { reason, message: "so", retryAfterMs: 250 };
    const late = (await t.client.acquire({ name: "n" }).catch((error: unknown) => error)) as GrpcFailure;
    for (const failure of [early, late]) {
      expect([failure.code, failure.details?.reason, failure.details?.retryAfterMs]).toEqual([code, reason, 250]);
    }
  });

  it("Status answers although the core cannot", async () => {
    t.sink.refusal = { reason: "STORE_DOWN", message: "the disk is full", retryAfterMs: 1_000 };
    const bytes = await t.client.call("AdminService/Status", encode(v1.StatusRequest, {}));
    expect(decode(v1.StatusResponse, bytes)).toMatchObject({
      version: serverStatus.version,
      serving: false,
      notServingReason: "the disk is full",
      leases: 0,
    });
  });

  it("a bug is INTERNAL, is reported, and a grant that could not be written is taken back", async () => {
    t.sink.answer = (request) => (request.kind === "release" ? grant : { ...grant, token: Symbol("bug") as never });
    const wrong = await t.client
      .call("LockService/Release", encode(v1.ReleaseRequest, { name: "n", token: 1 }))
      .catch((error: unknown) => error);
    expect(wrong).toMatchObject({ code: status.INTERNAL, reasonTrailer: "INTERNAL" });
    expect(t.bugs.length).toBe(1);
    expect(gone()).toEqual([41]);
  });
});

describe("the long poll", () => {
  const request = { name: "n", waitMs: 60_000, requestId: "r" };
  const pollMs = async (fields: object, options: object = {}) => {
    t.sink.answer = () => waiting;
    await t.client.acquire({ ...request, ...fields }, options);
    const acquire = t.sink.all("call").at(-1)?.request;
    return acquire?.kind === "acquire" ? acquire.pollMs : undefined;
  };

  it("lasts a third of the TTL, ten seconds at most", async () => {
    expect(await pollMs({})).toBe(5_000);
    expect(await pollMs({ ttlMs: 3_000 })).toBe(1_000);
    expect(await pollMs({ ttlMs: 60_000 })).toBe(10_000);
    expect(await pollMs({ leaseId: "L" })).toBe(5_000);
  });

  it("ends before the deadline of the call", async () => {
    const ms = (await pollMs({ ttlMs: 60_000 }, { deadline: Date.now() + 4_000 })) ?? 0;
    expect(ms).toBeGreaterThan(1);
    expect(ms).toBeLessThanOrEqual(3_500);
  });

  it("answers waiting", async () => {
    t.sink.answer = () => waiting;
    const answer = await t.client.acquire(request);
    expect(answer.waiting).toMatchObject({ ticketId: "T1", position: 2, pollWithinMs: 5_000 });
    await callsAreOver();
    expect(gone()).toEqual([]);
  });
});

describe("a call that ends", () => {
  it("in the ordinary way is not reported as gone", async () => {
    for (let i = 0; i < 20; i++) await t.client.acquire({ name: "n" });
    await callsAreOver();
    expect(gone()).toEqual([]);
  });

  it("while it waits is reported once", async () => {
    t.sink.hold = true;
    const abort = new AbortController();
    const answer = t.client.acquire({ name: "n", waitMs: 60_000, requestId: "r" }, { signal: abort.signal });
    const call = await t.sink.first("call");
    abort.abort();
    await expect(answer).rejects.toMatchObject({ code: status.CANCELLED });
    await callsAreOver();
    expect(t.sink.all("callGone")).toEqual([{ kind: "callGone", route: call.route, token: null }]);
  });

  it("by its deadline is reported once", async () => {
    t.sink.hold = true;
    const answer = t.client.acquire({ name: "n", waitMs: 60_000, requestId: "r" }, { deadline: Date.now() + 50 });
    await expect(answer).rejects.toMatchObject({ code: status.DEADLINE_EXCEEDED });
    await callsAreOver();
    expect(gone()).toEqual([null]);
  });

  it("with its connection is reported once", async () => {
    t.sink.hold = true;
    const session = connectHttp2(`http://127.0.0.1:${t.port}`);
    session.on("error", () => {});
    const stream = session.request(acquireHeaders);
    stream.on("error", () => {});
    stream.end(grpcMessage(encode(v1.AcquireRequest, { name: "n" })));
    await t.sink.first("call");
    session.destroy();
    await callsAreOver();
    expect(gone()).toEqual([null]);
  });

  it("before its grant is made gets that grant taken back", async () => {
    t.sink.hold = true;
    const abort = new AbortController();
    const answer = t.client.acquire({ name: "n" }, { signal: abort.signal }).catch(() => {});
    const call = await t.sink.first("call");
    abort.abort();
    await answer;
    await callsAreOver();
    t.sink.reply(call.route, [outcome(call, 0, grant)]);
    expect(gone()).toEqual([null, 41]);
  });

  it("before its grant has left gets that grant taken back", async () => {
    t.sink.hold = true;
    // A client that announces a window of zero bytes: nothing can be written to it.
    const session = connectHttp2(`http://127.0.0.1:${t.port}`, { settings: { initialWindowSize: 0 } });
    session.on("error", () => {});
    await new Promise((resolve) => session.once("localSettings", resolve));
    const stream = session.request(acquireHeaders);
    stream.on("error", () => {});
    stream.end(grpcMessage(encode(v1.AcquireRequest, { name: "n" })));
    const call = await t.sink.first("call");
    t.sink.reply(call.route, [outcome(call, 0, grant)]);
    session.destroy();
    await callsAreOver();
    expect(gone()).toEqual([41]);
  });

  it("because the client does not read for too long gets its grant taken back", async () => {
    const session = connectHttp2(`http://127.0.0.1:${t.port}`, { settings: { initialWindowSize: 0 } });
    session.on("error", () => {});
    await new Promise((resolve) => session.once("localSettings", resolve));
    const stream = session.request(acquireHeaders);
    stream.on("error", () => {});
    stream.end(grpcMessage(encode(v1.AcquireRequest, { name: "n" })));
    await until("the grant is taken back", () => gone().length > 0);
    expect(gone()).toEqual([41]);
    await callsAreOver();
    session.destroy();
  });

  it("but is no Acquire is nobody's concern", async () => {
    t.sink.hold = true;
    const abort = new AbortController();
    const request = encode(v1.ReleaseRequest, { name: "n", token: 1 });
    const answer = t.client.call("LockService/Release", request, { signal: abort.signal }).catch(() => {});
    await t.sink.first("call");
    abort.abort();
    await answer;
    await callsAreOver();
    expect(gone()).toEqual([]);
  });
});

const acquireHeaders = {
  ":method": "POST",
  ":path": "/leasehold.v1.LockService/Acquire",
  "content-type": "application/grpc",
  te: "trailers",
};
