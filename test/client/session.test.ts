/** The session: resuming, acknowledging, starting anew. */
import { describe, expect, it } from "vitest";
import { setup, take, watch } from "./support.js";

describe("a broken stream", () => {
  it("is resumed with a higher epoch, claims and outstanding commands, which are sent again", async () => {
    const s = setup();
    await take(s, "a");
    await take(s, "b");
    s.server.answers.acquire = () => null;
    const taken = watch(s.client.acquire("c"));
    await s.time.settle();
    s.server.connection.break();
    delete s.server.answers.acquire;
    await s.time.advance(100);
    expect(s.server.connection.hello).toMatchObject({
      sessionId: "session-1",
      epoch: 2,
      claims: [1, 2],
      outstanding: [4],
      clusterId: "cluster-1",
      highestToken: 2,
    });
    expect(s.server.connection.commands).toMatchObject([{ seq: 4, acquire: { name: "c", sessionLease: 1 } }]);
    expect(s.server.connection.frames[1]?.renew).toBe(true);
    expect(taken.value?.token).toBe(3);
  });

  it("does not claim what it has ceased to believe in", async () => {
    const s = setup();
    const old = await take(s, "a", { ttl: "2s" });
    await take(s, "b");
    s.server.unreachable = "down";
    s.server.connection.break();
    await s.time.advance(3_000);
    s.server.unreachable = null;
    await s.time.advance(3_000);
    expect(s.server.connection.hello).toMatchObject({ claims: [2], abandoned: [1] });
    expect(old.state).toEqual({ is: "lost", reason: "expired" });
    expect(s.server.connection.commands).toMatchObject([{ abandonSessionLease: 1 }]);
  });

  it("is reconnected to the addresses in turn", async () => {
    const s = setup();
    s.server.addresses = ["one", "two", "three"].map((text) => ({ text, local: false }));
    await take(s);
    s.server.unreachable = "down";
    s.server.connection.break();
    await s.time.advance(12_000);
    expect(s.server.connections.map((connection) => connection.index).slice(0, 7)).toEqual([0, 1, 2, 0, 1, 2, 0]);
  });

  it("does not claim at the waking from a stall what has run out in it, even if no timer has run yet", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.connection.break();
    s.time.stall(20_000);
    await s.time.advance(1);
    expect(s.server.connections).toHaveLength(2);
    expect(s.server.connection.hello).toMatchObject({ sessionId: "session-1", claims: [] });
    expect(lock.state.is).toBe("lost");
  });

  it("does not ask again for what was withdrawn before", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    s.server.answers.cancelAcquire = () => null;
    const controller = new AbortController();
    void watch(s.client.acquire("a", { signal: controller.signal }));
    void watch(s.client.acquire("b"));
    await s.time.settle();
    controller.abort();
    await s.time.settle();
    s.server.connection.break();
    await s.time.advance(100);
    expect(s.server.connection.hello?.outstanding).toEqual([3]);
    expect(s.server.connection.commands.map((command) => command.seq)).toEqual([3]);
  });

  it("says nothing any more once another has taken its place", async () => {
    const s = setup();
    const lock = await take(s);
    const first = s.server.connection;
    first.break();
    await s.time.advance(100);
    expect(s.server.connections).toHaveLength(2);
    first.open = true;
    first.push({ leaseEnds: [{ sessionLease: 1, reason: 2 }] });
    first.break();
    expect(lock.state.is).toBe("held");
    expect(s.server.connection.open).toBe(true);
  });

  it("without an outcome is resumed like any other", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.connection.break("OUTCOME_UNKNOWN", 2);
    await s.time.advance(100);
    expect(s.server.connection.hello).toMatchObject({ sessionId: "session-1", claims: [1] });
    expect(lock.state.is).toBe("held");
  });

  it("is not opened again before the server wants it", async () => {
    const s = setup();
    await take(s);
    s.server.connection.break("LIMIT", 8, "too many sessions", 3_000);
    await s.time.advance(2_900);
    expect(s.server.connections).toHaveLength(1);
    await s.time.advance(200);
    expect(s.server.connections).toHaveLength(2);
  });

  it("a malformed frame, and a first answer that is no Welcome, break it", async () => {
    const s = setup();
    await take(s);
    s.server.connection.pushRaw(Buffer.from([0xff, 0xff, 0xff]));
    expect(s.server.connection.open).toBe(false);
    s.server.onHello = (connection) => connection.push({ results: [] });
    await s.time.advance(100);
    expect(s.server.connections).toHaveLength(2);
    expect(s.server.connection.open).toBe(false);
  });

  it("a server that does not answer the Hello is given up", async () => {
    const s = setup();
    await take(s, "a", { ttl: "1h" });
    s.server.onHello = () => {};
    s.server.connection.break();
    await s.time.advance(4_000);
    expect(s.server.connections).toHaveLength(2);
    await s.time.advance(3_000);
    expect(s.server.connections).toHaveLength(3);
  });
});

describe("acknowledgements", () => {
  it("cover what has been answered without a gap", async () => {
    const s = setup();
    s.server.answers.acquire = ({ acquire }) => (acquire?.name === "slow" ? null : s.server.grant());
    await take(s, "a");
    const slow = watch(s.client.acquire("slow"));
    await s.time.settle();
    await take(s, "b");
    await take(s, "c");
    expect(s.server.connection.frames.map((frame) => frame.ackedBelow)).toEqual([1, 1, 3, 3, 3]);
    s.server.connection.answer(3, s.server.grant());
    await s.time.settle();
    expect(slow.settled).toBe(true);
    await take(s, "d");
    expect(s.server.connection.lastFrame.ackedBelow).toBe(6);
  });
});

describe("a session that the server does not know", () => {
  it.each([
    ["UNKNOWN_SESSION", "unknown_to_server"],
    ["SESSION_REPLACED", "session_replaced"],
  ])("%s: its locks are lost, its questions asked anew", async (reason, lost) => {
    const s = setup();
    const lock = await take(s, "a");
    const released = await take(s, "r");
    s.server.answers.acquire = () => null;
    s.server.answers.release = () => null;
    s.server.answers.validate = () => null;
    const waiting = watch(s.client.acquire("b"));
    const valid = watch(s.client.validate("a", 1));
    const release = watch(released.release());
    await s.time.settle();
    s.server.onHello = (connection, hello) => {
      if (hello.sessionId === "session-1") connection.break(reason, 5, "gone");
      else s.server.welcome(connection);
    };
    s.server.answers = {};
    s.server.sessionId = "session-2";
    s.server.connection.break();
    await s.time.advance(300);
    expect(lock.state).toEqual({ is: "lost", reason: lost });
    expect(release.value).toBe(false);
    expect(valid.value).toBe(true);
    expect(waiting.value?.state.is).toBe("held");
    expect(s.server.connection.hello).toMatchObject({ epoch: 1, claims: [], outstanding: [], highestToken: 2 });
    expect(s.server.connection.hello?.sessionId).toBe("");
    const kinds = s.server.connection.commands.map(({ seq, createLease, acquire, validate }) => [
      seq,
      !!createLease,
      !!acquire,
      !!validate,
    ]);
    expect(kinds).toHaveLength(3);
    expect(kinds.map(([seq]) => seq)).toEqual([1, 2, 3]);
  });

  it("creates anew a lease that was still being created, for those who wait for it", async () => {
    const s = setup();
    s.server.answers.createLease = () => null;
    s.server.answers.acquire = () => null;
    const [a, b] = [watch(s.client.acquire("a")), watch(s.client.acquire("b"))];
    await s.time.settle();
    s.server.answers = {};
    s.server.onHello = (connection, hello) =>
      hello.sessionId ? connection.break("UNKNOWN_SESSION", 5) : s.server.welcome(connection);
    s.server.connection.break();
    await s.time.advance(300);
    expect([a.value?.token, b.value?.token]).toEqual([1, 2]);
    expect(s.server.leases.size).toBe(1);
  });
});

describe("another store", () => {
  it("is refused loudly: everything is lost, everything that waits is rejected", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.acquire = () => null;
    const waiting = watch(s.client.acquire("b"));
    await s.time.settle();
    s.server.clusterId = "cluster-2";
    s.server.connection.break();
    await s.time.advance(100);
    expect(lock.state).toEqual({ is: "lost", reason: "unknown_to_server" });
    expect(waiting.error).toMatchObject({ code: "INVALID", reason: "CLUSTER_MISMATCH", retryable: false });
    expect(s.warnings).toMatchObject([{ reason: "CLUSTER_MISMATCH" }]);
    const next = watch(s.client.acquire("c"));
    await s.time.advance(100);
    expect(next.error).toMatchObject({ reason: "CLUSTER_MISMATCH" });
  });

  it("is noticed by the server as well", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.onHello = (connection) => connection.break("CLUSTER_MISMATCH", 9, "you come from another store");
    s.server.connection.break();
    await s.time.advance(100);
    expect(lock.state.is).toBe("lost");
    expect(s.warnings).toHaveLength(1);
  });
});
