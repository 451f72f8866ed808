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
  grantAll,
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
const waiting: Outcome = { kind: "waiting", all: false, ticketId: "T1", position: 2, pollWithinMs: 5_000 };

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
    const set = await call(
      "LockService/AcquireAll",
      encode(v1.AcquireAllRequest, { locks: [{ name: "b" }, { name: "a" }] }),
    );
    expect(decode(v1.AcquireAllResponse, set)).toMatchObject({
      grants: {
        grants: [expect.objectContaining({ name: "b", token: 41 }), expect.objectContaining({ name: "a", token: 42 })],
      },
      timestamp: 7,
    });
    await call("LockService/Release", encode(v1.ReleaseRequest, { name: "n", token: 1 }));
    const transfer = { name: "n", token: 1, ticketId: "T5" };
    const transferred = await call("LockService/Transfer", encode(v1.TransferRequest, transfer));
    expect(decode(v1.TransferResponse, transferred)).toMatchObject({ token: 42, timestamp: 7 });
    const downgraded = await call("LockService/Downgrade", encode(v1.DowngradeRequest, { name: "n", token: 1 }));
    expect(decode(v1.DowngradeResponse, downgraded)).toMatchObject({ timestamp: 7 });
    const updated = await call("LockService/SetMetadata", encode(v1.SetMetadataRequest, { name: "n", token: 1 }));
    expect(decode(v1.SetMetadataResponse, updated)).toMatchObject({ timestamp: 7 });
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
    const forced = await call("AdminService/ForceRelease", encode(v1.ForceReleaseRequest, { name: "n" }));
    expect(decode(v1.ForceReleaseResponse, forced)).toMatchObject({
      ended: [1],
      revoking: [2, 3],
      withinMs: 4,
      timestamp: 7,
    });
    const top = decode(
      v1.TopLocksResponse,
      await call("AdminService/TopLocks", encode(v1.TopLocksRequest, { limit: 3 })),
    );
    expect(top).toMatchObject({
      hottest: [{ name: "hot", grantsPerSecond: 3 }], // as many as asked for
      longestHolds: [{ name: "long", holder: { token: 41 } }],
      longestWaits: [{ name: "slow", waiter: { ticketId: "T7" } }],
      timestamp: 7,
    });
    expect(t.bugs).toEqual([]);
  });

  it("a renewal says when to renew next, and which grants are being taken away", async () => {
    const revoking = [{ token: 5, message: "stuck" }];
    t.sink.answer = () => ({ kind: "renewed", displayId: "D", owner: "o", ttlMs: 9_000, remainingMs: 9_000, revoking });
    const bytes = await t.client.call(
      "LeaseService/RenewLease",
      encode(v1.RenewLeaseRequest, { leaseId: "L", progress: true }),
    );
    const renewed = decode(v1.RenewLeaseResponse, bytes);
    expect(renewed).toMatchObject({
      holdEnds: [{ token: 5, reason: v1.EndReason.END_REASON_FORCED, confirm: true, message: "stuck" }],
    });
    expect(renewed.renewAfterMs).toBeGreaterThanOrEqual(2_700);
    expect(renewed.renewAfterMs).toBeLessThanOrEqual(3_300);
    expect(t.sink.all("call").at(-1)?.request).toMatchObject({ kind: "renewLease", progress: true });
  });

  it("a deadlock names its knot", async () => {
    const knot = [
      { ticketId: "T1", owner: "a", contenderId: "c", waitsFor: ["y"], holds: ["x"] },
      { ticketId: "T2", owner: "b", contenderId: "", waitsFor: ["x"], holds: ["y"] },
    ];
    t.sink.answer = () => ({ kind: "refused", reason: "DEADLOCK", message: "so", knot });
    const failure = (await t.client.acquire({ name: "n" }).catch((error: unknown) => error)) as GrpcFailure;
    expect(failure.reasonTrailer).toBe("DEADLOCK");
    const { metadata = {} } = failure.details ?? {};
    expect(JSON.parse(metadata.knot ?? "")).toEqual(knot);
    expect(metadata.knot_waits).toBe("2");
  });

  const refusals: [Reason, status][] = [
    ["INVALID", status.INVALID_ARGUMENT],
    ["LIMIT", status.RESOURCE_EXHAUSTED],
    ["UNKNOWN_LEASE", status.NOT_FOUND],
    ["STALE_TOKEN", status.FAILED_PRECONDITION],
    ["NOT_WAITING", status.FAILED_PRECONDITION],
    ["DEADLOCK", status.ABORTED],
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
    t.sink.answer = (request) => (request.kind === "release" ? grant : { ...grant, timestamp: Symbol("bug") as never });
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

  it("is the same for AcquireAll", async () => {
    t.sink.answer = () => ({ ...waiting, all: true });
    const locks = [{ name: "a" }, { name: "b" }];
    const bytes = encode(v1.AcquireAllRequest, { locks, ttlMs: 3_000, waitMs: 60_000, requestId: "r" });
    const answer = decode(v1.AcquireAllResponse, await t.client.call("LockService/AcquireAll", bytes));
    expect(answer.waiting).toMatchObject({ ticketId: "T1", position: 2, pollWithinMs: 5_000 });
    expect(t.sink.all("call")[0]?.request).toMatchObject({ kind: "acquire", all: true, pollMs: 1_000, requestId: "r" });
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

  it("before its grants are made gets them taken back by the first of them", async () => {
    t.sink.hold = true;
    const abort = new AbortController();
    const request = encode(v1.AcquireAllRequest, { locks: [{ name: "a" }, { name: "b" }] });
    const answer = t.client.call("LockService/AcquireAll", request, { signal: abort.signal }).catch(() => {});
    const call = await t.sink.first("call");
    abort.abort();
    await answer;
    await callsAreOver();
    t.sink.reply(call.route, [outcome(call, 0, grantAll(["a", "b"]))]);
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
