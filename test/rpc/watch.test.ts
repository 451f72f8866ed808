import type { ClientReadableStream, ServiceError } from "@grpc/grpc-js";
import { decode, encode, type leasehold, type StatusDetails, v1 } from "@leasehold/client/wire";
import { describe, expect, test } from "vitest";
import type { CoreEvent, HoldEnd } from "../../src/server/core/types.js";
import { inMemoryTransport } from "../../src/server/rpc/in-memory.js";
import type { RpcLimits, WatchLimits } from "../../src/server/rpc/limits.js";
import { noHold, noWaiter, Store } from "../watch/store.js";
import { GrpcFailure, startServer, type TestServer, until } from "./support.js";

type Kind = keyof typeof v1.WatchEventKind;

const raw = (bytes: Buffer) => bytes;
const kindOf = (event: leasehold.v1.WatchEvent.$Properties) =>
  (v1.WatchEventKind[event.kind ?? 0] as Kind).replace("WATCH_EVENT_KIND_", "");

class Watch {
  readonly responses: leasehold.v1.WatchResponse[] = [];
  failure: GrpcFailure | null = null;
  bytes = 0;
  readonly call: ClientReadableStream<Buffer>;

  constructor(t: TestServer, request: leasehold.v1.WatchRequest.$Properties | Buffer) {
    const bytes = Buffer.isBuffer(request) ? request : encode(v1.WatchRequest, request);
    this.call = t.client.grpc.makeServerStreamRequest("/leasehold.v1.LockService/Watch", raw, raw, bytes);
    this.call.on("data", (response: Buffer) => {
      this.bytes += response.length;
      this.responses.push(decode(v1.WatchResponse, response));
    });
    this.call.on("error", (error: ServiceError) => {
      this.failure = GrpcFailure.of(error);
    });
  }

  get events() {
    return this.responses.flatMap(({ events }) => events);
  }

  get kinds(): string[] {
    return this.events.map(kindOf);
  }

  async status(): Promise<GrpcFailure> {
    await until("the watch ends with a status", () => this.failure !== null);
    return this.failure as GrpcFailure;
  }
}

async function start(limits: Partial<WatchLimits> = {}, rpc: Partial<RpcLimits> = {}) {
  const store = new Store(limits);
  const t = await startServer(rpc, { watch: store.hub });
  /** A watch that the server knows of. */
  const watch = async (request: leasehold.v1.WatchRequest.$Properties) => {
    const before = store.hub.size;
    const opened = new Watch(t, request);
    await until("the watch is open", () => store.hub.size > before);
    return opened;
  };
  return { store, t, watch };
}

describe("what is refused", () => {
  test.each([
    ["no target", {}, "INVALID", /name or prefix must be set/],
    ["an empty name", { name: "" }, "INVALID", /name must not be empty/],
    ["a long name", { name: "n".repeat(513) }, "INVALID", /513 bytes/],
    ["a control character", { prefix: "a\n" }, "INVALID", /control character/],
    ["a long prefix", { prefix: "n".repeat(513) }, "INVALID", /513 bytes/],
    ["bytes that are no message", Buffer.from([0xff, 0xff, 0xff]), "INVALID", /malformed/],
    [
      "a position above 2^53 - 1",
      Buffer.from([0x12, 0x01, 0x61, 0x18, ...Array.from({ length: 9 }, () => 0xff), 0x01]),
      "INVALID",
      /malformed/,
    ],
    ["a request that is too large", Buffer.alloc(30_000), "LIMIT", /30000 bytes/],
  ])("%s", async (_what, request, reason, message) => {
    const { store, t } = await start({}, { frameBytesMax: 20_000 });
    const failure = await new Watch(t, request).status();
    expect(failure.details).toMatchObject({ reason, message: expect.stringMatching(message) });
    expect(failure.reasonTrailer).toBe(reason);
    expect(store.hub.size).toBe(0);
    expect(t.bugs).toEqual([]);
    await t.stop();
  });

  test("more watches than configured", async () => {
    const { t, watch } = await start({ watchersMax: 1 });
    await watch({ prefix: "" });
    expect((await new Watch(t, { prefix: "" }).status()).details).toMatchObject({ reason: "LIMIT", code: 8 });
    await t.stop();
  });
});

test("state, events and positions arrive, and a watch goes on behind its position", async () => {
  const { store, t, watch } = await start();
  store.metadata = "aGk=";
  store.grant("a");
  store.queue("a");
  store.commit();
  const first = await watch({ prefix: "a" });
  store.settle();
  await until("the state", () => first.kinds.includes("SYNCED"));
  expect(first.responses[0]).toMatchObject({ timestamp: 0, events: [{ resetReason: 1 }] });
  expect(first.kinds).toEqual(["RESET", "STATE", "SYNCED"]);
  expect(first.events[1]).toMatchObject({
    name: "a",
    holders: [{ token: 1, owner: "o", metadata: Buffer.from("hi"), mode: 1, heldMs: 1 }],
    holdersTotal: 1,
    waiters: [{ ticketId: "T1", position: 1 }],
    waitersTotal: 1,
  });
  const position = first.responses.at(-1)?.timestamp as number;
  expect(position).toBe(store.timestamp);
  store.end("a", 1);
  store.commit();
  await until("the event", () => first.events.length === 4);
  expect(first.events[3]).toMatchObject({ kind: 7, name: "a", token: 1, timestamp: store.timestamp });

  const second = await watch({ prefix: "a", after: position });
  store.settle();
  await until("the event once more", () => second.events.length === 1);
  expect(second.responses).toEqual(first.responses.slice(-1));
  first.call.cancel();
  await until("the server knows", () => store.hub.size === 1);
  await t.stop();
});

test("every event has its kind and what belongs to it", async () => {
  const { store, t, watch } = await start();
  const seen = await watch({ name: "n", fromNow: true });
  store.commit();
  const at = { name: "n", token: 7, message: "why", mode: "exclusive", heldMs: 9 } as const;
  const hold = { ...noHold, token: 7, slots: [3], permits: 1, permitLimit: 4, mode: "semaphore" } as const;
  const waiter = { ...noWaiter, ticketId: "T5" };
  const granted = {
    kind: "granted",
    name: "n",
    token: 7,
    mode: "semaphore",
    waitedMs: 0,
    ticketId: "T5",
    hold,
  } as const;
  const ends: HoldEnd[] = ["released", "cancelled", "undelivered", "expired", "revoked", "forced", "max_hold"];
  let timestamp = store.timestamp;
  const events: CoreEvent[] = [
    { kind: "queued", name: "n", timestamp: ++timestamp, waiter },
    { kind: "dequeued", name: "n", timestamp: ++timestamp, waiter },
    { ...granted, timestamp: ++timestamp, transferredFrom: 0 },
    { ...granted, timestamp: ++timestamp, transferredFrom: 6 },
    ...ends.map((end) => ({ ...at, kind: "holdEnded" as const, timestamp: ++timestamp, end })),
    { ...at, kind: "downgraded", timestamp: ++timestamp, hold },
    { ...at, kind: "updated", timestamp: ++timestamp, hold },
    { ...at, kind: "revoking", timestamp: ++timestamp, hold },
  ];
  for (const event of events) store.other(event);
  store.tick(events.length);
  store.commit();
  await until("all of them", () => seen.events.length === events.length);
  expect(seen.kinds).toEqual([
    ...["QUEUED", "DEQUEUED", "GRANTED", "TRANSFERRED"],
    ...["RELEASED", "RELEASED", "RELEASED", "EXPIRED", "REVOKED", "FORCED", "MAX_HOLD"],
    ...["DOWNGRADED", "UPDATED", "REVOKING"],
  ]);
  const [queued, , grant, transfer, released] = seen.events;
  expect(queued?.waiters).toMatchObject([{ ticketId: "T5", owner: "w" }]);
  expect(grant).toMatchObject({ token: 0, ticketId: "T5" });
  expect(grant?.holders).toMatchObject([{ token: 7, slots: [3], permits: 1, permitLimit: 4, mode: 3, heldMs: 0 }]);
  expect(transfer).toMatchObject({ token: 6, ticketId: "T5", holders: [{ token: 7 }] });
  expect(released).toMatchObject({ token: 7, message: "why", holders: [] });
  expect(seen.events.at(-1)).toMatchObject({ message: "why", holders: [{ token: 7, revoking: true }] });
  expect(seen.events.at(-2)).toMatchObject({ holders: [{ token: 7, revoking: false }] });
  expect(seen.events.map((event) => event.timestamp)).toEqual(
    events.map((event) => "timestamp" in event && event.timestamp),
  );
  expect(t.bugs).toEqual([]);
  await t.stop();
});

test("a client that stops reading is told that it lagged, costs a bounded buffer, and slows nobody down", async () => {
  const { store, t, watch } = await start({ watcherQueueEventsMax: 100 });
  const slow = await watch({ prefix: "" });
  const fast = await watch({ prefix: "" });
  store.settle();
  await until("both are live", () => slow.kinds.includes("SYNCED") && fast.kinds.includes("SYNCED"));
  slow.call.pause();
  store.metadata = Buffer.alloc(3_000, "m").toString("base64");
  let told = 0;
  while (told < 5_000) {
    for (let i = 0; i < 20; i++, told++) store.queue(`n${told % 10}`);
    store.commit();
    store.turns.turn();
    await until("the fast one sees it", () => fast.events.length === told + 2);
  }
  expect(store.lagged).toBe(1);
  slow.call.resume();
  await until("the reset", () => slow.kinds.lastIndexOf("RESET") > 0);
  const before = slow.kinds.lastIndexOf("RESET") - 2;
  expect(before).toBeLessThan(500); // of 5,000: what the connection and the transport took
  expect(slow.bytes).toBeLessThan(3_000_000);
  expect(fast.bytes).toBeGreaterThan(15_000_000);
  while (slow.kinds.at(-1) !== "SYNCED") {
    store.settle();
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(slow.events.find(({ resetReason }) => resetReason === 2)).toBeDefined();
  const states = slow.events.slice(before + 3, -1);
  expect(states.map(({ name, waitersTotal }) => [name, waitersTotal])).toEqual(
    Array.from({ length: 10 }, (_, i) => [`n${i}`, 500]),
  );
  expect(states[0]?.waiters?.length).toBe(10);
  await t.stop();
});

describe("the end of the server", () => {
  test("draining ends watches with CLOSED, also of a client that does not read", async () => {
    const { store, t, watch } = await start({}, { closeMsMax: 50 });
    const open = await watch({ prefix: "" });
    const stuck = await watch({ prefix: "", fromNow: true });
    stuck.call.pause();
    store.commit();
    store.metadata = Buffer.alloc(3_000, "m").toString("base64");
    for (let i = 0; i < 200; i++) {
      store.queue("n");
      store.commit();
    }
    const drained = t.server.drain(30_000);
    expect((await open.status()).details).toMatchObject({ reason: "CLOSED", code: 14 });
    await drained;
    expect(store.hub.size).toBe(0);
    await t.stop();
  });

  test("new watches are refused while it drains", async () => {
    const { store, t } = await start();
    t.sink.hold = true;
    const waiting = t.client.acquire({ name: "n", ttlMs: 1_000 }).catch(() => {});
    await t.sink.first("call");
    const drained = t.server.drain(1_000);
    expect((await new Watch(t, { prefix: "" }).status()).details).toMatchObject({ reason: "CLOSED" });
    expect(store.hub.size).toBe(0);
    await drained;
    await waiting;
    await t.stop();
  });

  test("the failure of the store ends watches with STORE_DOWN", async () => {
    const { store, t, watch } = await start();
    const open = await watch({ prefix: "" });
    store.restart();
    expect((await open.status()).details).toMatchObject({ reason: "STORE_DOWN", retryAfterMs: 1 });
    await t.stop();
  });
});

test("over memory: events arrive later, a paused reader gets no more, and the server is told when it goes", async () => {
  const { store, t } = await start({ watcherQueueEventsMax: 2 });
  const transport = inMemoryTransport(t.server);
  const responses: leasehold.v1.WatchResponse[] = [];
  const ends: StatusDetails[] = [];
  const handlers = {
    onFrame: (bytes: Uint8Array) => responses.push(decode(v1.WatchResponse, bytes)),
    onEnd: (status: StatusDetails) => ends.push(status),
  };
  const settled = () => new Promise((resolve) => setImmediate(resolve));
  const open = (request: leasehold.v1.WatchRequest.$Properties) =>
    transport.openWatch(0, encode(v1.WatchRequest, request), handlers);
  const stream = open({ prefix: "", fromNow: true });
  store.commit();
  expect(responses).toEqual([]);
  await settled();
  expect(responses.length).toBe(1);

  stream.pause();
  for (let i = 0; i < 3; i++) {
    store.queue("n");
    store.commit();
    await settled();
  }
  expect(responses.length).toBe(2);
  stream.resume();
  await settled();
  expect(responses[2]?.events.map(kindOf)).toEqual(["QUEUED", "QUEUED"]);

  stream.destroy();
  expect(store.hub.size).toBe(0);
  open({});
  await settled();
  expect(ends).toMatchObject([{ code: 3, reason: "INVALID" }]);
  open({ name: "n" });
  store.restart();
  await settled();
  expect(ends[1]).toMatchObject({ reason: "STORE_DOWN" });
  await t.stop();
});
