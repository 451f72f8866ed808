// What bad input gets, over a real socket: a specific status with ErrorInfo or a closed connection, nothing handed to
// the sequencer, and other clients served as before.
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { gzipSync } from "node:zlib";
import { status } from "@grpc/grpc-js";
import { decode, encode, type leasehold, v1 } from "@leasehold/client/wire";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GrpcFailure, grpcMessage, outcome, startServer, type TestServer, until } from "./support.js";

let t: TestServer;

beforeEach(async () => {
  t = await startServer({
    frameBytesMax: 64 << 10,
    listBytesMax: 32 << 10,
    streamBufferedBytesMax: 256 << 10,
    heldBytesMax: 16 << 10,
    helloMsMax: 10_000,
    streamsMax: 3,
    callsMax: 3,
  });
});

afterEach(async () => {
  expect(t.bugs).toEqual([]);
  await t.stop();
});

/** Another client still gets its answers. */
async function othersAreServed(): Promise<void> {
  const before = t.sink.all("call").length;
  const { held } = decode(v1.ValidateResponse, await t.client.call("LockService/Validate", validateBytes));
  expect(held).toBe(true);
  expect(t.sink.all("call").length).toBe(before + 1);
}

const validateBytes = encode(v1.ValidateRequest, { name: "n", token: 1 });

async function failureOf(promise: Promise<unknown>): Promise<GrpcFailure> {
  const result = await promise.then(
    () => "success",
    (error: unknown) => error,
  );
  expect(result).toBeInstanceOf(GrpcFailure);
  return result as GrpcFailure;
}

function expectReason(failure: GrpcFailure, reason: string, code: status, words: RegExp): void {
  expect(failure.details?.reason).toBe(reason);
  expect(failure.reasonTrailer).toBe(reason);
  expect(failure.code).toBe(code);
  expect(failure.message).toMatch(words);
  expect(failure.details?.message).toBe(failure.message);
}

const acquire = (fields: leasehold.v1.AcquireRequest.$Properties) =>
  encode(v1.AcquireRequest, { name: "n", ...fields });
const bytes = (...parts: (number | string)[]) =>
  Buffer.concat(parts.map((part) => (typeof part === "number" ? Buffer.from([part]) : Buffer.from(part, "latin1"))));

const badCalls: [what: string, method: string, request: Buffer, words: RegExp][] = [
  ["an empty name", "LockService/Acquire", acquire({ name: "" }), /^name must not be empty$/],
  ["an over-long name", "LockService/Acquire", acquire({ name: "n".repeat(513) }), /^name has 513 bytes.*at most 512/],
  [
    "an over-long name of few letters",
    "LockService/Acquire",
    acquire({ name: "€".repeat(171) }),
    /^name has 513 bytes/,
  ],
  [
    "a control character",
    "LockService/Release",
    encode(v1.ReleaseRequest, { name: "a\nb", token: 1 }),
    /U\+000A at index 1/,
  ],
  ["DEL", "LockService/DescribeLock", encode(v1.DescribeLockRequest, { name: "a\x7f" }), /U\+007F at index 1/],
  ["a name that is not UTF-8", "LockService/Acquire", bytes(0x0a, 2, "\xff\xfe"), /malformed/],
  ["a name with half a surrogate pair", "LockService/Acquire", bytes(0x0a, 3, "\xed\xa0\x80"), /malformed/],
  ["a TTL of zero", "LockService/Acquire", acquire({ ttlMs: 0 }), /^ttl_ms must be 500 to 86400000; given: 0$/],
  ["a short TTL", "LockService/Acquire", acquire({ ttlMs: 499 }), /given: 499/],
  [
    "an absurd TTL",
    "LeaseService/CreateLease",
    encode(v1.CreateLeaseRequest, { ttlMs: 2 ** 53 - 1 }),
    /^ttl_ms must be/,
  ],
  ["a TTL of 2^64-1", "LeaseService/CreateLease", bytes(0x08, "\xff".repeat(9), 1), /malformed.*2\^53/],
  [
    "an absurd wait",
    "LockService/Acquire",
    acquire({ waitMs: 3_600_001, requestId: "r" }),
    /^wait_ms must be 0 to 3600000/,
  ],
  ["a wait without a request id", "LockService/Acquire", acquire({ waitMs: 1 }), /^request_id must be set/],
  [
    "an over-long request id",
    "LockService/Acquire",
    acquire({ requestId: "r".repeat(129) }),
    /^request_id has 129 bytes/,
  ],
  ["an unknown mode", "LockService/Acquire", acquire({ mode: 7 as never }), /^mode must be .*given: 7/],
  ["a negative mode", "LockService/Acquire", acquire({ mode: -1 as never }), /^mode must be .*given: -1/],
  [
    "permits without a semaphore",
    "LockService/Acquire",
    acquire({ permits: 1, permitLimit: 1 }),
    /^permits and permit_limit must be 0/,
  ],
  [
    "a semaphore of 2^32-1 permits",
    "LockService/Acquire",
    acquire({ mode: 3, permitLimit: 2 ** 32 - 1 }),
    /^permit_limit/,
  ],
  ["an absurd lock delay", "LockService/Acquire", acquire({ lockDelayMs: 2 ** 53 - 1 }), /^lock_delay_ms must be/],
  ["an absurd maximum hold", "LockService/Acquire", acquire({ maxHoldMs: 2 ** 53 - 1 }), /^max_hold_ms must be/],
  [
    "many held tokens",
    "LockService/Acquire",
    acquire({ heldTokens: new Array(65).fill(1) }),
    /held_tokens must be 0 to 64/,
  ],
  ["a held token of 2^64-1", "LockService/Acquire", bytes(0x82, 0x01, 10, "\xff".repeat(9), 1), /malformed.*2\^53/],
  [
    "no locks at all",
    "LockService/AcquireAll",
    encode(v1.AcquireAllRequest, {}),
    /^the number of locks must be 1 to 64/,
  ],
  [
    "65 locks",
    "LockService/AcquireAll",
    encode(v1.AcquireAllRequest, { locks: Array.from({ length: 65 }, (_, i) => ({ name: `n${i}` })) }),
    /^the number of locks must be 1 to 64; given: 65$/,
  ],
  [
    "a lock twice",
    "LockService/AcquireAll",
    encode(v1.AcquireAllRequest, { locks: [{ name: "n" }, { name: "n" }] }),
    /^locks\[1\]\.name is there twice/,
  ],
  [
    "a ticket id that is none",
    "LockService/Transfer",
    encode(v1.TransferRequest, { name: "n", token: 1, ticketId: "12" }),
    /^ticket_id must be/,
  ],
  ["a downgrade of nothing", "LockService/Downgrade", encode(v1.DowngradeRequest, { name: "n" }), /^token must be/],
  [
    "too much metadata for a hold",
    "LockService/SetMetadata",
    encode(v1.SetMetadataRequest, { name: "n", token: 1, metadata: Buffer.alloc(4_097) }),
    /^metadata has 4097 bytes/,
  ],
  [
    "an absurd progress interval",
    "LeaseService/CreateLease",
    encode(v1.CreateLeaseRequest, { progressEveryMs: 1 }),
    /^progress_every_ms must be 500 to/,
  ],
  [
    "an over-long reason",
    "AdminService/ForceRelease",
    encode(v1.ForceReleaseRequest, { name: "n", reason: "r".repeat(257) }),
    /^reason has 257 bytes/,
  ],
  ["a long top list", "AdminService/TopLocks", encode(v1.TopLocksRequest, { limit: 101 }), /^limit must be 1 to 100/],
  ["an empty lease id", "LockService/Acquire", acquire({ leaseId: "" }), /^lease_id must not be empty/],
  [
    "an over-long lease id",
    "LeaseService/RenewLease",
    encode(v1.RenewLeaseRequest, { leaseId: "l".repeat(129) }),
    /^lease_id has/,
  ],
  ["a session lease on a call", "LockService/Acquire", acquire({ sessionLease: 1 }), /^session_lease can only/],
  [
    "a session acquire on a call",
    "LockService/CancelAcquire",
    encode(v1.CancelAcquireRequest, { sessionAcquire: 1 }),
    /^session_acquire/,
  ],
  ["an over-long owner", "LockService/Acquire", acquire({ owner: "o".repeat(257) }), /^owner has 257 bytes/],
  ["too much metadata", "LockService/Acquire", acquire({ metadata: Buffer.alloc(4_097) }), /^metadata has 4097 bytes/],
  [
    "a token of zero",
    "LockService/Release",
    encode(v1.ReleaseRequest, { name: "n" }),
    /^token must be at least 1; given: 0/,
  ],
  ["a token of 2^64-1", "LockService/Release", bytes(0x0a, 1, "n", 0x10, "\xff".repeat(9), 1), /malformed.*2\^53/],
  [
    "a large page",
    "LockService/ListLocks",
    encode(v1.ListLocksRequest, { pageSize: 1_001 }),
    /^page_size must be 1 to 1000/,
  ],
  [
    "a bad page token",
    "LeaseService/ListLeases",
    encode(v1.ListLeasesRequest, { pageToken: "*" }),
    /^page_token must be/,
  ],
  [
    "many waiters",
    "LockService/DescribeLock",
    encode(v1.DescribeLockRequest, { name: "n", waitersMax: 1_001 }),
    /^waiters_max/,
  ],
  ["many ticks", "ClockService/Tick", encode(v1.TickRequest, { count: 1_000_001 }), /^count must be 1 to 1000000/],
  ["a truncated message", "LockService/Acquire", acquire({}).subarray(0, 2), /malformed/],
  ["garbage in place of a message", "AdminService/Status", bytes("\xff\xff\xff\xff\xff"), /malformed/],
  ["an unknown wire type", "LockService/Validate", bytes(0x0f, 1), /malformed/],
];

describe("unary calls", () => {
  it.each(badCalls)("%s is INVALID", async (_what, method, request, words) => {
    const failure = await failureOf(t.client.call(method, request));
    expectReason(failure, "INVALID", status.INVALID_ARGUMENT, words);
    expect(t.sink.commands).toEqual([]);
    await othersAreServed();
  });

  it("a request over the limit is LIMIT", async () => {
    const request = acquire({ metadata: Buffer.alloc(64 << 10) });
    const failure = await failureOf(t.client.call("LockService/Acquire", request));
    expectReason(failure, "LIMIT", status.RESOURCE_EXHAUSTED, /at most 65536/);
    expect(t.sink.commands).toEqual([]);
    await othersAreServed();
  });

  it("a request far over the limit is cut off before it has been read", async () => {
    const failure = await failureOf(t.client.call("LockService/Acquire", acquire({ metadata: Buffer.alloc(4 << 20) })));
    expect(failure.code).toBe(status.RESOURCE_EXHAUSTED);
    expect(t.sink.commands).toEqual([]);
    await othersAreServed();
  });

  it("a method that does not exist is UNIMPLEMENTED", async () => {
    const failure = await failureOf(t.client.call("LockService/Steal", acquire({})));
    expect(failure.code).toBe(status.UNIMPLEMENTED);
    await othersAreServed();
  });

  it("more open calls than allowed are LIMIT, and room comes back", async () => {
    t.sink.hold = true;
    const held = [1, 2, 3].map(() => t.client.acquire({ name: "n" }));
    await until("three calls are held", () => t.sink.all("call").length === 3);
    const failure = await failureOf(t.client.acquire({ name: "n" }));
    expectReason(failure, "LIMIT", status.RESOURCE_EXHAUSTED, /more than 3 calls/);
    expect(failure.details?.retryAfterMs).toBe(1_000);
    t.sink.hold = false;
    for (const call of t.sink.all("call")) t.sink.process(call);
    await Promise.all(held);
    await until("the calls are gone", () => t.server.stats().calls === 0);
    await othersAreServed();
  });

  it("an error message is cut, also through a surrogate pair", async () => {
    t.sink.answer = () => ({ kind: "refused", reason: "UNKNOWN_LEASE", message: `${"x".repeat(999)}😀` });
    const failure = await failureOf(t.client.acquire({ name: "n" }));
    expectReason(failure, "UNKNOWN_LEASE", status.NOT_FOUND, /^x{999}\ufffd\.\.\.$/);
  });
});

describe("session streams", () => {
  const badFirstFrames: [what: string, frame: Buffer, words: RegExp][] = [
    [
      "a first frame without Hello",
      encode(v1.AttachRequest, { frame: 1, renew: true }),
      /first frame must carry hello/,
    ],
    ["an empty frame", Buffer.alloc(0), /frame 1 was expected; given: 0/],
    [
      "a first frame with another number",
      encode(v1.AttachRequest, { frame: 2, hello: { epoch: 1 } }),
      /frame 1 was expected; given: 2/,
    ],
    [
      "commands beside Hello",
      encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1 }, commands: [{ seq: 1 }] }),
      /nothing but hello/,
    ],
    [
      "progress beside Hello",
      encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1 }, progress: [1] }),
      /nothing but hello/,
    ],
    ["a Hello without an epoch", encode(v1.AttachRequest, { frame: 1, hello: {} }), /hello\.epoch must be at least 1/],
    [
      "claims for a new session",
      encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1, claims: [3] } }),
      /must be empty for a new session/,
    ],
    [
      "a claim of zero",
      encode(v1.AttachRequest, { frame: 1, hello: { epoch: 2, sessionId: "s", claims: [0] } }),
      /hello\.claims must be at least 1/,
    ],
    [
      "an over-long session id",
      encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1, sessionId: "s".repeat(129) } }),
      /hello\.session_id has 129 bytes/,
    ],
    ["garbage", bytes("\xff\xff\xff\xff"), /malformed/],
  ];

  it.each(badFirstFrames)("%s ends the stream with INVALID", async (_what, frame, words) => {
    const failure = await t.client.attach().sendRaw(frame).status();
    expectReason(failure, "INVALID", status.INVALID_ARGUMENT, words);
    expect(t.sink.commands).toEqual([]);
    await othersAreServed();
  });

  const badFrames: [what: string, frame: Buffer, words: RegExp][] = [
    ["a frame number that is repeated", encode(v1.AttachRequest, { frame: 1 }), /frame 2 was expected; given: 1/],
    ["a frame number that leaves a gap", encode(v1.AttachRequest, { frame: 3 }), /frame 2 was expected; given: 3/],
    ["a second Hello", encode(v1.AttachRequest, { frame: 2, hello: { epoch: 1 } }), /hello may only be in the first/],
    [
      "a command without a number",
      encode(v1.AttachRequest, { frame: 2, commands: [{ tick: {} }] }),
      /command 1 of frame 2 has no seq/,
    ],
    ["progress on no lease", encode(v1.AttachRequest, { frame: 2, progress: [0] }), /progress must name/],
    ["a name that is not UTF-8", bytes(0x08, 2, 0x2a, 8, 0x08, 1, 0x22, 4, 0x0a, 2, "\xff\xfe"), /malformed/],
    ["a token of 2^64-1", bytes(0x08, 2, 0x2a, 15, 0x08, 1, 0x32, 11, 0x10, "\xff".repeat(9), 1), /malformed.*2\^53/],
    ["garbage", bytes("\x08\x02\xff\xff"), /malformed/],
  ];

  it.each(badFrames)("%s ends the stream with INVALID", async (_what, frame, words) => {
    const stream = t.client.attach().hello();
    await stream.frame(0);
    expectReason(await stream.sendRaw(frame).status(), "INVALID", status.INVALID_ARGUMENT, words);
    expect(t.sink.all("frame")).toEqual([]);
    expect(t.sink.all("detach").length).toBe(1);
    await othersAreServed();
  });

  it("a bad command in a good frame fails alone", async () => {
    const stream = t.client.attach().hello();
    await stream.frame(0);
    stream.send({
      frame: 2,
      commands: [
        { seq: 1, acquire: { name: "", sessionLease: 1 } },
        { seq: 2, release: { name: "n", token: 3 } },
        { seq: 3 },
      ],
    });
    const { results } = await stream.frame(1);
    expect(results?.map(({ seq, failure }) => [seq, failure?.reason, failure?.message])).toEqual([
      [1, "INVALID", "name must not be empty"],
      [2, undefined, undefined],
      [3, "INVALID", expect.stringContaining("empty")],
    ]);
    await othersAreServed();
  });

  it("a frame over the limit ends the stream with LIMIT", async () => {
    const stream = t.client.attach().hello();
    await stream.frame(0);
    stream.send({ frame: 2, commands: [{ seq: 1, createLease: { metadata: Buffer.alloc(64 << 10) } }] });
    expectReason(await stream.status(), "LIMIT", status.RESOURCE_EXHAUSTED, /at most 65536/);
    expect(t.sink.all("frame")).toEqual([]);
    await othersAreServed();
  });

  it("a frame far over the limit is cut off before it has been read", async () => {
    const stream = t.client.attach().hello();
    await stream.frame(0);
    stream.send({ frame: 2, commands: [{ seq: 1, createLease: { metadata: Buffer.alloc(4 << 20) } }] });
    expect((await stream.status()).code).toBe(status.RESOURCE_EXHAUSTED);
    await t.sink.first("detach");
    expect(t.sink.all("frame")).toEqual([]);
    await othersAreServed();
  });

  it("too many bytes before Welcome end the stream with LIMIT", async () => {
    t.sink.hold = true;
    const stream = t.client.attach().hello();
    await t.sink.first("attach");
    stream.send({ frame: 2, commands: [{ seq: 1, createLease: { metadata: Buffer.alloc(16 << 10) } }] });
    expectReason(await stream.status(), "LIMIT", status.RESOURCE_EXHAUSTED, /before welcome/);
    t.sink.hold = false;
    await othersAreServed();
  });

  it("more streams than allowed are LIMIT, and room comes back", async () => {
    const streams = [1, 2, 3].map(() => t.client.attach().hello());
    for (const stream of streams) await stream.frame(0);
    expectReason(await t.client.attach().hello().status(), "LIMIT", status.RESOURCE_EXHAUSTED, /more than 3 streams/);
    streams[0]?.end();
    await t.sink.first("detach");
    await t.client.attach().hello().frame(0);
  });

  it("a client that stops reading loses its stream, and only its stream", async () => {
    const session = connectHttp2(`http://127.0.0.1:${t.port}`);
    session.on("error", () => {});
    const stream = session.request({
      ":method": "POST",
      ":path": "/leasehold.v1.SessionService/Attach",
      "content-type": "application/grpc",
      te: "trailers",
    });
    let resetCode: number | undefined;
    stream.on("error", () => {});
    stream.on("close", () => {
      resetCode = stream.rstCode;
    });
    stream.write(grpcMessage(encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1 } })));
    const attach = await t.sink.first("attach");

    const bulk = "x".repeat(32 << 10);
    for (let i = 0; i < 16 && t.sink.all("detach").length === 0; i++) {
      const refusal = { kind: "refused", reason: "LIMIT", message: bulk } as const;
      t.sink.reply(attach.route, [outcome(attach, i + 1, refusal)]);
    }
    expect(t.sink.all("detach")).toEqual([{ kind: "detach", sessionId: attach.newSessionId, epoch: 1 }]);
    expect(t.server.stats().streams).toBe(0);
    await until("the stream is reset", () => resetCode !== undefined);
    expect(resetCode).toBe(11); // ENHANCE_YOUR_CALM
    await othersAreServed();
    session.destroy();
  });
});

describe("a stream that never says Hello", () => {
  it("ends with INVALID when its time is over", async () => {
    const quick = await startServer({ helloMsMax: 50 });
    const stream = quick.client.attach();
    expectReason(await stream.status(), "INVALID", status.INVALID_ARGUMENT, /no hello within 50 ms/);
    expect(quick.sink.commands).toEqual([]);
    expect(quick.server.stats().streams).toBe(0);
    await quick.stop();
  });
});

describe("connections", () => {
  it.each([
    ["random bytes", Buffer.from(Array.from({ length: 4_096 }, (_, i) => (i * 7919) % 256))],
    ["HTTP/1.1", Buffer.from("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")],
    ["a preface and then garbage", Buffer.from(`PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${"\x7f".repeat(200)}`)],
  ])("%s on the port closes the connection", async (_what, sent) => {
    const socket = connect(t.port, "127.0.0.1");
    let closed = false;
    socket.on("error", () => {});
    socket.on("close", () => {
      closed = true;
    });
    socket.resume();
    socket.write(sent);
    await until("the connection is closed", () => closed);
    expect(t.sink.commands).toEqual([]);
    await othersAreServed();
  });

  it("a peer that answers no ping is dropped", async () => {
    const quick = await startServer({ keepaliveMs: 50, keepaliveTimeoutMs: 50 });
    const socket = connect(quick.port, "127.0.0.1");
    let closed = false;
    socket.on("error", () => {});
    socket.on("close", () => {
      closed = true;
    });
    socket.resume();
    // A correct beginning, after which the peer falls silent: it acknowledges nothing.
    socket.write(
      Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]),
    );
    await until("the connection is closed", () => closed);
    await quick.stop();
  });

  it("what is not gRPC is refused", async () => {
    const session = connectHttp2(`http://127.0.0.1:${t.port}`);
    const stream = session.request({ ":method": "POST", ":path": "/leasehold.v1.LockService/Acquire" });
    const headers = await new Promise<Record<string, unknown>>((resolve) => stream.on("response", resolve));
    expect(headers[":status"]).toBe(415);
    session.destroy();
    await othersAreServed();
  });

  it("a small message that unpacks to a large one is cut off", async () => {
    const session = connectHttp2(`http://127.0.0.1:${t.port}`);
    const stream = session.request({
      ":method": "POST",
      ":path": "/leasehold.v1.LockService/Acquire",
      "content-type": "application/grpc",
      "grpc-encoding": "gzip",
      te: "trailers",
    });
    stream.end(grpcMessage(gzipSync(Buffer.alloc(32 << 20)), 1));
    const headers = await new Promise<Record<string, unknown>>((resolve) => stream.on("response", resolve));
    expect(headers["grpc-status"]).toBe(String(status.RESOURCE_EXHAUSTED));
    session.destroy();
    expect(t.sink.commands).toEqual([]);
    await othersAreServed();
  });
});
