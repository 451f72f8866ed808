/** Which calls are let in, and how the others are refused: with real servers and channels of grpc-js. */
import { getEventListeners, once } from "node:events";
import * as grpc from "@grpc/grpc-js";
import { FenceError, slotOf } from "@leasehold/fence";
import {
  fenceClientInterceptor,
  fenceErrorOf,
  fenceServerInterceptor,
  type HighWaterStore,
  memoryStore,
} from "@leasehold/fence/grpc";
import { afterEach, describe, expect, it } from "vitest";
import { LamportClock } from "../../src/client/lamport.js";
import { decodeStatus, encodeStatus } from "../../src/client/wire/status.js";
import { decodeDetails, encodeDetails } from "../../src/fence/grpc/details.js";
import { type Before, GrpcClient, GrpcService, type Message, type Settings, under } from "./grpc-service.js";
import { exclusive, permits, shared } from "./locks.js";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(settings: Partial<Settings> = {}, before?: Before) {
  const service = await GrpcService.start({ store: memoryStore(), ...settings }, before);
  const client = new GrpcClient(service.target);
  cleanups.push(
    () => service.close(),
    () => client.close(),
  );
  return { service, client };
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadlineMs = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error(`not within 10 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const coded = (code: string) => expect.objectContaining({ code });
const newClock = () => new LamportClock(() => Promise.reject(new Error("not here")));

/** The call's own error. */
const serviceError = async (call: Promise<unknown>): Promise<grpc.ServiceError> => {
  const error: unknown = await call.catch((thrown: unknown) => thrown);
  return (error instanceof FenceError ? error.cause : error) as grpc.ServiceError;
};

describe("unary calls", () => {
  it("are admitted with current tokens, and refused with stale ones", async () => {
    const { service, client } = await start();
    const message = { name: "a/ä", value: "v" };
    expect(await client.unary("write", message, under(exclusive("a/ä", 34)))).toEqual({ value: "written" });
    const stale = client.unary("write", { name: "a/ä", value: "late" }, under(exclusive("a/ä", 33)));
    await expect(stale).rejects.toMatchObject({ code: "STALE_TOKEN", resource: "a/ä", token: 33, floor: 34 });
    expect(service.registers.get("a/ä")).toBe("v");
    expect(service.handled).toBe(1);

    // What a caller without this kit sees: the same as from the lock server.
    const error = await serviceError(stale);
    expect(error.code).toBe(grpc.status.FAILED_PRECONDITION);
    expect(error.metadata.get("leasehold-reason")).toEqual(["STALE_TOKEN"]);
    const [details] = error.metadata.get("grpc-status-details-bin");
    expect(decodeStatus(details as Buffer)).toMatchObject({
      code: grpc.status.FAILED_PRECONDITION,
      reason: "STALE_TOKEN",
      metadata: { resource: "a/ä", token: "33", floor: "34" },
    });
  });

  it("are fenced by slot, and by shared holds without raising", async () => {
    const { client } = await start();
    const slot = (token: number, of: number) => under(slotOf(permits("s", token, of), of));
    await client.unary("write", { name: "s", slot: 3 }, slot(21, 3));
    await client.unary("write", { name: "s", slot: 4 }, slot(20, 4));
    await expect(client.unary("write", { name: "s", slot: 3 }, slot(20, 3))).rejects.toMatchObject({
      code: "STALE_TOKEN",
      resource: "s#3",
      floor: 21,
    });
    await client.unary("write", { name: "r" }, under(exclusive("r", 30)));
    await client.unary("write", { name: "r" }, under(shared("r", 32)));
    await client.unary("write", { name: "r" }, under(shared("r", 31)));
    await expect(client.unary("write", { name: "r" }, under(shared("r", 29)))).rejects.toEqual(coded("STALE_TOKEN"));
    await client.unary("write", { name: "r" }, under(exclusive("r", 30)));
  });

  it("need a token, unless that is not required", async () => {
    const { service, client } = await start();
    const missing = client.unary("write", { name: "a" });
    await expect(missing).rejects.toEqual(coded("INVALID"));
    expect((await serviceError(missing)).code).toBe(grpc.status.INVALID_ARGUMENT);
    expect(service.handled).toBe(0);
    const lenient = await start({ required: false });
    await lenient.client.unary("write", { name: "a", value: "v" });
    expect(lenient.service.registers.get("a")).toBe("v");
    const free = await start({ resource: () => null });
    await free.client.unary("write", { name: "a", value: "v" }, under(exclusive("a", 1)));
  });

  it.each([
    "34, 35",
    "+34",
    "0x10",
    "034",
    "1e3",
    "-1",
    "9007199254740992",
    "99999999999999999999",
    "x",
    "9".repeat(5_000),
  ])("are refused with the token %j", async (token) => {
    const { service, client } = await start();
    const metadata = client.metadata({ "fencing-token": token });
    const refusal = client.unary("write", { name: "a" }, {}, metadata);
    await expect(refusal).rejects.toEqual(coded("INVALID"));
    expect((await serviceError(refusal)).code).toBe(grpc.status.INVALID_ARGUMENT);
    expect(service.handled).toBe(0);
  });

  it("are refused with two tokens, odd modes, and names that no lock has", async () => {
    const { service, client } = await start();
    const twice = client.metadata({ "fencing-token": "34" });
    twice.add("fencing-token", "34");
    await expect(client.unary("write", { name: "a" }, {}, twice)).rejects.toEqual(coded("INVALID"));
    const odd = client.metadata({ "fencing-token": "34", "fencing-mode": "Shared" });
    await expect(client.unary("write", { name: "a" }, {}, odd)).rejects.toEqual(coded("INVALID"));
    for (const name of ["", "a\nb", "x".repeat(600)]) {
      await expect(client.unary("write", { name }, under(exclusive("a", 1)))).rejects.toEqual(coded("INVALID"));
    }
    expect(service.handled).toBe(0);
  });

  it("raise nothing for strangers, and tell them nothing", async () => {
    const { client } = await start();
    await client.unary("write", { name: "a" }, under(exclusive("a", 34)));
    const stranger = client.metadata({ "x-secret": "guessed", "fencing-token": String(2 ** 53 - 1) });
    const refusal = await serviceError(client.unary("write", { name: "a" }, {}, stranger));
    expect(refusal.code).toBe(grpc.status.PERMISSION_DENIED);
    expect(refusal.details).toBe("not permitted");
    const [details] = refusal.metadata.get("grpc-status-details-bin");
    expect(decodeStatus(details as Buffer)?.metadata).toEqual({}); // not even the name of what is fenced
    await client.unary("write", { name: "a" }, under(exclusive("a", 35)));
  });

  it("raise only what is validated", async () => {
    const asked: string[] = [];
    const { client } = await start({
      validate: async (name, token) => {
        asked.push(`${name} ${token}`);
        return token === 34;
      },
    });
    await client.unary("write", { name: "s", slot: 1 }, under(slotOf(permits("s", 34, 1), 1)));
    const forged = client.metadata({ "fencing-token": String(2 ** 53 - 1) });
    const refusal = client.unary("write", { name: "s", slot: 1 }, {}, forged);
    await expect(refusal).rejects.toMatchObject({
      code: "LOST",
      resource: "s#1",
      token: 2 ** 53 - 1,
      floor: undefined,
    });
    expect((await serviceError(refusal)).code).toBe(grpc.status.FAILED_PRECONDITION);
    await client.unary("write", { name: "s", slot: 1 }, under(slotOf(permits("s", 34, 1), 1)));
    expect(asked).toEqual(["s 34", `s ${2 ** 53 - 1}`]);
  });

  it("are answered UNAVAILABLE when the store fails, RESOURCE_EXHAUSTED when it is full, and INTERNAL for bugs", async () => {
    const errors: unknown[] = [];
    const onError = (error: unknown) => errors.push(error);
    const cause = new Error("connect ECONNREFUSED db.internal");
    const broken: HighWaterStore = { ...memoryStore(), get: () => Promise.reject(cause) };
    const down = await start({ store: broken, onError });
    const unavailable = await serviceError(down.client.unary("write", { name: "a" }, under(exclusive("a", 1))));
    expect(unavailable.code).toBe(grpc.status.UNAVAILABLE);
    expect(unavailable.details).not.toMatch(/ECONN|internal/);
    expect(fenceErrorOf(unavailable)).toEqual(coded("UNREACHABLE"));
    const [details] = unavailable.metadata.get("grpc-status-details-bin");
    expect(decodeStatus(details as Buffer)).toMatchObject({ reason: "UNREACHABLE", retryAfterMs: 1_000 });

    const full = await start({ store: memoryStore({ resourcesMax: 1 }), onError });
    await full.client.unary("write", { name: "a" }, under(exclusive("a", 1)));
    const exhausted = await serviceError(full.client.unary("write", { name: "b" }, under(exclusive("b", 1))));
    expect(exhausted.code).toBe(grpc.status.RESOURCE_EXHAUSTED);

    const bug = new Error("a bug at db.internal");
    const buggy = await start({ resource: () => Promise.reject(bug), onError });
    const internal = await serviceError(buggy.client.unary("write", { name: "a" }, under(exclusive("a", 1))));
    expect(internal.code).toBe(grpc.status.INTERNAL);
    expect(internal.details).toBe("internal error");
    expect(errors).toEqual([expect.objectContaining({ code: "UNREACHABLE", cause }), coded("LIMIT"), bug]);
    for (const { service } of [down, buggy]) expect(service.handled).toBe(0);
  });

  it("show the handler what was admitted", async () => {
    const seen: unknown[] = [];
    const { service, client } = await start({}, async (_message, call) => {
      const admitted = service.fence.of(call);
      await admitted?.check();
      seen.push(admitted?.claim);
      return undefined;
    });
    await client.unary("write", { name: "s", slot: 2 }, under(slotOf(permits("s", 34, 2), 2)));
    expect(seen).toEqual([{ name: "s", slot: 2, token: 34, mode: "exclusive" }]);
  });

  it("carry Lamport timestamps both ways", async () => {
    const serverClock = newClock();
    let during = 0;
    const { client } = await start({ clock: serverClock }, async () => {
      during = serverClock.tick();
      return undefined;
    });
    const clock = newClock();
    clock.observe(500);
    const interceptors = [fenceClientInterceptor({ grpc, lock: exclusive("a", 34), clock })];
    await client.unary("write", { name: "a" }, { interceptors });
    expect(during).toBeGreaterThan(500);
    expect(clock.now()).toBeGreaterThan(during);
    const bad = client.metadata({ "fencing-token": "34", "lamport-timestamp": "soon" });
    await expect(client.unary("write", { name: "a" }, {}, bad)).rejects.toEqual(coded("INVALID"));
    const ahead = client.metadata({ "fencing-token": "33", "lamport-timestamp": "9007199254740990" });
    await expect(client.unary("write", { name: "a" }, {}, ahead)).rejects.toEqual(coded("STALE_TOKEN"));
    expect(serverClock.now()).toBeLessThan(1_000); // what was refused is not followed
  });
});

describe("streams", () => {
  it("of requests are admitted before the first message", async () => {
    const { service, client } = await start();
    const { call, answer } = client.fill(under(exclusive("stream", 34)));
    await until(() => service.handled === 1, "the handler was started without a message");
    for (const value of ["one", "two", "three"]) call.write({ value });
    call.end();
    expect(await answer).toEqual({ value: "3" });
    expect(service.registers.get("filled")).toBe("one,two,three");
    const stale = client.fill(under(exclusive("stream", 33)));
    stale.call.on("error", () => {});
    await expect(stale.answer).rejects.toMatchObject({ code: "STALE_TOKEN", resource: "stream" });
    expect(service.handled).toBe(1);
  });

  it("of requests may be admitted by their first message, which is not lost, nor out of order", async () => {
    const { service, client } = await start({ streamMessage: true });
    const { call, answer } = client.fill(under(exclusive("named", 34)));
    for (let i = 0; i < 100; i++) call.write({ name: "named", value: `${i}` });
    call.end();
    expect(await answer).toEqual({ value: "100" });
    expect(service.registers.get("filled")).toBe(Array.from({ length: 100 }, (_, i) => i).join());
    const stale = client.fill(under(exclusive("named", 33)));
    stale.call.on("error", () => {});
    stale.call.write({ name: "named" });
    await expect(stale.answer).rejects.toMatchObject({ code: "STALE_TOKEN", resource: "named" });
    const empty = client.fill(under(exclusive("stream", 35)));
    empty.call.end();
    expect(await empty.answer).toEqual({ value: "0" }); // no message at all
    expect(service.handled).toBe(2);
  });

  it("in both directions may be begun by the server", async () => {
    const { client } = await start();
    const call = client.talk(under(exclusive("talk", 34)));
    const said: Message[] = [];
    call.on("data", (message: Message) => {
      said.push(message);
      if (said.length === 1) call.write({ value: "you" });
      else call.end();
    });
    await once(call, "end");
    expect(said).toEqual([{ value: "hello" }, { value: "echo you" }]);
    const stale = client.talk(under(exclusive("talk", 33)));
    stale.on("data", () => {});
    const [error] = (await once(stale, "error")) as [unknown];
    expect(fenceErrorOf(error)).toMatchObject({ code: "STALE_TOKEN", resource: "talk", floor: 34 });
  });

  it("of responses are refused with a stale token", async () => {
    const { service, client } = await start();
    service.registers.set("a", "v");
    const rows: Message[] = [];
    const call = client.list({ name: "all" }, under(exclusive("all", 34)));
    for await (const row of call) rows.push(row as Message);
    expect(rows).toEqual([{ name: "a", value: "v" }]);
    const stale = client.list({ name: "all" }, under(exclusive("all", 33)));
    stale.on("data", () => {});
    const [error] = (await once(stale, "error")) as [unknown];
    expect(fenceErrorOf(error)).toEqual(coded("STALE_TOKEN"));
    expect(service.handled).toBe(1);
  });
});

describe("the lock of a call", () => {
  it("is lost before: nothing is sent", async () => {
    const { service, client } = await start();
    const lock = exclusive("a", 34);
    const options = under(lock);
    await client.unary("write", { name: "a" }, options);
    lock.lose();
    const refusal = client.unary("write", { name: "a" }, { ...options, deadline: Date.now() + 5_000 });
    await expect(refusal).rejects.toMatchObject({ code: "LOST", resource: "a" });
    expect((await serviceError(refusal)).code).toBe(grpc.status.FAILED_PRECONDITION);
    const filling = client.fill(options);
    filling.call.on("error", () => {});
    filling.call.write({ value: "x" });
    filling.call.end();
    await expect(filling.answer).rejects.toEqual(coded("LOST"));
    const talking = client.talk(options);
    talking.on("data", () => {});
    const [error] = (await once(talking, "error")) as [unknown];
    expect(fenceErrorOf(error)).toEqual(coded("LOST"));
    expect(service.calls).toBe(1);
    expect(() => under(lock)).toThrow(coded("LOST"));
  });

  it("is lost during the call: it is cancelled", async () => {
    let goOn = () => {};
    const gate = new Promise<void>((resolve) => (goOn = resolve));
    const { service, client } = await start({}, async () => {
      await gate;
      return undefined;
    });
    const lock = exclusive("a", 34);
    const call = client.unary("write", { name: "a" }, under(lock));
    await until(() => service.handled === 1, "the handler works");
    lock.lose();
    await expect(call).rejects.toEqual(coded("LOST"));
    expect((await serviceError(call)).code).toBe(grpc.status.ABORTED);
    const late = client.unary("write", { name: "b" }, under({ name: "b", token: 35, remainingMs: 50 }));
    await expect(late).rejects.toEqual(coded("LOST"));
    goOn();
  });

  it("may protect many calls, and leaves nothing behind", async () => {
    const { client } = await start();
    const lock = exclusive("a", 34);
    const options = under(lock);
    const metadata = client.metadata();
    await Promise.all(Array.from({ length: 30 }, () => client.unary("write", { name: "a" }, options, metadata)));
    expect(getEventListeners(lock.signal, "abort")).toHaveLength(0);
    expect(metadata.get("fencing-token")).toEqual([]); // it is the caller's, and may serve for other locks
  });
});

/** A handler that stands still for those values that begin with "slow". */
class Gate {
  readonly entered: (string | undefined)[] = [];
  readonly left: (string | undefined)[] = [];
  readonly #waiting = new Map<string, () => void>();

  readonly before: Before = async ({ value }) => {
    this.entered.push(value);
    if (value?.startsWith("slow")) await new Promise<void>((resolve) => this.#waiting.set(value, resolve));
    this.left.push(value);
    return undefined;
  };

  letGo(value: string): void {
    this.#waiting.get(value)?.();
  }
}

async function floorIs(store: HighWaterStore, floor: number): Promise<void> {
  const deadlineMs = performance.now() + 10_000;
  while ((await store.get("a")) !== floor) {
    if (performance.now() > deadlineMs) throw new Error(`the floor is not ${floor} within 10 s`);
    await new Promise(setImmediate);
  }
}

describe("turns", () => {
  it("without them the slow handler of a stale holder writes last", async () => {
    const gate = new Gate();
    const { service, client } = await start({}, gate.before);
    const old = client.unary("write", { name: "a", value: "slow 33" }, under(exclusive("a", 33)));
    await until(() => gate.entered.length === 1, "33 is inside");
    await client.unary("write", { name: "a", value: "34" }, under(exclusive("a", 34)));
    gate.letGo("slow 33");
    await old;
    expect(service.registers.get("a")).toBe("slow 33"); // the race: an update is lost
  });

  it("make the newer holder wait for the older one's handler, even if that one's caller has gone", async () => {
    const gate = new Gate();
    const store = memoryStore();
    const { service, client } = await start({ serialize: true, store }, gate.before);
    const lock = exclusive("a", 33);
    const old = client.unary("write", { name: "a", value: "slow 33" }, under(lock));
    await until(() => gate.entered.length === 1, "33 is inside");
    lock.lose(); // and with it the call is cancelled
    await expect(old).rejects.toEqual(coded("LOST"));
    let done = false;
    const newer = client.unary("write", { name: "a", value: "34" }, under(exclusive("a", 34))).then(() => {
      done = true;
    });
    await floorIs(store, 34);
    const late = client.unary("write", { name: "a", value: "late" }, under(exclusive("a", 33)));
    await expect(late).rejects.toEqual(coded("STALE_TOKEN"));
    expect(done).toBe(false);
    expect(gate.entered).toEqual(["slow 33"]);
    gate.letGo("slow 33");
    await newer;
    expect(gate.left).toEqual(["slow 33", "34"]);
    expect(service.registers.get("a")).toBe("34");
  });

  it("are given back by handlers that fail, and by callers that go while they wait", async () => {
    const gate = new Gate();
    const store = memoryStore();
    const { client } = await start({ serialize: true, waitingMax: 1, store }, async (message, call) => {
      if (message.value === "fails") throw new Error("a bug");
      return gate.before(message, call);
    });
    const failing = client.unary("write", { name: "a", value: "fails" }, under(exclusive("a", 32)));
    expect((await serviceError(failing)).code).toBe(grpc.status.ABORTED);
    const old = client.unary("write", { name: "a", value: "slow 33" }, under(exclusive("a", 33)));
    await until(() => gate.entered.length === 1, "33 is inside");
    const lock = exclusive("a", 34);
    const waiting = client.unary("write", { name: "a", value: "34" }, under(lock));
    await floorIs(store, 34);
    lock.lose();
    await expect(waiting).rejects.toEqual(coded("LOST"));
    const next = await waitingTurn(client);
    gate.letGo("slow 33");
    await old;
    expect(await next.answer).toEqual({ value: "written" });
    expect(gate.left).toEqual(["slow 33", "35"]);
  });

  /** A call that waits for its turn: there is room for one, once the server has heard that the other one has gone. */
  async function waitingTurn(client: GrpcClient): Promise<{ answer: Promise<Message | undefined> }> {
    const deadlineMs = performance.now() + 10_000;
    while (performance.now() < deadlineMs) {
      let ended = false;
      const answer = client.unary("write", { name: "a", value: "35" }, under(exclusive("a", 35)));
      answer.then(
        () => (ended = true),
        () => (ended = true),
      );
      for (let i = 0; i < 3; i++) await client.unary("touch", { name: "b" }, under(exclusive("b", 1)));
      if (!ended) return { answer };
      await expect(answer).rejects.toEqual(coded("LIMIT"));
    }
    throw new Error("no room within 10 s");
  }

  it("are not for response streams, whose end is not known", async () => {
    const { service, client } = await start({ serialize: true });
    const call = client.list({ name: "all" }, under(exclusive("all", 34)));
    call.on("data", () => {});
    const [error] = (await once(call, "error")) as [grpc.ServiceError];
    expect(error.code).toBe(grpc.status.UNIMPLEMENTED);
    expect(service.handled).toBe(0);
  });
});

describe("details", () => {
  const details = { code: 9, message: "stale ä", reason: "STALE_TOKEN", metadata: { resource: "a/ä", floor: "34" } };

  it("are those that the client of the lock server reads and writes", () => {
    expect(decodeStatus(encodeDetails(details))).toEqual({ ...details, retryAfterMs: 0 });
    expect(decodeStatus(encodeDetails({ ...details, retryAfterS: 300 }))).toMatchObject({ retryAfterMs: 300_000 });
    const { reason, metadata } = details;
    expect(decodeDetails(encodeStatus(details))).toEqual({ reason, metadata });
    expect(decodeDetails(encodeStatus({ ...details, retryAfterMs: 1_500 }))).toEqual({ reason, metadata });
  });

  it("of anybody else are passed over, cut off or not", () => {
    const bytes = encodeDetails(details);
    for (let length = 0; length < bytes.length; length++) decodeDetails(bytes.subarray(0, length));
    for (let at = 0; at < bytes.length; at++) {
      for (const value of [0, 1, 0x7f, 0x80, 0xff]) {
        const damaged = Buffer.from(bytes);
        damaged[at] = value;
        decodeDetails(damaged);
      }
    }
    expect(decodeDetails(Buffer.alloc(0))).toBeUndefined();
    expect(decodeDetails(Buffer.alloc(100_000, 0xff))).toBeUndefined();
    expect(decodeDetails(Buffer.alloc(10_000, 0x08))).toBeUndefined();
    const text = encodeDetails(details).toString("latin1").replace("leasehold", "somewhere");
    expect(decodeDetails(Buffer.from(text, "latin1"))).toBeUndefined();
  });

  it("that are no fence's are no fence's error", () => {
    const metadata = new grpc.Metadata();
    expect(fenceErrorOf(undefined)).toBeUndefined();
    expect(fenceErrorOf(new Error("other"))).toBeUndefined();
    expect(fenceErrorOf({ metadata })).toBeUndefined();
    metadata.set("leasehold-reason", "NO_SUCH_LOCK");
    expect(fenceErrorOf({ metadata })).toBeUndefined();
    metadata.set("leasehold-reason", "DENIED");
    expect(fenceErrorOf({ metadata })).toEqual(coded("DENIED"));
    const odd = { code: 9, message: "m", reason: "STALE_TOKEN", metadata: { resource: "a", token: "x", floor: "1" } };
    metadata.set("grpc-status-details-bin", encodeDetails(odd));
    expect(fenceErrorOf({ metadata })).toBeUndefined();
  });
});

describe("setting up", () => {
  const resource = () => "a";
  const store = memoryStore();
  const authorize = () => true;
  it.each([
    ["no grpc", { store, resource, authorize }],
    ["a grpc without interceptors", { grpc: { Metadata: grpc.Metadata }, store, resource, authorize }],
    ["neither authorize nor validate", { grpc, store, resource }],
    ["no store", { grpc, resource, authorize }],
    ["no resource", { grpc, store, authorize }],
    ["an unknown option", { grpc, store, resource, authorize, require: true }],
    ["a required that is neither", { grpc, store, resource, authorize, required: 0 }],
    ["a streamMessage that is neither", { grpc, store, resource, authorize, streamMessage: "yes" }],
    ["a clock that is none", { grpc, store, resource, authorize, clock: {} }],
    ["an onError that is no function", { grpc, store, resource, authorize, onError: console }],
  ])("a server refuses %s", (_title, options) => {
    const wrong = options as unknown as Parameters<typeof fenceServerInterceptor>[0];
    expect(() => fenceServerInterceptor(wrong)).toThrow(coded("INVALID"));
  });

  it("a client refuses what cannot work", () => {
    const lock = exclusive("a", 34);
    const wrong: unknown[] = [
      { lock },
      { grpc, lock, retry: 1 },
      { grpc, lock, clock: {} },
      { grpc },
      { grpc: {}, lock },
    ];
    for (const options of [...wrong, { grpc, lock: permits("s", 34, 1, 2) }]) {
      expect(() => fenceClientInterceptor(options as Parameters<typeof fenceClientInterceptor>[0])).toThrow(
        coded("INVALID"),
      );
    }
  });
});
