/** What a holder does to its hold: handing it on, downgrading it, giving it other metadata. */
import { describe, expect, it } from "vitest";
import type { HeldLock } from "../../src/client/held-lock.js";
import { type Setup, setup, take, thrown, watch } from "./support.js";

const to = { ticketId: "T7" };
const refusal = (reason: string) => ({ failure: { reason, message: "no" } });

async function resume(s: Setup, lost: number[] = []) {
  s.server.onHello = (connection) => s.server.welcome(connection, { lost });
  s.server.connection.break();
  await s.time.advance(100);
}

describe("transfer", () => {
  it("hands the lock on: from the call on it is gone", async () => {
    const s = setup();
    const lock = await take(s);
    const { signal } = lock;
    const done = watch(lock.transfer(to));
    expect(lock.state).toEqual({ is: "released" });
    expect(thrown(() => lock.token)).toMatchObject({ code: "LOST", lost: "transferred" });
    await s.time.settle();
    expect(s.server.connection.commands.at(-1)).toMatchObject({ transfer: { name: "a", token: 1, ticketId: "T7" } });
    expect(done).toMatchObject({ settled: true });
    expect(done.error).toBeUndefined();
    expect(lock.state).toEqual({ is: "released" });
    expect(signal.aborted).toBe(false);
    expect(thrown(() => lock.token).message).toBe('the lock "a" has been handed on');
    expect(await lock.release()).toBe(false);
    expect(s.client.session.holdings.locks.size).toBe(0);
  });

  it("ends the lease that was made for the lock", async () => {
    const s = setup();
    const lock = await take(s, "a", { ttl: "5s" });
    void lock.transfer(to);
    await s.time.settle();
    expect(s.server.leases.size).toBe(0);
  });

  it.each(["NOT_WAITING", "INVALID", "LIMIT", "STORE_DOWN"])("refused with %s leaves the lock held", async (reason) => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.transfer = () => refusal(reason);
    const done = watch(lock.transfer(to));
    await s.time.settle();
    expect(done.error).toMatchObject({ code: reason });
    expect(lock.state.is).toBe("held");
    expect(lock.token).toBe(1);
  });

  it("is not taken back on a guess while the stream is down; its resend tells", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.transfer = () => null;
    const done = watch(lock.transfer(to));
    await s.time.settle();
    s.server.connection.break();
    await s.time.settle();
    expect(lock.state).toEqual({ is: "released" });
    expect(done.settled).toBe(false);
    s.server.answers.transfer = () => refusal("NOT_WAITING");
    await s.time.advance(100);
    expect(s.server.connection.hello).toMatchObject({ claims: [1], outstanding: [3] });
    expect(done.error).toMatchObject({ code: "NOT_WAITING" });
    expect(lock.state.is).toBe("held");
  });

  it("that had been carried out before the stream broke is no loss", async () => {
    const s = setup();
    const lock = await take(s);
    const reasons: string[] = [];
    lock.on("lost", (reason) => reasons.push(reason));
    s.server.answers.transfer = () => null;
    const done = watch(lock.transfer(to));
    await s.time.settle();
    delete s.server.answers.transfer;
    await resume(s, [1]);
    expect(done.settled).toBe(true);
    expect(done).not.toHaveProperty("error");
    expect(lock.state).toEqual({ is: "released" });
    expect(reasons).toEqual([]);
  });

  it("that was refused does not revive a lock that was lost in the meantime", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.transfer = () => null;
    const done = watch(lock.transfer(to));
    await s.time.settle();
    s.server.answers.transfer = () => refusal("NOT_WAITING");
    await resume(s, [1]);
    expect(done.error).toMatchObject({ code: "NOT_WAITING" });
    expect(lock.state).toEqual({ is: "lost", reason: "unknown_to_server" });
  });

  it("of a lock that is taken away just then is refused, and the lock lost for that reason", async () => {
    const s = setup();
    const lock = await take(s);
    const { signal } = lock;
    s.server.answers.transfer = () => null;
    const done = watch(lock.transfer(to));
    await s.time.settle();
    const { seq } = s.server.connection.commands.at(-1) ?? { seq: 0 };
    const holdEnds = [{ token: 1, reason: 3, confirm: true, message: "moved" }];
    s.server.connection.push({ holdEnds, results: [{ seq, ...refusal("STALE_TOKEN") }] });
    await s.time.settle();
    expect(done.error).toMatchObject({ code: "LOST", lost: "forced" });
    expect(signal.reason).toMatchObject({ lost: "forced" });
    // The server waits for the holder.
    expect(await releaseOf(s, lock)).toBe(false);
    expect(s.server.connection.commands.at(-1)).toMatchObject({ release: { token: 1 } });
  });

  it("with a stale token is a loss", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.transfer = () => refusal("STALE_TOKEN");
    const done = watch(lock.transfer(to));
    await s.time.settle();
    expect(done.error).toMatchObject({ code: "LOST", lost: "unknown_to_server" });
    expect(lock.state).toEqual({ is: "lost", reason: "unknown_to_server" });
  });

  it("whose outcome nobody knows gives the lock up", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.transfer = () => refusal("INTERNAL");
    const done = watch(lock.transfer(to));
    await s.time.settle();
    expect(done.error).toMatchObject({ code: "OUTCOME_UNKNOWN", cause: { code: "INTERNAL" } });
    expect(lock.state).toEqual({ is: "released" });
    expect(s.server.connection.commands.at(-1)).toMatchObject({ release: { name: "a", token: 1 } });
  });

  it("that nobody answers before the lease is over is unknown, and the lock lost", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.unreachable = "down";
    s.server.connection.break();
    const done = watch(lock.transfer(to));
    await s.time.advance(14_000);
    expect(done.settled).toBe(false);
    await s.time.advance(1_000);
    expect(done.error).toMatchObject({ code: "OUTCOME_UNKNOWN" });
    expect(lock.state).toEqual({ is: "lost", reason: "expired" });
  });

  it("followed by a release before its answer releases what it did not hand on", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.transfer = () => refusal("NOT_WAITING");
    const done = watch(lock.transfer(to));
    const released = watch(lock.release());
    await s.time.settle();
    expect(done.error).toMatchObject({ code: "NOT_WAITING" });
    expect(released.value).toBe(true);
    expect(lock.state).toEqual({ is: "released" });
  });

  it("in a callback is no loss", async () => {
    const s = setup();
    const ran = watch(
      s.client.withLock("a", async (lock) => {
        await lock.transfer(to);
        return "handed on";
      }),
    );
    await s.time.settle();
    expect(ran.value).toBe("handed on");
  });

  it("of a lost lock, and to nobody, are refused here", async () => {
    const s = setup();
    const lock = await take(s);
    await expect(lock.transfer({ ticketId: "" })).rejects.toMatchObject({ code: "INVALID" });
    await expect(lock.transfer({} as never)).rejects.toMatchObject({ code: "INVALID" });
    s.time.stall(20_000);
    await expect(lock.transfer(to)).rejects.toMatchObject({ code: "LOST", lost: "expired" });
  });
});

const releaseOf = async (s: Setup, lock: HeldLock) => {
  const released = lock.release();
  await s.time.settle();
  return released;
};

describe("downgrade", () => {
  it("makes it shared from the call on, and is asked for once", async () => {
    const s = setup();
    const lock = await take(s);
    const done = watch(Promise.all([lock.downgrade(), lock.downgrade()]));
    expect(lock.mode).toBe("shared");
    expect(lock.token).toBe(1);
    await s.time.settle();
    expect(done.settled).toBe(true);
    expect(done).not.toHaveProperty("error");
    await lock.downgrade();
    expect(s.server.connection.commands.filter((command) => command.downgrade)).toHaveLength(1);
  });

  it("is exclusive again only after a refusal", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.downgrade = () => null;
    const done = watch(lock.downgrade());
    await s.time.settle();
    s.server.connection.break();
    await s.time.settle();
    expect(lock.mode).toBe("shared");
    s.server.answers.downgrade = () => refusal("LIMIT");
    await s.time.advance(100);
    expect(done.error).toMatchObject({ code: "LIMIT", retryable: true });
    expect(lock.mode).toBe("exclusive");
    delete s.server.answers.downgrade;
    void lock.downgrade();
    await s.time.settle();
    expect(lock.mode).toBe("shared");
  });

  it("stays shared when nobody knows", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.downgrade = () => refusal("INTERNAL");
    const done = watch(lock.downgrade());
    await s.time.settle();
    expect(done.error).toMatchObject({ code: "OUTCOME_UNKNOWN" });
    expect(lock.mode).toBe("shared");
    expect(lock.state.is).toBe("held");
  });

  it("of a shared lock does nothing, of a semaphore is wrong, of a lost one is late", async () => {
    const s = setup();
    const shared = await take(s, "a", { mode: "shared" });
    await shared.downgrade();
    const permits = await take(s, "b", { permits: { of: 2 } });
    await expect(permits.downgrade()).rejects.toMatchObject({ code: "INVALID" });
    s.time.stall(20_000);
    await expect(shared.downgrade()).rejects.toMatchObject({ code: "LOST" });
    expect(s.server.connection.commands.some((command) => command.downgrade)).toBe(false);
  });

  it("ends with the lease", async () => {
    const s = setup();
    const lock = await take(s);
    s.server.answers.downgrade = () => null;
    const done = watch(lock.downgrade());
    s.server.renews = false;
    await s.time.advance(15_000);
    expect(done.error).toMatchObject({ code: "LOST", lost: "expired" });
  });
});

describe("setMetadata", () => {
  it("sends a copy, and the lock stays held", async () => {
    const s = setup();
    const lock = await take(s);
    const value = Buffer.from("one");
    const done = watch(lock.setMetadata(value));
    value.fill(0);
    await s.time.settle();
    expect(done.settled).toBe(true);
    expect(done).not.toHaveProperty("error");
    expect(s.server.connection.commands.at(-1)?.setMetadata).toMatchObject({
      ...{ name: "a", token: 1, metadata: Buffer.from("one") },
    });
    await expect(lock.setMetadata("x".repeat(4_097))).rejects.toMatchObject({ code: "INVALID" });
    expect(lock.state.is).toBe("held");
  });

  it("with a stale token is a loss; with a refusal it is not", async () => {
    const s = setup();
    const [a, b] = [await take(s, "a"), await take(s, "b")];
    s.server.answers.setMetadata = ({ setMetadata }) => refusal(setMetadata?.name === "a" ? "STALE_TOKEN" : "LIMIT");
    const [first, second] = [watch(a.setMetadata("x")), watch(b.setMetadata("x"))];
    await s.time.settle();
    expect(first.error).toMatchObject({ code: "LOST" });
    expect(a.state.is).toBe("lost");
    expect(second.error).toMatchObject({ code: "LIMIT" });
    expect(b.state.is).toBe("held");
  });
});
