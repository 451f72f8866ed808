import { describe, expect, it } from "vitest";
import { type HistoryEvent, LeaseholdError, type Lock, recordHistory } from "../../src/client/index.js";
import { parseEvent } from "../../src/verify/event.js";
import { setup } from "../client/support.js";
import { lines, violationsOf } from "./support.js";

/** A recorded client of a scripted server, and what it recorded. */
function recorded() {
  const s = setup();
  const events: HistoryEvent[] = [];
  let ns = 0;
  const client = recordHistory(s.client, (event) => events.push(event), { process: "p", nowNs: () => ++ns });
  const kinds = () => events.map(({ op, type }) => `${op} ${type}`);
  /** Lets the server answer. */
  async function done<T>(promise: Promise<T>): Promise<T> {
    promise.catch(() => undefined);
    await s.time.settle();
    return promise;
  }
  return { ...s, plain: s.client, client, events, kinds, done };
}

describe("what is recorded", () => {
  it("are calls and results, and looks at the moment before them", async () => {
    const { client, events, done } = recorded();
    const lock = await done(client.acquire("a", { permits: { of: 3, take: 2 } }));
    expect(lock.token).toBe(1);
    expect(await done(lock.release())).toBe(true);
    expect(events).toEqual([
      {
        ...{ process: "p", ns: 1, id: 1, op: "acquire", type: "invoke" },
        locks: [{ name: "a", mode: "semaphore", permits: 2, limit: 3 }],
      },
      { process: "p", ns: 2, id: 1, op: "acquire", type: "ok", grants: [{ token: 1, timestamp: 101 }] },
      { process: "p", ns: 3, id: 2, op: "refresh", type: "ok", name: "a", token: 1 },
      { process: "p", ns: 4, id: 3, op: "refresh", type: "ok", name: "a", token: 1 },
      { process: "p", ns: 5, id: 4, op: "release", type: "invoke", name: "a", token: 1 },
      { process: "p", ns: 6, id: 4, op: "release", type: "ok" },
    ]);
  });

  it.each<readonly [string, (r: ReturnType<typeof recorded>) => Promise<unknown>, string]>([
    ["withLock", ({ client }) => client.withLock("a", async () => 1), "refresh ok, release invoke, release ok"],
    ["tryWithLock", ({ client }) => client.tryWithLock("a", async () => 1), "refresh ok, release invoke, release ok"],
    [
      "withLocks",
      ({ client }) => client.withLocks(["a", { name: "b", mode: "shared" }], async (set) => set.get("b").token),
      "refresh ok, refresh ok, release invoke, refresh ok, release invoke, release ok, release ok",
    ],
    [
      "acquireAll",
      async ({ client }) => (await client.acquireAll(["a", "b"])).release(),
      "refresh ok, release invoke, refresh ok, release invoke, release ok, release ok",
    ],
    ["campaign", async ({ client }) => (await client.campaign("a")).resign(), "refresh ok, release invoke, release ok"],
    [
      "transfer",
      async ({ client }) => (await client.acquire("a")).transfer({ ticketId: "t" }),
      "transfer invoke, transfer ok",
    ],
    ["downgrade", async ({ client }) => (await client.acquire("a")).downgrade(), "downgrade invoke, downgrade ok"],
    [
      "await using",
      async ({ client }) => (await client.acquire("a"))[Symbol.asyncDispose](),
      "refresh ok, release invoke, release ok",
    ],
    [
      "lead",
      ({ client }) => client.lead("a", async (term) => term.assertHeld()),
      "refresh ok, refresh ok, release invoke, acquire invoke, acquire unknown",
    ],
  ])("of %s", async (_, act, expected) => {
    const r = recorded();
    await r.done(act(r));
    expect(r.kinds().join(", ")).toBe(`acquire invoke, acquire ok, ${expected}`);
    expect(await violationsOf(r.events)).toEqual([]);
  });

  it("are timestamps and writes", async () => {
    const { client, kinds, done } = recorded();
    client.clock.tick();
    await done(client.clock.range(3));
    expect(await done(client.recordWrite("r", 5, async () => true))).toBe(true);
    expect(await done(client.recordWrite("r", 4, async () => false))).toBe(false);
    await expect(done(client.recordWrite("r", 4, () => Promise.reject(new Error("gone"))))).rejects.toThrow("gone");
    const write = (result: string) => ["write invoke", `write ${result}`];
    const writes = [...write("ok"), ...write("fail"), ...write("unknown")];
    expect(kinds()).toEqual(["tick ok", "range invoke", "range ok", ...writes]);
  });

  it("is that a lock is busy, and what may have been granted after all", async () => {
    const { client, server, events, done } = recorded();
    server.answers.acquire = () => ({ acquire: { busy: { waiters: 1 } } });
    expect(await done(client.tryAcquire("a"))).toMatchObject({ acquired: false });
    expect(await done(client.tryWithLock("a", async () => 1))).toMatchObject({ ran: false });
    await expect(done(client.acquire("a"))).rejects.toMatchObject({ code: "BUSY" });
    server.answers.acquire = () => null;
    const abort = new AbortController();
    const waiting = client.withLock("a", { signal: abort.signal }, async () => 1);
    abort.abort(new Error("no more"));
    await expect(done(waiting)).rejects.toThrow("no more");
    const results = events.filter(({ type }) => type !== "invoke");
    expect(results.map(({ type }) => type)).toEqual(["fail", "fail", "fail", "unknown"]);
  });
});

describe("the recorded client", () => {
  it("loses locks like the client", async () => {
    const { client, time, kinds, done } = recorded();
    let inside: unknown;
    const running = client.withLock("a", async (lock) => {
      time.stall(16_000);
      inside = await Promise.resolve()
        .then(() => lock.token)
        .catch((error: unknown) => error);
      return 1;
    });
    await expect(done(running)).rejects.toMatchObject({ code: "LOST" });
    expect(LeaseholdError.is(inside, "LOST")).toBe(true);
    expect(kinds().slice(2)).toEqual(["refresh fail", "refresh fail", "release invoke", "release unknown"]);
  });

  it("keeps a lock whose transfer was refused", async () => {
    const { client, server, kinds, done, events } = recorded();
    server.answers.transfer = () => ({ failure: { reason: "NOT_WAITING", message: "nobody there" } });
    const lock = await done(client.acquire("a"));
    await expect(done(lock.transfer({ ticketId: "t" }))).rejects.toMatchObject({ code: "NOT_WAITING" });
    expect(lock.token).toBe(1);
    expect(kinds().slice(2)).toEqual(["transfer invoke", "transfer fail", "refresh ok"]);
    expect(await violationsOf(events)).toEqual([]);
  });

  it("passes values and errors through, and takes its own locks where the client takes locks", async () => {
    const { client, plain, done } = recorded();
    expect(await done(client.withLock("a", async (lock) => lock.name))).toBe("a");
    const failing = client.withLock("a", {}, () => {
      throw new Error("mine");
    });
    await expect(done(failing)).rejects.toThrow("mine");
    const a = await done(client.acquire("a"));
    const b = await done(client.acquire("b", { holding: [a] }));
    expect([a.state.is, b.mode, a.grant.token]).toEqual(["held", "exclusive", 3]);
    expect(a.release()).toBe(a.release());
    expect(client.clock.now()).toBe(plain.clock.now());
    await done(client.close());
    await expect(done(client.acquire("a"))).rejects.toMatchObject({ code: "CLOSED" });
  });

  it.each<readonly [string, (client: ReturnType<typeof recorded>["client"]) => Promise<unknown>]>([
    ["a name", (client) => client.acquire(5 as never)],
    ["no name", (client) => client.acquire("")],
    ["a mode", (client) => client.acquire("a", { mode: "odd" as never })],
    ["permits", (client) => client.acquire("a", { permits: { of: 0, take: -1 } })],
    ["names", (client) => client.acquireAll("a" as never)],
    ["options", (client) => client.acquire("a", { wiat: 3 } as never)],
    ["what it keeps", (client) => client.acquire("a", { holding: [{} as Lock] })],
    ["a callback", (client) => client.withLock("a", {}, 5 as never)],
    ["a count", (client) => client.clock.range(0)],
  ])("refuses %s that is wrong, and its history stays readable", async (_, act) => {
    const { client, events, done } = recorded();
    await expect(done(act(client))).rejects.toMatchObject({ code: "INVALID" });
    for (const line of lines(events).split("\n").slice(0, -1)) expect(parseEvent(line)).toBeTypeOf("object");
  });
});
