/** What clients tell of their wall clocks: taken out of frames and calls, and kept from everything that decides. */
import { status } from "@grpc/grpc-js";
import { decode, encode, type leasehold, v1 } from "@leasehold/client/wire";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { statusBody } from "../../src/server/rpc/status.js";
import { ClientClocks } from "../../src/server/skew/client-clocks.js";
import { counts, GrpcFailure, lease, serverStatus, startServer, type TestServer, until } from "./support.js";

const NOW_MS = 1_800_000_000_000;

let t: TestServer;
let clocks: ClientClocks;
/** Of the server, in both of its clocks. */
let elapsedMs: number;

beforeEach(async () => {
  elapsedMs = 0;
  const startedMs = performance.now();
  clocks = new ClientClocks({
    warnMs: 500,
    monotonicMs: () => performance.now() + elapsedMs,
    wallMs: () => NOW_MS + performance.now() - startedMs + elapsedMs,
    onTime: () => true,
  });
  t = await startServer({}, { clocks });
});

afterEach(() => t.stop());

type Request = leasehold.v1.AttachRequest.$Properties;
const reported = () => clocks.report();
const owners = () => reported().clients.map(({ owner }) => owner);

describe("on a session", () => {
  const attach = async (hello: Request, fields: leasehold.v1.Hello.$Properties = {}) => {
    const stream = t.client.attach().send({
      frame: 1,
      hello: { epoch: 1, owner: "billing/1", client: "sdk 1", ...fields },
      ...hello,
    });
    await stream.frame(0);
    return stream;
  };
  const frames = () => t.sink.all("frame");

  it("Hello and every other frame may tell it", async () => {
    const stream = await attach({ wallClockMs: NOW_MS + 90_000 });
    expect(reported()).toMatchObject({ measured: 1, skewed: 1, clients: [{ owner: "billing/1", client: "sdk 1" }] });
    expect(reported().clients[0]?.errorMs).toBe(Number.POSITIVE_INFINITY);
    stream.send({ frame: 2, renew: true, roundTripFrame: 1, roundTripMs: 4 });
    await until("the round trip is taken", () => reported().clients[0]?.errorMs !== Number.POSITIVE_INFINITY);
    expect(reported().clients[0]?.errorMs).toBeLessThan(1_000); // a drift of 500 ppm, for as long as this machine takes
    stream.send({ frame: 3, renew: true, wallClockMs: NOW_MS + 3_600_000 });
    await until("the clock was set", () => (reported().certainMsMax ?? 0) > 3_500_000);
  });

  it("is forgotten with the stream", async () => {
    const stream = await attach({ wallClockMs: NOW_MS + 90_000 });
    expect(reported().measured).toBe(1);
    stream.cancel();
    await until("it is forgotten", () => reported().measured === 0);
  });

  it("belongs to the stream that has taken a session over", async () => {
    await attach({ wallClockMs: NOW_MS + 90_000 }, { owner: "one" });
    const { sessionId, newSessionId, route } = await t.sink.first("attach");
    await attach({ wallClockMs: NOW_MS + 90_000 }, { owner: "two", epoch: 2, sessionId: sessionId || newSessionId });
    t.sink.reply(route, [{ kind: "replaced", route }]);
    await until("the first is gone", () => reported().measured === 1);
    expect(owners()).toEqual(["two"]);
  });

  it("does not count unless the client is welcome", async () => {
    t.sink.hold = true;
    const stream = t.client.attach().send({ frame: 1, hello: { epoch: 1 }, wallClockMs: NOW_MS + 90_000 });
    const { route } = await t.sink.first("attach");
    expect(reported().measured).toBe(0);
    const refusal = { kind: "refused", reason: "LIMIT", message: "full" } as const;
    t.sink.reply(route, [{ kind: "outcome", route, seq: 0, outcome: refusal, clockAheadBy: 0 }]);
    expect((await stream.status()).details?.reason).toBe("LIMIT");
    expect(reported().measured).toBe(0);
  });

  it("does not reach the core", async () => {
    const told = { wallClockMs: NOW_MS, roundTripMs: 3, roundTripFrame: 1 };
    const stream = await attach(told);
    stream.send({ frame: 2, renew: true, ...told });
    await until("a frame is submitted", () => frames().length === 1);
    for (const command of t.sink.commands) {
      const fields = JSON.stringify({ ...command, route: null });
      expect(fields).not.toMatch(/wallClock|roundTrip|"clock"|owner|sdk 1/);
    }
  });

  it.each([
    ["the year 287396", { wallClockMs: 2 ** 53 - 1 }],
    ["1970", { wallClockMs: 1 }],
    ["no clock", { wallClockMs: 0, roundTripMs: 2 ** 53 - 1, roundTripFrame: 2 ** 53 - 1 }],
    ["a round trip of a frame to come", { wallClockMs: NOW_MS, roundTripMs: 1, roundTripFrame: 99 }],
    ["an endless round trip", { wallClockMs: NOW_MS, roundTripMs: 2 ** 53 - 1, roundTripFrame: 2 }],
    ["a round trip of no time", { wallClockMs: NOW_MS, roundTripMs: 0, roundTripFrame: 2 }],
  ])("%s fails no renewal", async (_, told) => {
    const stream = await attach(told);
    for (const frame of [2, 3]) stream.send({ frame, renew: true, ...told });
    await until("the renewals are submitted", () => frames().length === 2);
    expect(frames().every(({ renew }) => renew)).toBe(true);
    const answer = decode(v1.StatusResponse, await t.client.call("AdminService/Status", encode(v1.StatusRequest, {})));
    expect(answer.serving).toBe(true);
    expect(stream.failure).toBeNull();
    expect(t.bugs).toEqual([]);
  });

  it("a number above 2^53 - 1 is no number on this wire, and malformed like any other", async () => {
    const stream = await attach({});
    const wallClock = Buffer.from([9 << 3, ...new Array<number>(9).fill(0xff), 1]);
    stream.sendRaw(Buffer.concat([encode(v1.AttachRequest, { frame: 2, renew: true }), wallClock]));
    expect((await stream.status()).details?.reason).toBe("INVALID");
  });

  it("the owner in Hello is checked like any other", async () => {
    const stream = t.client.attach().hello({ owner: "o".repeat(257) });
    expect((await stream.status()).details).toMatchObject({
      reason: "INVALID",
      message: expect.stringMatching(/^hello\.owner has 257 bytes/),
    });
    const control = t.client.attach().hello({ owner: "a\u001bb" });
    expect((await control.status()).details?.message).toMatch(/^hello\.owner contains the control character/);
  });
});

describe("in a unary call", () => {
  const create = (request: leasehold.v1.CreateLeaseRequest.$Properties) =>
    t.client.call("LeaseService/CreateLease", encode(v1.CreateLeaseRequest, request));
  const renew = (request: leasehold.v1.RenewLeaseRequest.$Properties) =>
    t.client.call("LeaseService/RenewLease", encode(v1.RenewLeaseRequest, { leaseId: "L", ...request }));

  beforeEach(() => {
    t.sink.answer = (request) =>
      request.kind === "renewLease"
        ? { kind: "renewed", displayId: "L1", owner: "py/1", ttlMs: 60_000, remainingMs: 60_000, revoking: [] }
        : request.kind === "revokeLease"
          ? { kind: "revoked", revoked: true }
          : { kind: "lease", lease: { ...lease, leaseId: "L", displayId: "L1", owner: "py/1", ttlMs: 60_000 } };
  });

  it("CreateLease and RenewLease may tell it; the round trip is that of the call before", async () => {
    await create({ wallClockMs: NOW_MS - 3_600_000 });
    const who = { owner: "py/1", client: "", leaseDisplayId: "L1", errorMs: Number.POSITIVE_INFINITY };
    expect(reported()).toMatchObject({ measured: 1, skewed: 1, clients: [who] });
    await renew({ wallClockMs: NOW_MS - 3_600_000, roundTripMs: 7 });
    expect(reported().clients[0]?.errorMs).toBeLessThan(1_000);
    expect(reported().clients[0]?.offsetMs).toBeLessThan(-3_598_000);
  });

  it("a lease whose creation was not seen is named by its renewals", async () => {
    await renew({ wallClockMs: NOW_MS + 90_000 });
    expect(reported()).toMatchObject({ skewed: 1, clients: [{ owner: "py/1", leaseDisplayId: "L1" }] });
  });

  it("a call that tells nothing says nothing", async () => {
    await create({});
    await renew({});
    await renew({ roundTripMs: 5 });
    expect(reported().measured).toBe(0);
  });

  it("is forgotten when the lease is revoked, or its TTL is over", async () => {
    await create({ wallClockMs: NOW_MS });
    expect(reported().measured).toBe(1);
    await t.client.call("LeaseService/RevokeLease", encode(v1.RevokeLeaseRequest, { leaseId: "L" }));
    expect(reported().measured).toBe(0);
    await renew({ wallClockMs: NOW_MS });
    elapsedMs += 61_000;
    expect(reported().measured).toBe(0);
  });

  it("counts only when the call succeeds", async () => {
    t.sink.answer = () => ({ kind: "refused", reason: "UNKNOWN_LEASE", message: "gone" });
    const failure = await renew({ wallClockMs: NOW_MS }).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(GrpcFailure);
    expect((failure as GrpcFailure).code).toBe(status.NOT_FOUND);
    expect(reported().measured).toBe(0);
  });

  it("does not reach the core", async () => {
    await create({ wallClockMs: NOW_MS });
    await renew({ wallClockMs: NOW_MS, roundTripMs: 3 });
    for (const { request, observed } of t.sink.all("call")) {
      expect(JSON.stringify({ request, observed })).not.toMatch(/wallClock|roundTrip|"clock"/);
    }
  });

  it.each([1, 2 ** 53 - 1])("the time %d fails no renewal", async (wallClockMs) => {
    await create({ wallClockMs });
    await renew({ wallClockMs, roundTripMs: 2 ** 53 - 1 });
    await renew({ wallClockMs, roundTripMs: 1 });
    expect(t.bugs).toEqual([]);
    expect(reported().skewed).toBe(1);
  });
});

describe("in Status", () => {
  const skewOf = (clockSkew: typeof serverStatus.clockSkew) =>
    decode(v1.StatusResponse, encode(v1.StatusResponse, statusBody({ ...serverStatus, clockSkew }, counts))).clockSkew;
  const client = { owner: "o", client: "c", leaseDisplayId: "", certainMs: 0, agoMs: 1_234.5 };

  it("are whole milliseconds, signed, and an error of zero is one that is not known", () => {
    const clients = [
      { ...client, offsetMs: 12_300.4, errorMs: 1.5 },
      { ...client, offsetMs: -3_600_000.6, errorMs: Number.POSITIVE_INFINITY },
      { ...client, offsetMs: -0.2, errorMs: 2 },
    ];
    const report = { measured: 9, skewed: 3, warnMs: 500, certainMsMax: 1, clients, serverAheadMs: -77.7 };
    expect(skewOf(report)).toMatchObject({
      measured: 9,
      skewed: 3,
      warnMs: 500,
      serverAheadMs: -78,
      clients: [
        { owner: "o", client: "c", offsetMs: 12_300, errorMs: 2, measuredAgoMs: 1_234 },
        { offsetMs: -3_600_001, errorMs: 0 },
        { offsetMs: 0, errorMs: 3 },
      ],
    });
  });

  it("hold what a clock may claim, and no more", () => {
    const clients = [2 ** 53, -(2 ** 53), 2 ** 52 - 1, -(2 ** 52 - 1)].map((offsetMs) => ({
      ...client,
      offsetMs,
      errorMs: 1,
    }));
    const max = 2 ** 52 - 1;
    const body = skewOf({ ...serverStatus.clockSkew, clients });
    expect(body?.clients?.map(({ offsetMs }) => offsetMs)).toEqual([max, -max, max, -max]);
  });

  it("are there even when the core cannot answer", async () => {
    t.sink.refusal = { reason: "STORE_DOWN", message: "down", retryAfterMs: 0 };
    const answer = decode(v1.StatusResponse, await t.client.call("AdminService/Status", encode(v1.StatusRequest, {})));
    expect(answer).toMatchObject({ serving: false, clockSkew: { measured: 0, warnMs: 500 } });
  });
});
