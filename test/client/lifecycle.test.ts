/** Connecting, idling, closing, and what is told of it. */
import { describe, expect, it } from "vitest";
import { firstConnection } from "../../src/client/connect.js";
import { LeaseholdError } from "../../src/client/errors.js";
import { setup, take, thrown, watch } from "./support.js";

describe("no server", () => {
  it("connect says who was tried, why it failed, and what to do", async () => {
    const s = setup();
    s.server.unreachable = "No connection established. Last error: connect ECONNREFUSED 127.0.0.1:7420";
    s.server.addresses = [{ text: "localhost:7420", local: true }];
    const connected = watch(firstConnection(s.client.session, 5_000));
    await s.time.advance(4_900);
    expect(connected.settled).toBe(false);
    await s.time.advance(200);
    expect(connected.error).toMatchObject({
      code: "UNREACHABLE",
      message: "cannot reach localhost:7420 (ECONNREFUSED). Start one: npx leasehold serve",
    });
    await s.time.advance(2_000);
    expect(s.time.timers).toBe(0);
  });

  it("connect gives up at once when it is refused", async () => {
    const s = setup();
    s.server.onHello = (connection) => connection.break("", 16, "no credentials");
    const connected = watch(firstConnection(s.client.session, 5_000));
    await s.time.settle();
    expect(connected.error).toMatchObject({ code: "DENIED", message: "no credentials" });
  });

  it("an acquire looks for one for as long as it waits", async () => {
    const s = setup();
    s.server.unreachable = "connect ECONNREFUSED";
    const taken = watch(s.client.acquire("a", { wait: "10s" }));
    await s.time.advance(9_900);
    expect(taken.settled).toBe(false);
    await s.time.advance(200);
    expect(taken.error).toMatchObject({ code: "UNREACHABLE", retryable: true });
    await s.time.advance(3_000);
    expect(s.time.timers).toBe(0);
  });

  it("says what the server says of its store", async () => {
    const s = setup();
    s.server.onHello = (connection) => connection.break("STORE_DOWN", 14, "the disk is full");
    const taken = watch(s.client.acquire("a", { wait: "3s" }));
    await s.time.advance(3_100);
    expect(taken.error).toMatchObject({ code: "STORE_DOWN", message: "the disk is full" });
  });

  it("a frame that the server refuses rejects what waits, not what is held", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.acquire = () => null;
    const waiting = watch(s.client.acquire("b"));
    await s.time.settle();
    s.server.connection.break("INVALID", 3, "malformed frame");
    await s.time.advance(100);
    expect(waiting.error).toMatchObject({ code: "INVALID", message: "malformed frame" });
    expect(lock.state.is).toBe("held");
    expect(s.server.connection.hello).toMatchObject({ claims: [1], outstanding: [] });
  });
});

describe("idleness", () => {
  it("ends the lease and the stream after a second; the next command opens a new session", async () => {
    const s = setup();
    const lock = await take(s);
    void lock.release();
    await s.time.settle();
    await s.time.advance(990);
    expect(s.server.connection.open).toBe(true);
    await s.time.advance(20);
    expect(s.server.connection.ended).toBe(true);
    expect(s.server.leases.size).toBe(0);
    await s.time.advance(10);
    expect(s.time.timers).toBe(0);
    s.server.sessionId = "session-2";
    const second = await take(s, "b");
    expect(second.state.is).toBe("held");
    expect(s.server.connections).toHaveLength(2);
    expect(s.server.connection.hello).toMatchObject({
      sessionId: "",
      epoch: 1,
      clusterId: "cluster-1",
      highestToken: 1,
    });
  });

  it("does not wait for a server that does not confirm", async () => {
    const s = setup();
    s.server.answers.revokeSessionLease = () => null;
    void (await take(s)).release();
    await s.time.advance(2_100);
    expect(s.server.connection.ended).toBe(true);
    expect(s.time.timers).toBe(0);
  });

  it("is over when somebody comes while the lease is being ended", async () => {
    const s = setup();
    s.server.answers.revokeSessionLease = () => null;
    void (await take(s)).release();
    await s.time.advance(1_100);
    const lock = await take(s, "b");
    await s.time.advance(100_000);
    expect(lock.state.is).toBe("held");
    expect(s.server.connections).toHaveLength(1);
  });

  it("does not begin while something is held or waits", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    void watch(s.client.acquire("a", { wait: "20s" }));
    await s.time.advance(19_000);
    expect(s.server.connections).toHaveLength(1);
    expect(s.server.connection.open).toBe(true);
  });

  it("follows a connect that was not used", async () => {
    const s = setup();
    const connected = watch(firstConnection(s.client.session, 5_000));
    await s.time.settle();
    expect(connected.settled).toBe(true);
    await s.time.advance(1_010);
    expect(s.server.connection.ended).toBe(true);
    expect(s.time.timers).toBe(0);
  });

  it("does not end a busy loop of one lock at a time", async () => {
    const s = setup();
    for (let i = 0; i < 30; i++) {
      void (await take(s)).release();
      await s.time.advance(900);
    }
    expect(s.server.connections).toHaveLength(1);
    expect(s.server.connection.commands.filter((command) => command.createLease)).toHaveLength(1);
  });
});

describe("close", () => {
  it("releases everything, rejects what waits, and ends the stream", async () => {
    const s = setup();
    const a = await take(s, "a");
    const signal = a.signal;
    const made = s.client.lease();
    await s.time.settle();
    const lease = await made;
    s.server.answers.acquire = () => null;
    const waiting = watch(s.client.acquire("b"));
    await s.time.settle();
    const closed = watch(s.client.close());
    expect(a.state).toEqual({ is: "released" });
    expect(thrown(() => a.token).code).toBe("CLOSED");
    expect(signal.reason).toMatchObject({ code: "CLOSED" });
    await s.time.settle();
    expect(closed.settled).toBe(true);
    expect(waiting.error).toMatchObject({ code: "CLOSED" });
    expect(lease.state.is).toBe("released");
    expect(s.server.leases.size).toBe(0);
    expect(s.server.connection.ended).toBe(true);
    expect(s.time.timers).toBe(0);
    for (const call of [
      s.client.acquire("c"),
      s.client.tryAcquire("c"),
      s.client.describe("c"),
      s.client.validate("c", 1),
      s.client.lease(),
      s.client.clock.range(1),
    ]) {
      await expect(call).rejects.toMatchObject({ code: "CLOSED" });
    }
    expect(await a.release()).toBe(false);
    await s.client.close();
  });

  it("revokes a lease that is still being created, so that its grant cannot outlive the client", async () => {
    const s = setup();
    s.server.answers.createLease = () => null;
    s.server.answers.acquire = () => null;
    const waiting = watch(s.client.acquire("a"));
    await s.time.settle();
    const closed = watch(s.client.close());
    await s.time.settle();
    expect(waiting.error).toMatchObject({ code: "CLOSED" });
    expect(s.server.connection.commands.at(-1)).toMatchObject({ revokeSessionLease: 1 });
    expect(closed.settled).toBe(true);
  });

  it("is bounded by its timeout", async () => {
    const s = setup();
    await take(s);
    s.server.unreachable = "down";
    s.server.connection.break();
    const waiting = watch(s.client.acquire("b"));
    const closed = watch(s.client.close({ timeout: "3s" }));
    await s.time.advance(2_900);
    expect(waiting.error).toMatchObject({ code: "CLOSED" });
    expect(closed.settled).toBe(false);
    await s.time.advance(200);
    expect(closed.settled).toBe(true);
    expect(s.time.timers).toBe(0);
  });

  it("of a client that never connected is immediate", async () => {
    const s = setup();
    await s.client.close();
    expect(s.server.connections).toHaveLength(0);
  });

  it("lets a release that is on its way be confirmed", async () => {
    const s = setup();
    const lock = await take(s);
    const released = watch(lock.release());
    const closed = watch(s.client.close());
    await s.time.settle();
    expect(released.value).toBe(true);
    expect(closed.settled).toBe(true);
  });
});

describe("events", () => {
  it("tell of the state of the connection", async () => {
    const s = setup();
    const states: string[] = [];
    s.client.on("state", (state) => states.push(state));
    await take(s);
    s.server.connection.break();
    await s.time.advance(100);
    const closing = s.client.close();
    await s.time.settle();
    await closing;
    expect(states).toEqual(["connecting", "connected", "disconnected", "connecting", "connected", "closed"]);
  });

  it("a Lamport clock far ahead of the server is warned of once", async () => {
    const s = setup();
    await take(s);
    s.server.connection.push({ clockAheadBy: 5 });
    s.server.connection.push({ clockAheadBy: 6 });
    await s.time.settle();
    expect(s.warnings).toHaveLength(1);
    expect(LeaseholdError.is(s.warnings[0], "CLOCK_JUMP")).toBe(true);
  });
});
