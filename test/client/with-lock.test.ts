/** `withLock` and `tryWithLock`: whose result wins, and when. */
import { describe, expect, it } from "vitest";
import type { Lock } from "../../src/client/lock.js";
import { setup, watch } from "./support.js";

/** A promise to be settled from outside. */
function deferred<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

describe("withLock", () => {
  it("resolves with the callback's result after the release", async () => {
    const s = setup();
    s.server.answers.release = () => null;
    const ran = watch(s.client.withLock("a", (lock) => lock.token * 10));
    await s.time.settle();
    expect(ran.settled).toBe(false);
    const { seq } = s.server.connection.commands.at(-1) ?? { seq: 0 };
    s.server.connection.answer(seq, { release: {} });
    await s.time.settle();
    expect(ran.value).toBe(10);
  });

  it("rejects with the callback's error after the release", async () => {
    const s = setup();
    const boom = new Error("boom");
    const ran = watch(
      s.client.withLock("a", { wait: "1s" }, () => {
        throw boom;
      }),
    );
    await s.time.settle();
    expect(ran.error).toBe(boom);
    expect(s.server.connection.commands.at(-1)).toMatchObject({ release: { token: 1 } });
  });

  it("keeps the callback's result when the release fails", async () => {
    const s = setup();
    s.server.answers.release = () => ({ failure: { reason: "STALE_TOKEN", message: "not held" } });
    const ran = watch(s.client.withLock("a", () => "done"));
    await s.time.settle();
    expect(ran.value).toBe("done");
  });

  it("keeps the callback's result when the server cannot be reached for the release", async () => {
    const s = setup();
    const ran = watch(
      s.client.withLock("a", () => {
        s.server.unreachable = "down";
        s.server.connection.break();
        return "done";
      }),
    );
    await s.time.advance(16_000);
    expect(ran.value).toBe("done");
    expect(s.warnings).toHaveLength(1);
  });

  it("at a loss aborts the signal, waits for the callback, and rejects LOST although it succeeded", async () => {
    const s = setup();
    s.server.renews = false;
    const end = deferred<string>();
    let signal: AbortSignal | undefined;
    const ran = watch(
      s.client.withLock("a", (lock) => {
        signal = lock.signal;
        return end.promise;
      }),
    );
    await s.time.advance(15_000);
    expect(signal?.aborted).toBe(true);
    expect(ran.settled).toBe(false);
    end.resolve("written");
    await s.time.settle();
    expect(ran.error).toMatchObject({ code: "LOST", lost: "expired" });
    expect(s.server.connections.flatMap((c) => c.commands).some((command) => command.release)).toBe(false);
  });

  it("notices a loss that nothing has told of when the callback ends", async () => {
    const s = setup();
    const ran = watch(s.client.withLock("a", () => s.time.stall(22_500)));
    await s.time.settle();
    expect(ran.error).toMatchObject({ code: "LOST", lost: "expired" });
  });

  it("gives the callback's error as the cause of the loss", async () => {
    const s = setup();
    const boom = new Error("boom");
    const ran = watch(
      s.client.withLock("a", () => {
        s.time.stall(20_000);
        throw boom;
      }),
    );
    await s.time.settle();
    expect(ran.error).toMatchObject({ code: "LOST", lost: "expired", cause: boom });
  });

  it("rejects CLOSED when the client is closed under the callback", async () => {
    const s = setup();
    const end = deferred<string>();
    const ran = watch(s.client.withLock("a", () => end.promise));
    await s.time.settle();
    void s.client.close();
    await s.time.settle();
    end.resolve("x");
    await s.time.settle();
    expect(ran.error).toMatchObject({ code: "CLOSED" });
  });

  it("lets the callback release the lock itself", async () => {
    const s = setup();
    const ran = watch(s.client.withLock("a", async (lock) => lock.release()));
    await s.time.settle();
    expect(ran.value).toBe(true);
  });

  it("checks its arguments before it takes anything", async () => {
    const s = setup();
    const wrong = watch(s.client.withLock("a", { wait: "1s" } as never));
    await s.time.settle();
    expect(wrong.error).toMatchObject({
      code: "INVALID",
      message: "the last argument must be a function, not undefined",
    });
    expect(s.server.connections).toHaveLength(0);
  });
});

describe("nesting", () => {
  it("on the same name fails at once", async () => {
    const s = setup();
    const ran = watch(
      s.client.withLock("a", async () => s.client.withLock("b", () => s.client.withLock("a", () => "never"))),
    );
    await s.time.settle();
    expect(ran.error).toMatchObject({ code: "DEADLOCK" });
    expect(s.server.connection.commands.filter((command) => command.acquire)).toHaveLength(2);
  });

  it("on other names, side by side, and one after the other is fine", async () => {
    const s = setup();
    const nested = watch(s.client.withLock("a", () => s.client.withLock("b", () => "both")));
    const beside = watch(s.client.withLock("a", () => "beside"));
    await s.time.settle();
    expect(nested.value).toBe("both");
    expect(beside.value).toBe("beside");
    const again = watch(s.client.withLock("a", () => "again"));
    await s.time.settle();
    expect(again.value).toBe("again");
  });

  it("is over for what the callback leaves behind", async () => {
    const s = setup();
    const go = deferred<void>();
    let later: Promise<string> | undefined;
    const ran = watch(
      s.client.withLock("a", () => {
        later = go.promise.then(() => s.client.withLock("a", () => "later"));
      }),
    );
    await s.time.settle();
    expect(ran.settled).toBe(true);
    go.resolve();
    await s.time.settle();
    expect(await later).toBe("later");
  });

  it("of another client's lock is not this client's business", async () => {
    const [s, other] = [setup(), setup()];
    const ran = watch(s.client.withLock("a", () => other.client.withLock("a", () => "other")));
    await s.time.settle();
    await other.time.settle();
    await s.time.settle();
    expect(ran.value).toBe("other");
  });
});

describe("tryWithLock", () => {
  it("runs the callback if the lock is free", async () => {
    const s = setup();
    let lock: Lock | undefined;
    const ran = watch(
      s.client.tryWithLock("a", (held) => {
        lock = held;
        return 5;
      }),
    );
    await s.time.settle();
    expect(ran.value).toEqual({ ran: true, value: 5 });
    expect(lock?.state).toEqual({ is: "released" });
    expect(s.server.connection.commands[1]?.acquire?.waitMs).toBe(0);
  });

  it("says who holds it otherwise", async () => {
    const s = setup();
    s.server.answers.acquire = () => ({ acquire: { busy: { holders: [{ token: 3, owner: "x/1" }], waiters: 2 } } });
    const ran = watch(s.client.tryWithLock("a", {}, () => 5));
    await s.time.settle();
    expect(ran.value).toMatchObject({ ran: false, busy: { holders: [{ owner: "x/1", token: 3 }], waiters: 2 } });
  });

  it("inside of withLock for the same name finds it busy rather than a deadlock", async () => {
    const s = setup();
    const inner = { acquire: { busy: { holders: [{ token: 1, owner: "host/1" }] } } };
    const ran = watch(
      s.client.withLock("a", () => {
        s.server.answers.acquire = () => inner;
        return s.client.tryWithLock("a", () => 1);
      }),
    );
    await s.time.settle();
    expect(ran.value).toMatchObject({ ran: false });
  });
});
