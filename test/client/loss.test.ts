/** When a lock counts as held, in doubt, lost: every rule about what the client may believe. */
import { describe, expect, it } from "vitest";
import { LeaseholdError } from "../../src/client/errors.js";
import { setup, take, thrown, watch } from "./support.js";

const MARGIN_MS = 150; // of the default TTL of 15 s

describe("a held lock", () => {
  it("is renewed at a third of the TTL, for as long as it is held", async () => {
    const s = setup();
    const lock = await take(s);
    const before = s.server.connection.frames.length;
    await s.time.advance(4_999);
    expect(s.server.connection.frames.length).toBe(before);
    await s.time.advance(1);
    expect(s.server.connection.lastFrame.renew).toBe(true);
    await s.time.advance(600_000);
    expect(lock.state).toMatchObject({ is: "held" });
    expect(lock.token).toBe(1);
    const renewals = s.server.connection.frames.filter((frame) => frame.renew).length;
    expect(renewals).toBeGreaterThanOrEqual(119);
    expect(renewals).toBeLessThanOrEqual(123);
  });

  it("lets the renewal ride on a frame that leaves anyway", async () => {
    const s = setup();
    await take(s);
    await s.time.advance(2_400);
    await take(s, "b");
    expect(s.server.connection.lastFrame.renew).toBe(false);
    await s.time.advance(200);
    await take(s, "c");
    expect(s.server.connection.lastFrame.renew).toBe(true);
    const frames = s.server.connection.frames.length;
    await s.time.advance(4_999);
    expect(s.server.connection.frames.length).toBe(frames);
  });

  it("is not renewed any more when it is released", async () => {
    const s = setup();
    const lock = await take(s, "a", { ttl: "10s" });
    const released = lock.release();
    await s.time.settle();
    expect(await released).toBe(true);
    const frames = s.server.connection.frames.length;
    await s.time.advance(900);
    expect(s.server.connection.frames.length).toBe(frames);
    await s.time.advance(60_000);
    expect(s.server.connections.flatMap((c) => c.frames).filter((frame) => frame.renew)).toEqual([]);
  });

  it("counts from the send of the frame that the renewal names, not from its arrival", async () => {
    const s = setup();
    s.server.renews = false;
    const lock = await take(s);
    const grantedAt = s.time.nowMs();
    await s.time.advance(5_000);
    const { frame } = s.server.connection.lastFrame;
    expect(s.server.connection.lastFrame.renew).toBe(true);
    await s.time.advance(1_000);
    s.server.connection.push({ renewals: [s.server.renewal(1, frame)] });
    const state = lock.state;
    expect(state).toEqual({ is: "held", remainingMs: grantedAt + 5_000 + 15_000 - MARGIN_MS - s.time.nowMs() });
  });

  it("counts from the last send of the creation of its lease on this stream", async () => {
    const s = setup();
    s.server.answers.createLease = () => null;
    s.server.answers.acquire = () => null;
    const taken = watch(s.client.acquire("a"));
    await s.time.settle();
    await s.time.advance(3_000);
    s.server.connection.break();
    s.server.answers.createLease = (command) => s.server.lease(command);
    s.server.answers.acquire = () => s.server.grant();
    await s.time.advance(50);
    const sentAt = s.time.nowMs();
    expect(taken.settled).toBe(true);
    expect(taken.value?.state).toMatchObject({ is: "held" });
    await s.time.settle();
    s.time.stall(15_000 - MARGIN_MS - 100);
    expect(taken.value?.state.is).toBe("jeopardy");
    s.time.stall(101 + (sentAt - s.time.nowMs() + 15_000 - MARGIN_MS));
    expect(taken.value?.state.is).toBe("lost");
  });

  it("ignores a renewal that names a frame it did not send", async () => {
    const s = setup();
    s.server.renews = false;
    const lock = await take(s);
    await s.time.advance(6_000);
    s.server.connection.push({ renewals: [s.server.renewal(1, 999)] });
    await s.time.advance(4_000);
    expect(lock.state.is).toBe("jeopardy");
  });
});

describe("after a stall past the TTL", () => {
  it("everything that is read says so before any timer or message has", async () => {
    const s = setup();
    const lock = await take(s);
    s.time.stall(15_000 - MARGIN_MS);
    const error = thrown(() => lock.token);
    expect(error.code).toBe("LOST");
    expect(error.lost).toBe("expired");
    expect(thrown(() => lock.assertHeld()).code).toBe("LOST");
    expect(lock.state).toEqual({ is: "lost", reason: "expired" });
    expect(lock.grant).toMatchObject({ token: 1, leaseId: "lease-1" });
  });

  it("the signal is aborted when it is read, also for the first time", async () => {
    const s = setup();
    const [a, b] = [await take(s), await take(s, "b")];
    const signal = a.signal;
    expect(signal.aborted).toBe(false);
    s.time.stall(15_000);
    expect(b.signal.aborted).toBe(true);
    expect(signal.aborted).toBe(true);
    expect(LeaseholdError.is(signal.reason, "LOST")).toBe(true);
  });

  it("the lock stays lost, whatever the server says afterwards", async () => {
    const s = setup();
    s.server.renews = false;
    const lock = await take(s);
    await s.time.advance(5_000);
    const { frame } = s.server.connection.lastFrame;
    s.time.stall(10_000);
    s.server.connection.push({ renewals: [s.server.renewal(1, frame, 15_000)] });
    expect(lock.state).toEqual({ is: "lost", reason: "expired" });
    await s.time.advance(60_000);
    expect(lock.state).toEqual({ is: "lost", reason: "expired" });
    expect(thrown(() => lock.token).code).toBe("LOST");
  });

  it("the lease is abandoned, lest the renewals of others keep it alive at the server", async () => {
    const s = setup();
    const lock = await take(s);
    s.time.stall(15_000);
    expect(lock.state.is).toBe("lost");
    await s.time.settle();
    expect(s.server.connection.commands.at(-1)).toMatchObject({ abandonSessionLease: 1 });
    expect(s.server.leases.size).toBe(0);
  });

  it("a grant that was on its way is no lock", async () => {
    const s = setup();
    let held: { seq: number } | undefined;
    s.server.answers.acquire = (command) => {
      held = command;
      return null;
    };
    const taken = watch(s.client.acquire("a"));
    await s.time.settle();
    s.time.stall(15_000);
    s.server.connection.answer(held?.seq ?? 0, s.server.grant());
    await s.time.settle();
    expect(taken.error).toMatchObject({ code: "LOST", lost: "expired" });
    expect(s.server.connection.commands.at(-1)).toMatchObject({ abandonSessionLease: 1 });
  });

  it("a grant whose lease was answered for too late is no lock", async () => {
    const s = setup();
    s.server.answers.createLease = () => null;
    s.server.answers.acquire = () => null;
    const taken = watch(s.client.acquire("a", { wait: 0 }));
    await s.time.settle();
    s.time.stall(15_000);
    s.server.connection.push({
      results: [
        { seq: 1, ...s.server.lease({ seq: 1 }) },
        { seq: 2, ...s.server.grant() },
      ],
    });
    await s.time.settle();
    expect(taken.error).toMatchObject({ code: "LOST" });
    expect(s.server.leases.size).toBe(0);
  });

  it("the next acquire gets a new lease on the same session", async () => {
    const s = setup();
    const first = await take(s);
    s.time.stall(15_000);
    const second = await take(s, "b");
    expect(first.state.is).toBe("lost");
    expect(second.state.is).toBe("held");
    expect(s.server.connections.length).toBe(1);
    expect(second.grant.leaseId).not.toBe(first.grant.leaseId);
  });
});

describe("jeopardy", () => {
  it("begins at two thirds of the TTL without a renewal, and ends with one", async () => {
    const s = setup();
    s.server.renews = false;
    const lock = await take(s);
    const events: string[] = [];
    lock.on("jeopardy", (state) => events.push(state.is));
    lock.on("recovered", (state) => events.push(`recovered ${state.is}`));
    lock.on("lost", (reason) => events.push(`lost ${reason}`));
    await s.time.advance(9_990);
    expect(events).toEqual([]);
    await s.time.advance(20);
    expect(events).toEqual(["jeopardy"]);
    expect(lock.state.is).toBe("jeopardy");
    expect(lock.token).toBe(1);
    s.server.renews = true;
    await s.time.advance(2_000);
    expect(events).toEqual(["jeopardy", "recovered held"]);
    expect(lock.state.is).toBe("held");
  });

  it("turns into loss when nothing comes", async () => {
    const s = setup();
    s.server.renews = false;
    const lock = await take(s);
    const events: string[] = [];
    lock.on("jeopardy", (state) => events.push(state.is));
    lock.on("lost", (reason) => events.push(reason));
    const signal = lock.signal;
    await s.time.advance(15_000);
    expect(events).toEqual(["jeopardy", "expired"]);
    expect(signal.aborted).toBe(true);
  });

  it("a listener that was disposed of hears nothing", async () => {
    const s = setup();
    s.server.renews = false;
    const lock = await take(s);
    let calls = 0;
    lock.on("lost", () => calls++)[Symbol.dispose]();
    await s.time.advance(20_000);
    expect(calls).toBe(0);
  });

  it("an unanswered renewal is repeated soon, and the stream given up in time to try another", async () => {
    const s = setup();
    await take(s);
    s.server.renews = false;
    await s.time.advance(5_000);
    const { frames } = s.server.connection;
    const count = frames.length;
    await s.time.advance(2_000);
    expect(frames.length).toBe(count + 1);
    await s.time.advance(3_100);
    expect(s.server.connections.length).toBe(2);
    expect(s.server.connection.hello).toMatchObject({ sessionId: "session-1", epoch: 2, claims: [1] });
  });
});

describe("the server's word", () => {
  it("a lease that ended takes its locks along", async () => {
    const s = setup();
    const [a, b] = [await take(s), await take(s, "b")];
    const reasons: string[] = [];
    b.on("lost", (reason) => reasons.push(reason));
    s.server.connection.push({ leaseEnds: [{ sessionLease: 1, reason: 2 }] });
    await s.time.settle();
    expect(a.state).toEqual({ is: "lost", reason: "revoked" });
    expect(reasons).toEqual(["revoked"]);
    // The server knows: there is nothing to revoke.
    expect(
      s.server.connection.commands.some((command) => command.revokeSessionLease || command.abandonSessionLease),
    ).toBe(false);
    expect((await take(s, "c")).state.is).toBe("held");
  });

  it("a hold that ended takes only itself", async () => {
    const s = setup();
    const [a, b] = [await take(s), await take(s, "b")];
    s.server.connection.push({ holdEnds: [{ token: a.grant.token, reason: 2 }] });
    expect(a.state).toEqual({ is: "lost", reason: "revoked" });
    expect(b.state.is).toBe("held");
  });

  it("a lease's end and a grant of it in one frame are no lock", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const taken = watch(s.client.acquire("a", { wait: 0, lease: await s.time.settle().then(() => leaseOf(s)) }));
    await s.time.settle();
    const { seq } = s.server.connection.commands.at(-1) ?? { seq: 0 };
    s.server.connection.push({ leaseEnds: [{ sessionLease: 1, reason: 1 }], results: [{ seq, ...s.server.grant() }] });
    await s.time.settle();
    expect(taken.error).toMatchObject({ code: "LOST", lost: "expired" });
  });

  it("a claim that it does not know is lost", async () => {
    const s = setup();
    const [a, b] = [await take(s), await take(s, "b")];
    s.server.onHello = (connection) => s.server.welcome(connection, { lost: [1] });
    s.server.connection.break();
    await s.time.advance(100);
    expect(a.state).toEqual({ is: "lost", reason: "unknown_to_server" });
    expect(b.state.is).toBe("held");
  });
});

describe("assertHeld", () => {
  it("asks for time to come", async () => {
    const s = setup();
    const lock = await take(s);
    lock.assertHeld({ forMs: "14s" });
    expect(thrown(() => lock.assertHeld({ forMs: 14_900 })).message).toMatch(/for 14850 ms more, not for 14900 ms/);
    expect(lock.state.is).toBe("held");
  });
});

async function leaseOf(s: ReturnType<typeof setup>) {
  const lease = s.client.lease();
  await s.time.settle();
  return lease;
}
