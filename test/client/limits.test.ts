/** Ends that nobody at this side wants: a maximum hold, an administrator, a worker that makes no progress. */
import { describe, expect, it } from "vitest";
import { LeaseholdError } from "../../src/client/errors.js";
import { type Setup, setup, take, thrown, watch } from "./support.js";

const FORCED = 3;
const MAX_HOLD = 4;

function answerWithMaxHold(s: Setup, maxHoldRemainingMs: number) {
  s.server.answers.acquire = () => {
    s.server.token += 1;
    return { acquire: { grant: { token: s.server.token, timestamp: 1, maxHoldRemainingMs } } };
  };
}

const releases = (s: Setup) => s.server.connections.flatMap((c) => c.commands).filter((command) => command.release);

describe("a maximum hold", () => {
  it("ends the belief a margin before its end, however well the lease is renewed", async () => {
    const s = setup();
    answerWithMaxHold(s, 60_000);
    const lock = await take(s, "a", { maxHold: "1m" });
    const { signal } = lock;
    expect(lock.state).toEqual({ is: "held", remainingMs: 14_850 });
    await s.time.advance(50_000);
    expect(lock.state).toEqual({ is: "held", remainingMs: 9_400 });
    expect(thrown(() => lock.assertHeld({ forMs: 9_500 })).message).toMatch(/for 9400 ms more/);
    await s.time.advance(9_399);
    expect(lock.state).toEqual({ is: "held", remainingMs: 1 });
    s.time.stall(1);
    expect(lock.state).toEqual({ is: "lost", reason: "max_hold" });
    expect(signal.reason).toMatchObject({ code: "LOST", lost: "max_hold" });
  });

  it("counts from the send of the request, not from the arrival of the grant", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const taken = watch(s.client.acquire("a", { maxHold: "10s" }));
    await s.time.settle();
    await s.time.advance(20_000);
    // The server counts from the same moment: the lock was free after 19 s.
    s.server.connection.answer(2, { acquire: { grant: { token: 1, timestamp: 1, maxHoldRemainingMs: 29_000 } } });
    await s.time.settle();
    expect(taken.value?.limit?.remainingMs(s.time.nowMs())).toBe(9_000 - 290);
  });

  it("counts from the last send on this stream", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const taken = watch(s.client.acquire("a", { maxHold: "10s" }));
    await s.time.advance(5_000);
    s.server.connection.break();
    answerWithMaxHold(s, 10_000);
    await s.time.advance(50);
    expect(taken.value?.limit?.remainingMs(s.time.nowMs())).toBe(10_000 - 100);
  });

  it("that the server does not tell of is over", async () => {
    const s = setup();
    expect((await take(s, "a", { maxHold: "1m" })).state).toEqual({ is: "lost", reason: "max_hold" });
  });

  it("is announced once, when a fifth of it is left", async () => {
    const s = setup();
    answerWithMaxHold(s, 60_000);
    const lock = await take(s, "a", { maxHold: "1m" });
    const events: string[] = [];
    lock.on("yield", (state) => events.push(`yield ${"remainingMs" in state && state.remainingMs}`));
    lock.on("jeopardy", () => events.push("jeopardy"));
    lock.on("lost", (reason) => events.push(reason));
    await s.time.advance(47_399);
    expect(events).toEqual([]);
    await s.time.advance(1);
    expect(events).toEqual(["yield 12000"]);
    await s.time.advance(30_000);
    expect(events).toEqual(["yield 12000", "max_hold"]);
  });

  it("is announced 30 s before at most", async () => {
    const s = setup();
    answerWithMaxHold(s, 3_600_000);
    const lock = await take(s, "a", { maxHold: "1h" });
    let yields = 0;
    lock.on("yield", () => yields++);
    await s.time.advance(3_600_000 - 36_000 - 30_001);
    expect(yields).toBe(0);
    await s.time.advance(1);
    expect(yields).toBe(1);
  });

  it("is not announced to a lock that is given back, or lost before", async () => {
    const s = setup();
    answerWithMaxHold(s, 60_000);
    const [a, b] = [await take(s, "a", { maxHold: "1m" }), await take(s, "b", { maxHold: "1m" })];
    let yields = 0;
    a.on("yield", () => yields++);
    b.on("yield", () => yields++);
    void a.release();
    s.server.connection.push({ holdEnds: [{ token: 2, reason: FORCED }] });
    await s.time.advance(100_000);
    expect(yields).toBe(0);
  });

  it("that is over here is given back by release, or by the server's word", async () => {
    const s = setup();
    answerWithMaxHold(s, 10_000);
    const a = await take(s, "a", { maxHold: "10s", ttl: "20s" });
    const b = await take(s, "b", { maxHold: "10s", ttl: "20s" });
    await s.time.advance(9_950);
    expect([a.state.is, b.state.is]).toEqual(["lost", "lost"]);
    expect(releases(s)).toEqual([]);
    const released = watch(a.release());
    await s.time.settle();
    expect(released.value).toBe(false);
    expect(releases(s)).toMatchObject([{ release: { token: 1 } }]);
    expect(s.server.leases.size).toBe(1);
    s.server.connection.push({ holdEnds: [{ token: 2, reason: MAX_HOLD }] });
    await s.time.settle();
    expect(s.server.leases.size).toBe(0);
    expect(await b.release()).toBe(false);
    expect(releases(s)).toHaveLength(1);
    expect(s.client.session.holdings.locks.size).toBe(0);
  });

  it("that the server ends first is over", async () => {
    const s = setup();
    answerWithMaxHold(s, 60_000);
    const lock = await take(s, "a", { maxHold: "1m" });
    s.server.connection.push({ holdEnds: [{ token: 1, reason: MAX_HOLD }] });
    expect(lock.state).toEqual({ is: "lost", reason: "max_hold" });
    expect(thrown(() => lock.token).message).toBe('the lock "a" is lost: its maximum hold is over');
  });
});

describe("a lock that an administrator takes away", () => {
  it("is lost at once; the holder confirms by release, which resolves false", async () => {
    const s = setup();
    const lock = await take(s);
    const reasons: string[] = [];
    lock.on("lost", (reason) => reasons.push(reason));
    const { signal } = lock;
    s.server.connection.push({ holdEnds: [{ token: 1, reason: FORCED, confirm: true, message: "moving it" }] });
    expect(lock.state).toEqual({ is: "lost", reason: "forced" });
    expect(signal.reason).toMatchObject({ code: "LOST", lost: "forced" });
    await s.time.settle();
    expect(reasons).toEqual(["forced"]);
    expect(thrown(() => lock.token).message).toBe('the lock "a" is lost: an administrator took it away: moving it');
    expect(releases(s)).toEqual([]);
    const released = lock.release();
    await s.time.settle();
    expect(await released).toBe(false);
    expect(releases(s)).toMatchObject([{ release: { name: "a", token: 1 } }]);
    await s.time.advance(60_000);
    expect(releases(s)).toHaveLength(1);
  });

  it("keeps its own lease, its session and its claim until the holder has ended", async () => {
    const s = setup();
    const lock = await take(s, "a", { ttl: "10s" });
    s.server.connection.push({ holdEnds: [{ token: 1, reason: FORCED, confirm: true }] });
    await s.time.advance(30_000);
    expect(s.server.leases.size).toBe(1);
    expect(s.server.connection.open).toBe(true);
    s.server.connection.break();
    await s.time.advance(100);
    expect(s.server.connection.hello).toMatchObject({ claims: [1] });
    s.server.connection.push({ holdEnds: [{ token: 1, reason: FORCED, confirm: true }] });
    void lock.release();
    await s.time.settle();
    expect(s.server.connection.commands.slice(-2)).toMatchObject([
      { release: { token: 1 } },
      { revokeSessionLease: 1 },
    ]);
    await s.time.advance(3_000);
    expect(s.server.connection.ended).toBe(true);
  });

  it("without being asked is gone; nothing is sent", async () => {
    const s = setup();
    const [a, b] = [await take(s, "a", { ttl: "10s" }), await take(s, "b")];
    s.server.connection.push({ holdEnds: [{ token: 1, reason: FORCED }] });
    await s.time.settle();
    expect(a.state).toEqual({ is: "lost", reason: "forced" });
    expect(b.state.is).toBe("held");
    expect(await a.release()).toBe(false);
    expect(releases(s)).toEqual([]);
    expect(s.server.leases.size).toBe(1);
  });

  it("and does not confirm is forgotten when the server has waited long enough", async () => {
    const s = setup();
    const lock = await take(s, "a", { ttl: "10s" });
    s.server.connection.push({ holdEnds: [{ token: 1, reason: FORCED, confirm: true }] });
    s.server.connection.push({ holdEnds: [{ token: 1, reason: FORCED }] });
    await s.time.settle();
    expect(s.client.session.holdings.locks.size).toBe(0);
    expect(s.server.leases.size).toBe(0);
    expect(await lock.release()).toBe(false);
    expect(releases(s)).toEqual([]);
  });

  it("is lost although the news of it and its grant come together", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const taken = watch(s.client.acquire("a"));
    await s.time.settle();
    s.server.connection.push({
      results: [{ seq: 2, ...s.server.grant() }],
      holdEnds: [{ token: 1, reason: FORCED, confirm: true }],
    });
    await s.time.settle();
    expect(taken.value?.state).toEqual({ is: "lost", reason: "forced" });
  });

  it("under a callback is given back when the callback has ended, which rejects LOST", async () => {
    const s = setup();
    let end = () => {};
    const ran = watch(s.client.withLock("a", () => new Promise<void>((resolve) => (end = resolve))));
    await s.time.settle();
    s.server.connection.push({ holdEnds: [{ token: 1, reason: FORCED, confirm: true, message: "x" }] });
    await s.time.advance(5_000);
    expect(releases(s)).toEqual([]);
    end();
    await s.time.settle();
    expect(releases(s)).toHaveLength(1);
    expect(ran.error).toMatchObject({ code: "LOST", lost: "forced" });
    expect(LeaseholdError.is(ran.error) && ran.error.message).toMatch(/an administrator took it away: x$/);
  });

  it("while its release is on its way is released", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.release = () => null;
    const released = watch(lock.release());
    await s.time.settle();
    s.server.connection.push({ holdEnds: [{ token: 1, reason: FORCED, confirm: true }] });
    s.server.connection.answer(3, { release: {} });
    await s.time.settle();
    expect(released.value).toBe(true);
    expect(lock.state).toEqual({ is: "released" });
  });
});

describe("a lease that asks for progress", () => {
  const leased = async (s: Setup, options: Parameters<Setup["client"]["lease"]>[0]) => {
    const made = s.client.lease(options);
    await s.time.settle();
    return made;
  };
  const reports = (s: Setup) =>
    s.server.connections.flatMap((c) => c.frames).filter((frame) => frame.progress.length > 0);

  it("is lost without it, although it is renewed", async () => {
    const s = setup();
    const lease = await leased(s, { ttl: "15s", progressEvery: "10s" });
    expect(s.server.connection.commands[0]).toMatchObject({ createLease: { ttlMs: 15_000, progressEveryMs: 10_000 } });
    expect(lease.ttlMs).toBe(15_000);
    const lock = await take(s, "a", { lease });
    expect(lock.state).toEqual({ is: "held", remainingMs: 9_900 });
    const untilMs = s.time.nowMs() + 10_000;
    const push = s.server.renewal.bind(s.server);
    s.server.renewal = (seq, frame) => push(seq, frame, Math.max(0, untilMs - s.time.nowMs()));
    await s.time.advance(9_899);
    expect(lock.state.is).toBe("jeopardy");
    await s.time.advance(1);
    expect(lock.state).toEqual({ is: "lost", reason: "expired" });
    expect(thrown(() => lease.progress())).toMatchObject({ code: "LOST", lost: "expired" });
    expect(thrown(() => lock.progress())).toMatchObject({ code: "LOST", lost: "expired" });
  });

  it("is reported for with the next frame, at most ten times in its interval, and never too late", async () => {
    const s = setup();
    const lease = await leased(s, { ttl: "15s", progressEvery: "10s" });
    const lock = await take(s, "a", { lease });
    for (let i = 0; i < 1_000; i++) {
      lock.progress();
      lease.progress();
      await s.time.advance(20);
    }
    expect(lock.state.is).toBe("held");
    expect(reports(s).length).toBeGreaterThanOrEqual(19);
    expect(reports(s).length).toBeLessThanOrEqual(21);
    for (const frame of reports(s)) expect(frame.progress).toEqual([1]);
  });

  it("is told of the last report, too, although it had to wait", async () => {
    const s = setup();
    const lease = await leased(s, { progressEvery: "10s" });
    lease.progress();
    await s.time.advance(10);
    lease.progress();
    await s.time.settle();
    expect(reports(s)).toHaveLength(1);
    await s.time.advance(990);
    expect(reports(s)).toHaveLength(2);
    await s.time.advance(3_000);
    expect(reports(s)).toHaveLength(2);
  });

  it("rides on a frame that goes out anyway", async () => {
    const s = setup();
    const lease = await leased(s, { progressEvery: "10s" });
    lease.progress();
    const frames = s.server.connection.frames.length;
    await take(s, "a", { lease });
    expect(s.server.connection.frames.length).toBe(frames + 1);
    expect(s.server.connection.lastFrame.progress).toEqual([1]);
  });

  it("is told again of a report that was not answered before its stream broke, and of no other", async () => {
    const s = setup();
    const lease = await leased(s, { progressEvery: "10s" });
    lease.progress();
    await s.time.settle();
    s.server.connection.break();
    await s.time.advance(100);
    expect(s.server.connection.frames.flatMap((frame) => frame.progress)).toEqual([]);
    s.server.renews = false;
    await s.time.advance(2_000);
    lease.progress();
    await s.time.settle();
    s.server.connection.break();
    await s.time.advance(100);
    expect(s.server.connection.frames.flatMap((frame) => frame.progress)).toEqual([1]);
  });

  it("is another stream's business when reports are not answered, in time", async () => {
    const s = setup();
    const lease = await leased(s, { ttl: "1h", progressEvery: "6s" });
    s.server.renews = false;
    lease.progress();
    await s.time.advance(2_600);
    expect(s.server.connections).toHaveLength(2);
    s.server.renews = true;
    await s.time.advance(1_000);
    expect(lease.state.is).toBe("held");
  });

  it("is the only kind that may be reported for", async () => {
    const s = setup();
    const lease = await leased(s, {});
    const lock = await take(s);
    expect(thrown(() => lease.progress()).code).toBe("INVALID");
    expect(thrown(() => lock.progress()).code).toBe("INVALID");
    await expect(s.client.lease({ progressEvery: 0 })).rejects.toMatchObject({ code: "INVALID" });
    const revoked = await leased(s, { progressEvery: "10s" });
    void revoked.revoke();
    expect(thrown(() => revoked.progress())).toMatchObject({ code: "LOST", retryable: false });
  });
});
