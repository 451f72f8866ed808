/** The option `fence`: the floor is raised between the grant and the holder's first step. */
import { describe, expect, it } from "vitest";
import type { Lock } from "../../src/client/lock.js";
import { type Setup, setup, watch } from "./support.js";

const releases = (s: Setup) => s.server.connections.flatMap((c) => c.commands).filter((command) => command.release);
const STALE = Object.assign(new Error("stale"), { code: "STALE_TOKEN" });

/** A storage that answers when the test says so. */
class SlowFence {
  readonly raised: { name: string; token: number; mode: string }[] = [];
  readonly #answers: { resolve: () => void; reject: (error: unknown) => void }[] = [];

  raise(lock: Lock): Promise<void> {
    this.raised.push({ name: lock.name, token: lock.token, mode: lock.mode });
    return new Promise((resolve, reject) => this.#answers.push({ resolve, reject }));
  }

  answer(error?: unknown): void {
    for (const { resolve, reject } of this.#answers.splice(0)) error === undefined ? resolve() : reject(error);
  }
}

describe("the option fence", () => {
  it("raises the floor before the callback runs", async () => {
    const s = setup();
    const fence = new SlowFence();
    let ran = false;
    const run = watch(
      s.client.withLock("a", { fence }, () => {
        ran = true;
        return "done";
      }),
    );
    await s.time.settle();
    expect(fence.raised).toEqual([{ name: "a", token: 1, mode: "exclusive" }]);
    expect(ran).toBe(false);
    fence.answer();
    await s.time.settle();
    expect(run.value).toBe("done");
    expect(releases(s)).toHaveLength(1);
  });

  it("hands out no lock, and gives it back, when the storage has seen a higher token", async () => {
    const s = setup();
    const fence = new SlowFence();
    let ran = false;
    const run = watch(
      s.client.withLock("a", { fence }, () => {
        ran = true;
      }),
    );
    await s.time.settle();
    fence.answer(STALE);
    await s.time.settle();
    expect(run.error).toBe(STALE);
    expect(ran).toBe(false);
    expect(releases(s)).toHaveLength(1);
  });

  it("looks at the hold again when the floor has been raised", async () => {
    const s = setup();
    const fence = new SlowFence();
    const lock = watch(s.client.acquire("a", { fence, maxHold: "1h" }));
    await s.time.settle();
    s.time.stall(20_000); // the process stood still while the storage answered
    fence.answer();
    await s.time.settle();
    expect(lock.error).toMatchObject({ code: "LOST" });
  });

  it("does not wait for the storage any longer than the lock is held", async () => {
    const s = setup();
    const fence = new SlowFence();
    s.server.renews = false;
    const lock = watch(s.client.acquire("a", { fence }));
    await s.time.settle();
    expect(fence.raised).toHaveLength(1);
    await s.time.advance(15_000);
    expect(lock.error).toMatchObject({ code: "LOST", lost: "expired" });
  });

  it("can be withdrawn while the storage is asked", async () => {
    const s = setup();
    const fence = new SlowFence();
    const abort = new AbortController();
    const lock = watch(s.client.acquire("a", { fence, signal: abort.signal }));
    await s.time.settle();
    const reason = new Error("enough");
    abort.abort(reason);
    await s.time.settle();
    expect(lock.error).toBe(reason);
    expect(releases(s)).toHaveLength(1);
  });

  it("is used by tries, and not when the lock is busy", async () => {
    const s = setup();
    const fence = new SlowFence();
    const attempt = watch(s.client.tryAcquire("a", { fence }));
    await s.time.settle();
    expect(attempt.settled).toBe(false);
    fence.answer();
    await s.time.settle();
    expect(attempt.value).toMatchObject({ acquired: true });

    s.server.answers.acquire = () => ({ acquire: { busy: { name: "a" } } });
    const second = watch(s.client.tryAcquire("a", { fence }));
    await s.time.settle();
    expect(second.value).toMatchObject({ acquired: false });
    expect(fence.raised).toHaveLength(1);
  });

  it("tells the fence how the lock is held", async () => {
    const s = setup();
    const fence = new SlowFence();
    const lock = watch(s.client.acquire("a", { fence, mode: "shared" }));
    await s.time.settle();
    fence.answer();
    await s.time.settle();
    expect(lock.settled).toBe(true);
    expect(fence.raised).toEqual([{ name: "a", token: 1, mode: "shared" }]);
  });

  it("raises the floors of all locks of a set, and gives all back when one is refused", async () => {
    const s = setup();
    const fence = new SlowFence();
    const set = watch(s.client.acquireAll(["a", { name: "b", mode: "shared" }], { fence }));
    await s.time.settle();
    expect(fence.raised).toEqual([
      { name: "a", token: 1, mode: "exclusive" },
      { name: "b", token: 2, mode: "shared" },
    ]);
    fence.answer(STALE);
    await s.time.settle();
    expect(set.error).toBe(STALE);
    expect(releases(s)).toHaveLength(2);
  });

  it("goes with campaigns", async () => {
    const s = setup();
    const fence = new SlowFence();
    const me = watch(s.client.campaign("a", { fence }));
    await s.time.settle();
    expect(me.settled).toBe(false);
    fence.answer();
    await s.time.settle();
    expect(me.value?.token).toBe(1);
  });

  it("that throws instead of rejecting gives the lock back as well", async () => {
    const s = setup();
    const error = new Error("broken");
    const fence = {
      raise(): Promise<void> {
        throw error;
      },
    };
    const lock = watch(s.client.acquire("a", { fence }));
    await s.time.settle();
    expect(lock.error).toBe(error);
    expect(releases(s)).toHaveLength(1);
  });

  it("that is none is refused before anything is sent", async () => {
    const s = setup();
    const fence = { lift() {} } as unknown as SlowFence;
    await expect(s.client.acquire("a", { fence })).rejects.toMatchObject({ code: "INVALID" });
    await expect(s.client.withLocks(["a"], { fence }, () => 1)).rejects.toMatchObject({ code: "INVALID" });
    expect(s.server.connections).toHaveLength(0);
  });
});
