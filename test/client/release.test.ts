/** Giving locks back: what `release` promises when the network or the server does not play along. */
import { describe, expect, it } from "vitest";
import { setup, take, thrown, watch } from "./support.js";

describe("release", () => {
  it("resolves true, once, and the same promise again", async () => {
    const s = setup();
    const lock = await take(s);
    const first = lock.release();
    expect(lock.release()).toBe(first);
    await s.time.settle();
    expect(await first).toBe(true);
    expect(s.server.connection.commands.filter((command) => command.release)).toHaveLength(1);
  });

  it("counts from its call on, before anything was sent", async () => {
    const s = setup();
    const lock = await take(s);
    void lock.release();
    expect(lock.state).toEqual({ is: "released" });
    expect(thrown(() => lock.token).code).toBe("LOST");
    expect(thrown(() => lock.assertHeld()).code).toBe("LOST");
    expect(lock.signal.aborted).toBe(false);
    expect(lock.grant.token).toBe(1);
  });

  it("resolves false after a loss, without asking the server", async () => {
    const s = setup();
    const lock = await take(s);
    s.time.stall(15_000);
    expect(await lock.release()).toBe(false);
    await s.time.settle();
    expect(s.server.connection.commands.some((command) => command.release)).toBe(false);
  });

  it("resolves false when the token is stale", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.release = () => ({ failure: { reason: "STALE_TOKEN", message: "not held" } });
    const released = lock.release();
    await s.time.settle();
    expect(await released).toBe(false);
    expect(s.warnings).toEqual([]);
  });

  it("whose reply is lost is sent again under its number when the session resumes, and resolves true", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.release = () => null;
    const released = watch(lock.release());
    await s.time.settle();
    const sent = s.server.connection.commands.at(-1);
    s.server.connection.break();
    delete s.server.answers.release;
    await s.time.advance(100);
    expect(s.server.connections.length).toBe(2);
    // Still claimed, so that the release finds what it is to release if it had never arrived.
    expect(s.server.connection.hello).toMatchObject({ outstanding: [sent?.seq], claims: [1] });
    expect(s.server.connection.commands).toMatchObject([{ seq: sent?.seq, release: { name: "a", token: 1 } }]);
    expect(released.value).toBe(true);
    expect(lock.state).toEqual({ is: "released" });
  });

  it("whose token the server reports as lost at the resumption still resolves true by its remembered outcome", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.release = () => null;
    const released = watch(lock.release());
    await s.time.settle();
    s.server.connection.break();
    delete s.server.answers.release;
    s.server.onHello = (connection) => s.server.welcome(connection, { lost: [1] });
    await s.time.advance(100);
    expect(released.value).toBe(true);
    expect(lock.state).toEqual({ is: "released" });
  });

  it("of a lock with a lease of its own is claimed and repeated just so", async () => {
    const s = setup();
    const lock = await take(s, "a", { ttl: "10s" });
    s.server.answers.release = () => null;
    s.server.answers.revokeSessionLease = () => null;
    const released = watch(lock.release());
    await s.time.settle();
    s.server.connection.break();
    s.server.answers = {};
    await s.time.advance(100);
    expect(s.server.connection.hello).toMatchObject({ claims: [1] });
    expect(s.server.connection.commands).toMatchObject([{ release: { token: 1 } }, { revokeSessionLease: 1 }]);
    expect(released.value).toBe(true);
  });

  it("tries an unreachable server until the lease has run out, then resolves false with a warning", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.unreachable = "connect ECONNREFUSED";
    s.server.connection.break();
    const released = watch(lock.release());
    await s.time.advance(14_000);
    expect(released.settled).toBe(false);
    expect(s.server.connections.length).toBeGreaterThan(5);
    await s.time.advance(1_000);
    expect(released.value).toBe(false);
    expect(s.warnings.map((warning) => warning.message)).toEqual([
      expect.stringMatching(/could not confirm the release of the lock "a"/),
    ]);
    await s.time.advance(1_000);
    const tries = s.server.connections.length;
    await s.time.advance(60_000);
    expect(s.server.connections.length).toBe(tries);
  });

  it("of a lock with a lease of its own is tried no longer than that lease lives", async () => {
    const s = setup();
    const lock = await take(s, "a", { ttl: "2s" });
    await take(s, "b");
    s.server.unreachable = "down";
    s.server.connection.break();
    const released = watch(lock.release());
    await s.time.advance(1_800);
    expect(released.settled).toBe(false);
    await s.time.advance(200);
    expect(released.value).toBe(false);
    expect(s.warnings).toHaveLength(1);
  });

  it("is repeated under a new number when the server is overloaded", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.release = () => ({ failure: { reason: "LIMIT", message: "too much", retryAfterMs: 300 } });
    const released = watch(lock.release());
    await s.time.advance(299);
    delete s.server.answers.release;
    expect(released.settled).toBe(false);
    await s.time.advance(10);
    expect(released.value).toBe(true);
    const seqs = s.server.connection.commands.filter((command) => command.release).map((command) => command.seq);
    expect(new Set(seqs).size).toBe(2);
  });

  it("of a shared lease is tried for as long as that lease is renewed", async () => {
    const s = setup();
    const lock = await take(s);
    await take(s, "b");
    s.server.answers.release = () => ({ failure: { reason: "LIMIT", message: "too much", retryAfterMs: 1_000 } });
    const released = watch(lock.release());
    await s.time.advance(40_000);
    expect(released.settled).toBe(false);
    delete s.server.answers.release;
    await s.time.advance(1_000);
    expect(released.value).toBe(true);
    expect(s.warnings).toEqual([]);
  });

  it("goes ahead of a queue of acquires that is full", async () => {
    const s = setup();
    s.server.commandsInFlightMax = 8;
    const lock = await take(s, "a");
    s.server.answers.acquire = () => null;
    const waiting = Array.from({ length: 50 }, () => watch(s.client.acquire("a")));
    await s.time.settle();
    expect(s.server.connection.commands.length).toBe(2 + 7);
    const released = watch(lock.release());
    await s.time.settle();
    expect(released.value).toBe(true);
    expect(waiting.some((one) => one.settled)).toBe(false);
  });

  it("never makes a disposer throw", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.release = () => ({ failure: { reason: "INTERNAL", message: "boom" } });
    const disposed = lock[Symbol.asyncDispose]();
    await s.time.settle();
    await disposed;
  });
});

describe("a revocation", () => {
  it("is repeated until it is heard, or the renewals of other leases would keep its lease alive", async () => {
    const s = setup();
    await take(s, "kept");
    s.server.answers.revokeSessionLease = () => ({ failure: { reason: "LIMIT", message: "x", retryAfterMs: 1_000 } });
    const lock = await take(s, "a", { ttl: "3s" });
    const released = watch(lock.release());
    await s.time.advance(20_000);
    expect(released.value).toBe(true);
    expect(s.server.leases.size).toBe(2);
    delete s.server.answers.revokeSessionLease;
    await s.time.advance(1_000);
    expect(s.server.leases.size).toBe(1);
  });

  it("is repeated when the session resumes, however long it took", async () => {
    const s = setup();
    await take(s, "kept", { ttl: "1h" });
    const lock = await take(s, "a", { ttl: "3s" });
    s.server.answers.revokeSessionLease = () => null;
    void watch(lock.release());
    await s.time.settle();
    s.server.unreachable = "down";
    s.server.connection.break();
    await s.time.advance(10_000);
    s.server.answers = {};
    s.server.unreachable = null;
    await s.time.advance(3_000);
    expect(s.server.connection.commands).toMatchObject([{ revokeSessionLease: 3 }]);
    expect(s.server.leases.size).toBe(1);
  });

  it("that is to be repeated does not hit a lease of the next session", async () => {
    const s = setup();
    s.server.answers.revokeSessionLease = () => ({ failure: { reason: "LIMIT", message: "x", retryAfterMs: 1_000 } });
    const lock = await take(s, "a", { ttl: "3s" });
    void watch(lock.release());
    await s.time.settle();
    s.server.onHello = (connection, hello) =>
      hello.sessionId ? connection.break("UNKNOWN_SESSION", 5) : s.server.welcome(connection);
    const next = watch(s.client.acquire("b"));
    s.server.connection.break();
    await s.time.advance(300);
    s.server.answers = {};
    await s.time.advance(2_000);
    expect(next.value?.state.is).toBe("held");
    expect(s.server.connection.commands.some((command) => command.revokeSessionLease)).toBe(false);
  });
});

describe("a lease of the user's", () => {
  it("ends with all its locks", async () => {
    const s = setup();
    const made = s.client.lease({ ttl: "5s" });
    await s.time.settle();
    const lease = await made;
    expect(lease.ttlMs).toBe(5_000);
    const [a, b] = [await take(s, "a", { lease }), await take(s, "b", { lease })];
    expect(a.grant.leaseId).toBe(lease.id);
    const revoked = lease.revoke();
    expect(lease.revoke()).toBe(revoked);
    expect(a.state).toEqual({ is: "released" });
    expect(b.state).toEqual({ is: "released" });
    await s.time.settle();
    expect(await revoked).toBe(true);
    const again = watch(s.client.acquire("c", { lease }));
    await s.time.settle();
    expect(again.error).toMatchObject({ code: "LOST" });
  });

  it("that has ended is not mistaken for one of a later session", async () => {
    const s = setup();
    const made = s.client.lease();
    await s.time.settle();
    const old = await made;
    s.server.onHello = (connection, hello) =>
      hello.sessionId ? connection.break("UNKNOWN_SESSION", 5) : s.server.welcome(connection);
    s.server.connection.break();
    await s.time.advance(300);
    expect(old.state).toEqual({ is: "lost", reason: "unknown_to_server" });
    const other = await take(s, "b");
    expect(other.grant.leaseId).toBe(old.id);
    const taken = watch(s.client.acquire("a", { lease: old }));
    await s.time.settle();
    expect(taken.error).toMatchObject({ code: "LOST", lost: "unknown_to_server" });
    expect(s.server.connection.commands.filter((command) => command.acquire)).toHaveLength(1);
  });

  it("is kept alive without locks, and says when it is lost", async () => {
    const s = setup();
    const made = s.client.lease({ ttl: "3s" });
    await s.time.settle();
    const lease = await made;
    await s.time.advance(60_000);
    expect(lease.state.is).toBe("held");
    const reasons: string[] = [];
    lease.on("lost", (reason) => reasons.push(reason));
    const signal = lease.signal;
    s.server.renews = false;
    await s.time.advance(5_000);
    expect(reasons).toEqual(["expired"]);
    expect(signal.aborted).toBe(true);
    expect(await lease.revoke()).toBe(false);
    expect(s.server.leases.size).toBe(0);
  });

  it("is given up, and ended if it comes to be after all, when the server does not answer", async () => {
    const s = setup();
    s.server.answers.createLease = () => null;
    const made = watch(s.client.lease());
    await s.time.advance(5_100);
    expect(made.error).toMatchObject({ code: "UNREACHABLE" });
    expect(s.server.connection.commands.at(-1)).toMatchObject({ revokeSessionLease: 1 });
  });

  it("is refused with the server's reason", async () => {
    const s = setup();
    s.server.answers.createLease = () => ({ failure: { reason: "INVALID", message: "the TTL is too long" } });
    const made = watch(s.client.lease({ ttl: "100h" }));
    await s.time.settle();
    expect(made.error).toMatchObject({ code: "INVALID", message: "the TTL is too long" });
  });
});
