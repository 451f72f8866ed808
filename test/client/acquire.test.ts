/** Taking locks: waiting, giving up, being refused, the bounds. */
import { describe, expect, it } from "vitest";
import { setup, take, watch } from "./support.js";

const holder = { token: 7, timestamp: 70, owner: "billing/4711", heldMs: 12_000, leaseRemainingMs: 9_000 };

describe("acquire", () => {
  it("asks for lease and lock in one frame, and for everything of one turn in one frame", async () => {
    const s = setup();
    const taken = Promise.all(["a", "b", "c"].map((name) => s.client.acquire(name)));
    await s.time.settle();
    expect((await taken).map((lock) => lock.token)).toEqual([1, 2, 3]);
    expect(s.server.connection.frames).toHaveLength(2);
    expect(s.server.connection.commands).toMatchObject([
      { seq: 1, createLease: { ttlMs: 15_000, owner: "host/1" } },
      { seq: 2, acquire: { name: "a", sessionLease: 1, waitMs: 30_000 } },
      { seq: 3, acquire: { name: "b", sessionLease: 1 } },
      { seq: 4, acquire: { name: "c", sessionLease: 1 } },
    ]);
  });

  it("sends what it was told", async () => {
    const s = setup();
    const metadata = Buffer.from([1, 2, 3]);
    const lock = s.client.acquire("ünï/ñ", { wait: "1.5s", owner: "me", metadata, ttl: "2s" });
    metadata.fill(0);
    await s.time.settle();
    await lock;
    expect(s.server.connection.commands).toMatchObject([
      { createLease: { ttlMs: 2_000, owner: "me" } },
      { acquire: { name: "ünï/ñ", waitMs: 1_500, owner: "me", metadata: Buffer.from([1, 2, 3]) } },
    ]);
  });

  it("tells the server what of the wait is left when it gets to send", async () => {
    const s = setup();
    s.server.unreachable = "connect ECONNREFUSED";
    const taken = watch(s.client.acquire("a", { wait: "10s" }));
    await s.time.advance(4_000);
    s.server.unreachable = null;
    await s.time.advance(2_000);
    expect(taken.settled).toBe(true);
    const { waitMs } = s.server.connection.commands[1]?.acquire ?? {};
    expect(waitMs).toBeLessThanOrEqual(6_000);
    expect(waitMs).toBeGreaterThanOrEqual(4_000);
  });

  it("rejects BUSY and names the holder when the wait is over", async () => {
    const s = setup();
    s.server.answers.acquire = () => ({ acquire: { busy: { holders: [holder], waiters: 3, timedOut: true } } });
    const taken = watch(s.client.acquire("orders/42", { wait: "5s" }));
    await s.time.settle();
    expect(taken.error).toMatchObject({
      code: "BUSY",
      retryable: true,
      message: 'waited 5 s: the lock "orders/42" is held by billing/4711 (for 12 s); 3 waiting',
      busy: { holders: [{ owner: "billing/4711", token: 7, leaseRemainingMs: 9_000 }], waiters: 3 },
    });
  });

  it("stands in for a server that does not end the wait, a little later", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const taken = watch(s.client.acquire("a", { wait: "5s" }));
    await s.time.advance(6_900);
    expect(taken.settled).toBe(false);
    await s.time.advance(200);
    expect(taken.error).toMatchObject({ code: "UNREACHABLE" });
    expect(s.server.connection.commands.at(-1)).toMatchObject({ cancelAcquire: { sessionAcquire: 2 } });
  });

  it("calls onQueued with those who are ahead, if it has to wait", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    s.server.answers.describeLock = () => ({ describeLock: { name: "a", holders: [holder], waitersTotal: 2 } });
    const queues: unknown[] = [];
    const taken = watch(s.client.acquire("a", { onQueued: (queue) => queues.push(queue) }));
    await s.time.settle();
    expect(queues).toMatchObject([{ holders: [{ owner: "billing/4711" }], waiters: 2, reserved: false }]);
    s.server.connection.answer(2, s.server.grant());
    await s.time.settle();
    expect(taken.value?.token).toBe(1);
    delete s.server.answers.acquire;
    await take(s, "b", { onQueued: (queue) => queues.push(queue) });
    expect(queues).toHaveLength(1);
  });

  it("repeats what the server asks to repeat later, under a new number, while the wait lasts", async () => {
    const s = setup();
    s.server.answers.acquire = () => ({ failure: { reason: "LIMIT", message: "full", retryAfterMs: 1_000 } });
    const taken = watch(s.client.acquire("a", { wait: "10s" }));
    await s.time.advance(2_500);
    expect(taken.settled).toBe(false);
    delete s.server.answers.acquire;
    await s.time.advance(1_000);
    expect(taken.value?.token).toBe(1);
    expect(s.server.connection.commands.map((command) => command.seq)).toEqual([1, 2, 3, 4, 5]);
    s.server.answers.acquire = () => ({ failure: { reason: "LIMIT", message: "full", retryAfterMs: 1_000 } });
    const tried = watch(s.client.tryAcquire("b"));
    await s.time.settle();
    expect(tried.error).toMatchObject({ code: "LIMIT", retryAfterMs: 1_000, retryable: true });
  });

  it("blames a lease that could not be had for a lock that could not", async () => {
    const s = setup();
    s.server.answers.createLease = () => ({ failure: { reason: "LIMIT", message: "too many leases" } });
    s.server.answers.acquire = () => ({ failure: { reason: "UNKNOWN_LEASE", message: "no such lease" } });
    const taken = watch(s.client.acquire("a"));
    await s.time.settle();
    expect(taken.error).toMatchObject({ code: "LIMIT", message: "too many leases" });
  });

  it("waits on with a new lease when its lease dies in the queue", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const taken = watch(s.client.acquire("a"));
    await s.time.settle();
    s.server.connection.push({ leaseEnds: [{ sessionLease: 1, reason: 2 }] });
    delete s.server.answers.acquire;
    await s.time.settle();
    expect(taken.value?.state.is).toBe("held");
    expect(s.server.connection.commands.slice(2)).toMatchObject([
      { seq: 3, createLease: {} },
      { seq: 4, acquire: { name: "a", sessionLease: 3 } },
    ]);
  });

  it("gives up when that happens again and again", async () => {
    const s = setup();
    s.server.answers.acquire = () => ({ failure: { reason: "UNKNOWN_LEASE", message: "no such lease" } });
    const taken = watch(s.client.acquire("a"));
    await s.time.settle();
    expect(taken.error).toMatchObject({ code: "LOST", lost: "unknown_to_server" });
    expect(s.server.connection.commands.filter((command) => command.acquire)).toHaveLength(3);
  });

  it("believes a grant that arrives before the answer for its lease, when that has come", async () => {
    const s = setup();
    s.server.answers.createLease = () => null;
    const taken = watch(s.client.acquire("a"));
    await s.time.settle();
    expect(taken.settled).toBe(false);
    s.server.connection.answer(1, s.server.lease({ seq: 1 }));
    await s.time.settle();
    expect(taken.value?.state.is).toBe("held");
  });

  it("does not believe such a grant if the stream broke in between", async () => {
    const s = setup();
    s.server.answers.createLease = () => null;
    const taken = watch(s.client.acquire("a"));
    await s.time.settle();
    s.server.answers = {};
    s.server.connection.break();
    await s.time.advance(100);
    // The server took the grant back, since it was not claimed: the lock that is held was asked for anew.
    expect(taken.value?.token).toBe(2);
    expect(s.server.connection.hello?.claims).toEqual([]);
  });

  it("revokes the lease of its own when the lock is busy", async () => {
    const s = setup();
    s.server.answers.acquire = () => ({ acquire: { busy: { holders: [holder] } } });
    const tried = watch(s.client.tryAcquire("a", { ttl: "5s" }));
    await s.time.settle();
    expect(tried.value).toMatchObject({ acquired: false, busy: { holders: [{ owner: "billing/4711" }] } });
    expect(s.server.leases.size).toBe(0);
  });
});

describe("an abort", () => {
  it("withdraws a waiting acquire and rejects with the signal's reason", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const controller = new AbortController();
    const taken = watch(s.client.acquire("a", { signal: controller.signal }));
    await s.time.settle();
    controller.abort("enough");
    await s.time.settle();
    expect(taken).toMatchObject({ settled: true, error: "enough" });
    expect(s.server.connection.commands.at(-1)).toMatchObject({ seq: 3, cancelAcquire: { sessionAcquire: 2 } });
    // A grant that crossed the withdrawal is released by it; here nothing comes of it.
    s.server.connection.answer(2, s.server.grant());
    await s.time.settle();
    expect(s.client.session.holdings.locks.size).toBe(0);
  });

  it("is repeated when the server has no room for it", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    s.server.answers.cancelAcquire = () => ({ failure: { reason: "LIMIT", message: "full", retryAfterMs: 500 } });
    const controller = new AbortController();
    void watch(s.client.acquire("a", { signal: controller.signal }));
    void watch(s.client.acquire("b"));
    await s.time.settle();
    controller.abort();
    await s.time.advance(2_100);
    delete s.server.answers.cancelAcquire;
    await s.time.advance(5_000);
    const cancels = s.server.connection.commands.filter((command) => command.cancelAcquire);
    expect(cancels).toHaveLength(6);
    for (const cancel of cancels) expect(cancel.cancelAcquire).toMatchObject({ sessionAcquire: 2 });
  });

  it("of an acquire that was not sent sends nothing", async () => {
    const s = setup();
    s.server.onHello = () => {};
    const controller = new AbortController();
    const taken = watch(s.client.acquire("a", { signal: controller.signal }));
    await s.time.settle();
    controller.abort();
    await s.time.settle();
    expect(taken.error).toMatchObject({ name: "AbortError" });
    s.server.welcome(s.server.connection);
    await s.time.settle();
    expect(s.server.connection.commands.some((command) => command.acquire)).toBe(false);
  });

  it("while the stream is down leaves the rest to the resumption", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const controller = new AbortController();
    const taken = watch(s.client.acquire("a", { signal: controller.signal }));
    const other = watch(s.client.acquire("b"));
    await s.time.settle();
    s.server.connection.break();
    controller.abort();
    await s.time.advance(100);
    expect(taken.settled).toBe(true);
    expect(other.settled).toBe(false);
    expect(s.server.connection.hello).toMatchObject({ outstanding: [3], claims: [] });
    expect(s.server.connection.lastFrame.ackedBelow).toBe(3);
  });

  it("between Hello and Welcome is told to the server, which was promised the command again", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const controller = new AbortController();
    void watch(s.client.acquire("a", { signal: controller.signal }));
    await s.time.settle();
    s.server.onHello = () => {};
    s.server.connection.break();
    await s.time.advance(100);
    expect(s.server.connection.hello).toMatchObject({ outstanding: [2] });
    controller.abort();
    s.server.welcome(s.server.connection);
    await s.time.settle();
    expect(s.server.connection.commands).toMatchObject([
      { seq: 2, acquire: {} },
      { seq: 3, cancelAcquire: { sessionAcquire: 2 } },
    ]);
  });

  it("that came before rejects at once, and afterwards has no effect on the lock", async () => {
    const s = setup();
    const early = watch(s.client.acquire("a", { signal: AbortSignal.abort("no") }));
    await s.time.settle();
    expect(early.error).toBe("no");
    expect(s.server.connections).toHaveLength(0);
    const controller = new AbortController();
    const lock = await take(s, "b", { signal: controller.signal });
    controller.abort();
    expect(lock.token).toBe(1);
  });
});

describe("the bounds", () => {
  it("no more commands are in flight than the server permits, waiting ones leave room", async () => {
    const s = setup();
    s.server.commandsInFlightMax = 16;
    s.server.answers.acquire = () => null;
    for (let i = 0; i < 100; i++) void watch(s.client.acquire(`lock/${i}`));
    await s.time.settle();
    expect(s.server.connection.commands.filter((command) => command.acquire)).toHaveLength(14);
    const valid = watch(s.client.validate("a", 1));
    await s.time.settle();
    expect(valid.value).toBe(true);
    const { seq } = s.server.connection.commands[1] ?? { seq: 0 };
    s.server.connection.answer(seq, s.server.grant());
    await s.time.settle();
    expect(s.server.connection.commands.filter((command) => command.acquire)).toHaveLength(15);
  });

  it("a queue that is full refuses with LIMIT", async () => {
    const s = setup();
    s.server.onHello = () => {};
    let limited = 0;
    for (let i = 0; i < 16_400; i++)
      void s.client.acquire("a").catch((error) => (limited += error.code === "LIMIT" ? 1 : 0));
    await s.time.settle();
    expect(limited).toBe(16_400 - 16_384);
  });

  it("no frame is larger than the server permits", async () => {
    const s = setup();
    s.server.frameBytesMax = 4_096;
    const metadata = Buffer.alloc(1_000);
    const taken = Promise.all(Array.from({ length: 20 }, (_, i) => s.client.acquire(`lock/${i}`, { metadata })));
    await s.time.settle();
    expect(await taken).toHaveLength(20);
    expect(Math.max(...s.server.connection.frameBytes)).toBeLessThanOrEqual(4_096);
    expect(s.server.connection.frames.length).toBeLessThanOrEqual(8);
  });

  it("nothing is sent while the stream takes nothing", async () => {
    const s = setup();
    await take(s);
    s.server.connection.takesMore = false;
    await take(s, "b");
    const frames = s.server.connection.frames.length;
    const taken = watch(s.client.acquire("c"));
    await s.time.settle();
    expect(s.server.connection.frames.length).toBe(frames);
    s.server.connection.drain();
    await s.time.settle();
    expect(taken.settled).toBe(true);
  });

  it("a stream that takes nothing for too long is given up", async () => {
    const s = setup();
    await take(s);
    s.server.connection.takesMore = false;
    await take(s, "b");
    await s.time.advance(10_100);
    expect(s.server.connections.length).toBe(2);
  });
});
