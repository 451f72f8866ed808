// Sessions on a pipe of the test's own, without sockets.
import { decode, encode, type leasehold, v1 } from "@leasehold/client/wire";
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import type { Attach, Frame, Outcome, Reply } from "../../src/server/core/types.js";
import { badText } from "../../src/server/rpc/check.js";
import type { WireFailure } from "../../src/server/rpc/errors.js";
import { FrameReader } from "../../src/server/rpc/frames.js";
import { type RpcLimits, rpcLimitDefaults } from "../../src/server/rpc/limits.js";
import { RenewalPacing } from "../../src/server/rpc/pacing.js";
import { SessionEndpoint } from "../../src/server/rpc/session-endpoint.js";
import type { SessionInput, SessionPipe } from "../../src/server/rpc/session-pipe.js";
import { RequestValidator } from "../../src/server/rpc/validate.js";
import { everybody, type Identity } from "../../src/server/security/access.js";
import type { LiveRoute } from "../../src/server/sequencer/routes.js";
import { coreLimits, FakeSink, grant, plausible } from "./support.js";

class FakePipe implements SessionPipe {
  readonly frames: leasehold.v1.AttachResponse[] = [];
  readonly sizes: number[] = [];
  closed: WireFailure | null | undefined;
  wasReset: WireFailure | undefined;
  buffered = 0;
  /** For how many ms it was not to be read. */
  readonly rests: number[] = [];
  rest(ms: number): void {
    this.rests.push(ms);
  }
  write(bytes: Buffer): void {
    this.sizes.push(bytes.length);
    this.frames.push(decode(v1.AttachResponse, bytes));
  }
  bufferedBytes(): number {
    return this.buffered;
  }
  close(failure: WireFailure | null): void {
    this.closed = failure;
  }
  reset(failure: WireFailure): void {
    this.wasReset = failure;
  }
}

let sink: FakeSink;
let pipe: FakePipe;
let endpoint: SessionEndpoint;
let input: SessionInput;
let bugs: unknown[];
let ids: number;

beforeEach(() => {
  open();
});

function open(limits: Partial<RpcLimits> = {}, identity: Partial<Identity> = {}): void {
  sink = new FakeSink();
  sink.hold = true;
  pipe = new FakePipe();
  bugs = [];
  ids = 0;
  const all = { ...rpcLimitDefaults, ...limits };
  const check = new RequestValidator(coreLimits, all, { freshId: () => `id${++ids}`, wallMs: () => 1_234 });
  endpoint = new SessionEndpoint({
    sink,
    frames: new FrameReader(check, coreLimits, all),
    pacing: new RenewalPacing(
      () => 0,
      () => 0.5,
    ),
    core: coreLimits,
    limits: all,
    serverVersion: "1.2.3",
    clusterId: () => "cluster",
    onBug: (error) => bugs.push(error),
  });
  input = endpoint.open(pipe, null, { identity: { ...everybody, ...identity }, requestId: "r", address: "a" });
}

const send = (message: leasehold.v1.AttachRequest.$Properties) => input.receive(encode(v1.AttachRequest, message));
const hello = (fields: leasehold.v1.Hello.$Properties = {}) =>
  send({ frame: 1, hello: { epoch: 1, ...fields }, observed: 5 });
const attach = () => sink.all("attach").at(-1) as Attach;
const frames = () => sink.all("frame");

function welcome(): void {
  sink.process(attach());
}

/** What the sequencer calls. */
function deliver(replies: Partial<Reply>[]): void {
  const { route } = attach();
  sink.reply(
    route,
    replies.map((reply) => ({ route, clockAheadBy: 0, ...reply }) as Reply),
  );
}

const result = (seq: number, outcome: Outcome): Partial<Reply> => ({ kind: "outcome", seq, outcome });
const release = (seq: number) => ({ seq, release: { name: "n", token: seq } });

describe("the beginning", () => {
  it("Hello becomes an attach, and the Welcome says what the client must know", () => {
    hello({ sessionId: "s", epoch: 4, claims: [7, 9], outstanding: [3], clusterId: "cluster", highestToken: 9 });
    expect(attach()).toMatchObject({
      sessionId: "s",
      newSessionId: "id1",
      epoch: 4,
      claims: [7, 9],
      outstanding: [3],
      abandoned: [],
      clusterId: "cluster",
      highestToken: 9,
      observed: 5,
    });
    deliver([result(0, { kind: "welcome", sessionId: "s", epoch: 4, resumed: true, lost: [9] })]);
    expect(pipe.frames).toEqual([
      expect.objectContaining({
        frame: 1,
        timestamp: 7,
        welcome: expect.objectContaining({
          sessionId: "s",
          clusterId: "cluster",
          lost: [9],
          resumeMs: 5_000,
          frameBytesMax: 1 << 20,
          commandsInFlightMax: 1_000,
          serverVersion: "1.2.3",
        }),
      }),
    ]);
  });

  it("frames before the Welcome are held and then taken in order", () => {
    hello();
    send({ frame: 2, commands: [release(1)] });
    send({ frame: 3, commands: [release(2)], renew: true, ackedBelow: 2, observed: 8 });
    expect(frames()).toEqual([]);
    welcome();
    expect(frames()).toMatchObject([
      { sessionId: "id1", epoch: 1, frame: 2, renew: false, requests: [{ seq: 1 }] },
      { sessionId: "id1", epoch: 1, frame: 3, renew: true, ackedBelow: 2, observed: 8, requests: [{ seq: 2 }] },
    ]);
  });

  it.each(["UNKNOWN_SESSION", "SESSION_REPLACED", "CLUSTER_MISMATCH", "LIMIT"] as const)(
    "a refusal of the attach, %s, ends the stream with that status",
    (reason) => {
      hello({ sessionId: "s", epoch: 2 });
      send({ frame: 2, commands: [release(1)] });
      deliver([result(0, { kind: "refused", reason, message: "so" })]);
      expect(pipe.closed).toMatchObject({ reason, message: "so" });
      expect(pipe.frames).toEqual([]);
      expect(sink.commands.length).toBe(1);
      expect(endpoint.size).toBe(0);
    },
  );

  it("a sequencer that takes nothing ends the stream", () => {
    sink.refusal = { reason: "STORE_DOWN", message: "no disk", retryAfterMs: 500 };
    hello();
    expect(pipe.closed).toEqual({ reason: "STORE_DOWN", message: "no disk", retryAfterMs: 500 });
  });
});

describe("a quota", () => {
  it("refuses what is too much, renews nevertheless, and has the stream rest, but not for long", () => {
    open({}, { charge: () => ({ reason: "LIMIT", message: "slowly", retryAfterMs: 700, holdMs: 500 }) });
    hello();
    welcome();
    send({ frame: 2, commands: [release(1)], renew: true });
    expect(pipe.frames.at(-1)?.results).toMatchObject([{ seq: 1, failure: { reason: "LIMIT", retryAfterMs: 700 } }]);
    expect(frames()).toMatchObject([{ frame: 2, renew: true, requests: [] }]);
    expect(pipe.rests).toEqual([100]);
  });

  it("that is used up in the middle of a frame lets the first of its requests through", () => {
    open({}, { charge: (n) => ({ reason: "LIMIT", message: "slowly", retryAfterMs: 70, admitted: n - 2 }) });
    hello();
    welcome();
    send({ frame: 2, commands: [release(1), release(2), release(3), release(4), release(5)] });
    expect(frames()).toMatchObject([{ frame: 2, requests: [{ seq: 1 }, { seq: 2 }, { seq: 3 }] }]);
    expect(pipe.frames.at(-1)?.results).toMatchObject([
      { seq: 4, failure: { reason: "LIMIT", retryAfterMs: 70 } },
      { seq: 5, failure: { reason: "LIMIT", retryAfterMs: 70 } },
    ]);
  });

  it("never refuses what is sent again, as often as that was announced", () => {
    const asked: unknown[] = [];
    const charge: Identity["charge"] = (n, by) => {
      asked.push([n, by]);
      return by === "again" ? null : { reason: "LIMIT", message: "slowly", retryAfterMs: 70, admitted: 1 };
    };
    open({}, { charge });
    hello({ sessionId: "s", epoch: 2, outstanding: [3, 5] });
    deliver([result(0, { kind: "welcome", sessionId: "s", epoch: 2, resumed: true, lost: [] })]);
    send({ frame: 2, commands: [release(3), release(5), release(6), release(7)] });
    expect(asked).toEqual([
      [2, "again"],
      [2, "frame"],
    ]);
    expect(frames()).toMatchObject([{ frame: 2, requests: [{ seq: 3 }, { seq: 5 }, { seq: 6 }] }]);
    expect(pipe.frames.at(-1)?.results).toMatchObject([{ seq: 7, failure: { reason: "LIMIT" } }]);
    send({ frame: 3, commands: [release(4), release(5)] }); // once more
    expect(asked.at(-1)).toEqual([2, "frame"]);
    expect(pipe.closed).toMatchObject({ reason: "LIMIT" });
  });

  it("is not asked for frames without requests; they have a pace, by what the one before has brought about", () => {
    const told: number[] = [];
    const paces = [0, 30, 500];
    const pace = (renewals: number) => {
      told.push(renewals);
      return paces.shift() ?? 0;
    };
    open({}, { pace, charge: () => ({ reason: "LIMIT", message: "", retryAfterMs: 1 }) });
    hello();
    welcome();
    send({ frame: 2, renew: true });
    const renewal = (leaseSeq: number): Partial<Reply> => ({ kind: "renewal", frame: 2, leaseSeq, remainingMs: 1_000 });
    deliver([renewal(1), renewal(2)]);
    send({ frame: 3, ackedBelow: 2 });
    send({ frame: 4, progress: [1] });
    expect(told).toEqual([0, 2, 0]);
    expect(pipe.rests).toEqual([30, 100]);
    expect(frames().map(({ frame }) => frame)).toEqual([2, 3, 4]);
  });
});

describe("commands", () => {
  beforeEach(() => {
    hello();
    welcome();
    pipe.frames.length = 0;
  });

  it("become requests of the core", () => {
    send({
      frame: 2,
      commands: [
        { seq: 1, createLease: { ttlMs: 0, owner: "me", metadata: Buffer.from("hi") } },
        { seq: 2, acquire: { name: "n", sessionLease: 1, waitMs: 9, requestId: "ignored", observed: 99 } },
        { seq: 3, cancelAcquire: { sessionAcquire: 2 } },
        { seq: 4, revokeSessionLease: 1 },
        { seq: 5, revokeLease: { leaseId: "L" } },
        { seq: 6, acquire: { name: "n" } },
        { seq: 7, tick: { observed: 12 } },
      ],
    });
    expect(frames()[0]?.requests).toEqual([
      {
        seq: 1,
        request: {
          kind: "createLease",
          leaseId: "id2",
          ttlMs: 15_000,
          owner: "me",
          metadata: "aGk=",
          progressEveryMs: 0,
        },
      },
      {
        seq: 2,
        request: {
          kind: "acquire",
          items: [{ name: "n", mode: "exclusive", permits: 0, permitLimit: 0 }],
          all: false,
          holder: { kind: "session", seq: 1 },
          waitMs: 9,
          pollMs: 0,
          requestId: "",
          owner: "",
          metadata: "",
          wallMs: 1_234,
          lockDelayMs: 0,
          maxHoldMs: 0,
          contenderId: "",
          heldTokens: [],
        },
      },
      { seq: 3, request: { kind: "cancelAcquire", target: { kind: "session", seq: 2 } } },
      { seq: 4, request: { kind: "revokeLease", lease: { kind: "session", seq: 1 }, expired: false } },
      { seq: 5, request: { kind: "revokeLease", lease: { kind: "lease", leaseId: "L" }, expired: false } },
      { seq: 6, request: expect.objectContaining({ holder: { kind: "own", leaseId: "id3", ttlMs: 15_000 } }) },
      { seq: 7, request: { kind: "tick", observed: 12, count: 1 } },
    ]);
  });

  it("are answered by one frame a batch, which names the last frame that was processed", () => {
    deliver([
      result(2, grant),
      { kind: "processed", frame: 2, clockAheadBy: 6 },
      { kind: "renewal", frame: 3, leaseSeq: 1, remainingMs: 800 },
      result(3, { kind: "released" }),
      { kind: "processed", frame: 3, clockAheadBy: 4 },
      { kind: "leaseEnd", leaseSeq: 8, reason: "revoked" },
    ]);
    expect(pipe.frames.length).toBe(1);
    expect(pipe.frames[0]).toMatchObject({ frame: 3, timestamp: 7, clockAheadBy: 6 });
    expect(pipe.frames[0]?.welcome).toBeNull();
    const [first, second] = pipe.frames[0]?.results ?? [];
    expect(first).toMatchObject({ seq: 2, acquire: { grant: { token: 41, timestamp: 9, leaseRemainingMs: 999 } } });
    expect(first?.acquire?.grant?.leaseId).toBe("");
    expect(second).toMatchObject({ seq: 3, release: {} });
    const renewal = { sessionLease: 1, remainingMs: 800, frame: 3, renewAfterMs: 266 };
    expect(pipe.frames[0]?.renewals).toMatchObject([renewal]);
    expect(pipe.frames[0]?.leaseEnds).toMatchObject([{ sessionLease: 8, reason: v1.EndReason.END_REASON_REVOKED }]);
    deliver([result(4, { kind: "released" })]);
    expect(pipe.frames[1]).toMatchObject({ frame: 3, clockAheadBy: 0 });
  });

  it("are answered each in its own way", () => {
    sink.hold = false;
    sink.answer = plausible;
    const hold = { name: "n", token: 1 };
    send({
      frame: 2,
      commands: [
        { seq: 1, acquireAll: { locks: [{ name: "a" }, { name: "b" }], sessionLease: 1 } },
        { seq: 2, transfer: { ...hold, ticketId: "T3" } },
        { seq: 3, downgrade: hold },
        { seq: 4, setMetadata: hold },
      ],
    });
    sink.process(frames()[0] as Frame);
    expect(pipe.frames[0]?.results).toMatchObject([
      {
        seq: 1,
        acquireAll: {
          grants: {
            grants: [
              { name: "a", token: 41, leaseId: "" },
              { name: "b", token: 42 },
            ],
          },
        },
      },
      { seq: 2, transfer: { token: 42 } },
      { seq: 3, downgrade: {} },
      { seq: 4, setMetadata: {} },
    ]);
    expect(bugs).toEqual([]);
  });

  it("a deadlock is a failure with its knot", () => {
    const knot = [{ ticketId: "T1", owner: "a", contenderId: "c", waitsFor: ["y"], holds: ["x"] }];
    deliver([result(2, { kind: "refused", reason: "DEADLOCK", message: "so", knot })]);
    expect(pipe.frames[0]?.results).toMatchObject([{ seq: 2, failure: { reason: "DEADLOCK", message: "so", knot } }]);
  });

  it("a grant that ends is told, with what is expected of its holder", () => {
    deliver([
      { kind: "holdEnd", token: 41, reason: "forced", confirm: true, message: "hangs" },
      { kind: "holdEnd", token: 42, reason: "max_hold", confirm: false, message: "" },
    ]);
    expect(pipe.frames[0]?.holdEnds).toMatchObject([
      { token: 41, reason: v1.EndReason.END_REASON_FORCED, confirm: true, message: "hangs" },
      { token: 42, reason: v1.EndReason.END_REASON_MAX_HOLD, confirm: false, message: "" },
    ]);
  });

  it("nothing to say writes nothing", () => {
    deliver([]);
    expect(pipe.frames).toEqual([]);
  });

  it("fail at once when the sequencer takes no more, and the stream goes on", () => {
    sink.refusal = { reason: "LIMIT", message: "too much", retryAfterMs: 40 };
    send({ frame: 2, commands: [release(1), release(2)] });
    const failure = { reason: "LIMIT", message: "too much", retryAfterMs: 40 };
    expect(pipe.frames[0]?.results).toMatchObject([
      { seq: 1, failure },
      { seq: 2, failure },
    ]);
    expect(pipe.frames[0]?.frame).toBe(1); // the frame was not processed
    expect(pipe.closed).toBeUndefined();
    sink.refusal = null;
    send({ frame: 3, commands: [release(3)] });
    expect(frames().map(({ frame }: Frame) => frame)).toEqual([3]);
  });

  it("an outcome that belongs to no command is a bug and an INTERNAL failure of that command", () => {
    deliver([
      result(1, { kind: "renewed", displayId: "D", owner: "o", ttlMs: 1, remainingMs: 1, revoking: [] }),
      result(2, { kind: "released" }),
    ]);
    expect(pipe.frames[0]?.results).toMatchObject([
      { seq: 1, failure: { reason: "INTERNAL" } },
      { seq: 2, release: {} },
    ]);
    expect(bugs.length).toBe(1);
  });
});

describe("progress", () => {
  beforeEach(() => {
    hello();
    welcome();
  });

  it("is handed on with the frame that reports it", () => {
    send({ frame: 2, progress: [3, 1, 3] });
    send({ frame: 3, renew: true });
    expect(frames().map(({ progress, renew }: Frame) => [progress, renew])).toEqual([
      [[3, 1, 3], false],
      [[], true],
    ]);
  });

  it("that names no command ends the stream", () => {
    send({ frame: 2, progress: [1, 0] });
    expect(pipe.closed).toMatchObject({ reason: "INVALID", message: expect.stringMatching(/^progress must name/) });
    expect(frames()).toEqual([]);
  });

  it("on more leases than a session may have ends the stream", () => {
    send({ frame: 2, progress: new Array(1_000).fill(1) });
    expect(pipe.closed).toBeUndefined();
    send({ frame: 3, progress: new Array(1_001).fill(1) });
    expect(pipe.closed).toMatchObject({ reason: "LIMIT", message: expect.stringMatching(/1001 leases; at most 1000/) });
  });
});

describe("a resumed session", () => {
  it("does not answer a command that was sent before with a failure of its own, but ends", () => {
    hello({ sessionId: "s", epoch: 2, outstanding: [4, 6] });
    welcome();
    sink.refusal = { reason: "LIMIT", message: "too much", retryAfterMs: 40 };
    send({ frame: 2, commands: [release(7)] });
    expect(pipe.frames.at(-1)?.results).toMatchObject([{ seq: 7, failure: { reason: "LIMIT" } }]);
    send({ frame: 3, commands: [release(8), release(6)] });
    expect(pipe.frames.at(-1)?.results?.length).toBe(1);
    expect(pipe.closed).toEqual({ reason: "LIMIT", message: "too much", retryAfterMs: 40 });
  });
});

describe("damaged frames", () => {
  const intact = encode(v1.AttachRequest, {
    frame: 2,
    ackedBelow: 1,
    acked: [],
    renew: true,
    progress: [1, 300],
    commands: [
      { seq: 1, createLease: { ttlMs: 1_000, owner: "me", metadata: Buffer.from("hi") } },
      { seq: 2, acquire: { name: "orders/42", sessionLease: 1, waitMs: 9 } },
      { seq: 3, release: { name: "orders/42", token: 2 ** 40 } },
      { seq: 4, listLocks: { prefix: "o", pageSize: 5 } },
      {
        seq: 5,
        acquireAll: { locks: [{ name: "a", mode: 3, permits: 2, permitLimit: 3 }, { name: "b" }], heldTokens: [7] },
      },
      { seq: 6, transfer: { name: "orders/42", token: 300, ticketId: "T12" } },
    ],
  });
  const damage = fc.array(fc.tuple(fc.nat(intact.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 });

  it("end the stream or leave commands that keep to the limits, and are never a bug", () => {
    fc.assert(
      fc.property(damage, fc.nat(intact.length), (changes, length) => {
        open();
        hello();
        welcome();
        const bytes = Buffer.from(intact.subarray(0, length));
        for (const [at, value] of changes) if (at < length) bytes[at] = value;
        input.receive(bytes);
        expect(bugs).toEqual([]);
        if (pipe.closed !== undefined) expect(pipe.closed?.reason).toBe("INVALID");
        else expect(frames().length).toBe(1);
        for (const frame of frames()) for (const seq of frame.progress) expect(seq).toBeGreaterThan(0);
        for (const { seq, request } of frames().flatMap((frame: Frame) => frame.requests)) {
          expect(seq).toBeGreaterThan(0);
          for (const item of request.kind === "acquire" ? request.items : []) {
            expect(badText("name", item.name, 512)).toBeNull();
            expect(item.permits).toBeLessThanOrEqual(item.permitLimit);
            expect(item.permitLimit).toBeLessThanOrEqual(coreLimits.permitLimitMax);
          }
          if (request.kind === "transfer") expect(request.ticketId).toMatch(/^T[1-9]\d*$/);
          if (request.kind === "release") expect(Number.isSafeInteger(request.token)).toBe(true);
        }
        input.ended();
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("large batches", () => {
  it("are written as several frames, each below the limit, in order and complete", () => {
    open({ frameBytesMax: 2_000, listBytesMax: 1_000 });
    hello();
    const refusal = (seq: number) => result(seq, { kind: "refused", reason: "STALE_TOKEN", message: "m".repeat(300) });
    const lost: Outcome = { kind: "welcome", sessionId: "s", epoch: 1, resumed: false, lost: [] };
    const renewals = Array.from({ length: 700 }, (_, i) => i + 1);
    deliver([
      result(0, lost),
      ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map(refusal),
      ...renewals.map((leaseSeq): Partial<Reply> => ({ kind: "renewal", frame: 1, leaseSeq, remainingMs: 2 ** 40 })),
      { kind: "leaseEnd", leaseSeq: 5, reason: "expired" },
      ...[6, 7, 8].map(
        (token): Partial<Reply> => ({
          kind: "holdEnd",
          token,
          reason: "forced",
          confirm: false,
          message: "m".repeat(900),
        }),
      ),
    ]);
    expect(pipe.frames.length).toBeGreaterThan(4);
    expect(Math.max(...pipe.sizes)).toBeLessThanOrEqual(2_000);
    expect(pipe.frames.map((frame) => frame.welcome !== null)).toEqual(pipe.frames.map((_, i) => i === 0));
    expect(pipe.frames.flatMap((frame) => frame.results.map(({ seq }) => seq))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(pipe.frames.flatMap((frame) => frame.renewals.map((r) => r.sessionLease))).toEqual(renewals);
    expect(pipe.frames.flatMap((frame) => frame.leaseEnds.map((e) => e.sessionLease))).toEqual([5]);
    expect(pipe.frames.flatMap((frame) => frame.holdEnds.map((e) => e.token))).toEqual([6, 7, 8]);
    expect(bugs).toEqual([]);
  });
});

describe("the end", () => {
  it("of the stream detaches the session, once", () => {
    hello();
    welcome();
    input.ended();
    input.ended();
    expect(sink.all("detach")).toEqual([{ kind: "detach", sessionId: "id1", epoch: 1 }]);
    expect(pipe.closed).toBeNull();
    send({ frame: 2, commands: [release(1)] });
    deliver([result(1, grant)]);
    expect(frames()).toEqual([]);
    expect(pipe.frames.length).toBe(1);
  });

  it("before the Welcome detaches the session when it is made", () => {
    hello();
    input.ended();
    expect(sink.all("detach")).toEqual([]);
    welcome();
    expect(sink.all("detach")).toEqual([{ kind: "detach", sessionId: "id1", epoch: 1 }]);
    expect(pipe.frames).toEqual([]);
  });

  it("before Hello leaves no trace", () => {
    input.ended();
    expect(sink.commands).toEqual([]);
    expect(endpoint.size).toBe(0);
  });

  it("by another stream of the same session writes what there is and detaches nothing", () => {
    hello();
    welcome();
    deliver([result(1, { kind: "released" }), { kind: "replaced" }]);
    expect(pipe.frames.at(-1)?.results).toMatchObject([{ seq: 1 }]);
    expect(pipe.closed).toMatchObject({ reason: "SESSION_REPLACED" });
    input.ended();
    expect(sink.all("detach")).toEqual([]);
  });

  it("by a failed journal is OUTCOME_UNKNOWN", () => {
    hello();
    welcome();
    (attach().route as LiveRoute).fail({ reason: "OUTCOME_UNKNOWN", message: "who knows", retryAfterMs: 0 });
    expect(pipe.closed).toMatchObject({ reason: "OUTCOME_UNKNOWN", message: "who knows" });
    expect(sink.all("detach")).toEqual([]);
  });

  it("by a client that does not read is a reset", () => {
    open({ streamBufferedBytesMax: 100 });
    hello();
    pipe.buffered = 100;
    welcome();
    expect(pipe.wasReset).toBeUndefined();
    pipe.buffered = 101;
    deliver([result(1, grant)]);
    expect(pipe.wasReset).toMatchObject({ reason: "LIMIT" });
    expect(pipe.closed).toBeUndefined();
    expect(sink.all("detach").length).toBe(1);
  });

  it("of the server ends all streams", () => {
    hello();
    welcome();
    const second = new FakePipe();
    endpoint.open(second);
    endpoint.closeAll({ reason: "CLOSED", message: "bye", retryAfterMs: 1 });
    expect([pipe.closed, second.closed]).toMatchObject([{ reason: "CLOSED" }, { reason: "CLOSED" }]);
    expect(endpoint.size).toBe(0);
  });
});
