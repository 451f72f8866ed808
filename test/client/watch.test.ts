/** Watching: what the events say, where a watch continues, how it ends, and how much it keeps. */
import { describe, expect, it } from "vitest";
import type { WatchEvent, WatchOptions, WatchTarget } from "../../src/client/index.js";
import { v1 } from "../../src/client/wire/index.js";
import { type Setup, setup, take, thrown, watch } from "./support.js";
import { holder, say } from "./watch-support.js";

const { RESET_REASON_LAGGED, RESET_REASON_FORGOTTEN } = v1.ResetReason;
const Kind = v1.WatchEventKind;

/** A loop over a watch, and all that it has seen. */
function follow(s: Setup, target: WatchTarget = { prefix: "" }, options?: WatchOptions) {
  const seen: WatchEvent[] = [];
  const loop = async () => {
    for await (const event of s.client.watch(target, options)) seen.push(event);
  };
  return { seen, ended: watch(loop()) };
}

const positions = (events: readonly WatchEvent[]) => events.map((event) => event.position);

describe("the events", () => {
  it("are told with what belongs to them", async () => {
    const s = setup();
    const { seen } = follow(s);
    const waiter = { ticketId: "t9", position: 1, owner: "w", waitedMs: 5, attached: true };
    s.server.onWatch = (stream) => {
      stream.push([say.reset(10), say.state(10, "a", [holder(3, "v")]), say.synced(10)]);
      stream.push([
        { kind: Kind.WATCH_EVENT_KIND_QUEUED, timestamp: 11, name: "a", waiters: [waiter] },
        { kind: Kind.WATCH_EVENT_KIND_DEQUEUED, timestamp: 12, name: "a", waiters: [waiter] },
        { ...say.granted(13, "b", 4), ticketId: "t8" },
        say.ended(14, "b", 4),
        say.ended(15, "b", 5, Kind.WATCH_EVENT_KIND_EXPIRED),
        say.ended(16, "b", 6, Kind.WATCH_EVENT_KIND_REVOKED),
        { ...say.ended(17, "b", 7, Kind.WATCH_EVENT_KIND_FORCED), message: "why" },
        say.ended(18, "b", 8, Kind.WATCH_EVENT_KIND_MAX_HOLD),
        say.transferred(19, "b", 8, 9),
        { ...say.updated(20, "b", 9, "x"), kind: Kind.WATCH_EVENT_KIND_DOWNGRADED },
        say.updated(21, "b", 9, "y"),
        { ...say.updated(22, "b", 9, "y"), kind: Kind.WATCH_EVENT_KIND_REVOKING, message: "because" },
        { kind: 99 as typeof Kind.WATCH_EVENT_KIND_QUEUED, timestamp: 23, name: "from a later version" },
      ]);
    };
    await s.time.settle();
    expect(s.server.watch.request).toMatchObject({ prefix: "", after: 0, fromNow: false });
    expect(seen.map((event) => event.type)).toEqual([
      ...["reset", "state", "synced", "queued", "dequeued", "granted", "released", "expired", "revoked", "forced"],
      ...["max_hold", "transferred", "downgraded", "updated", "revoking"],
    ]);
    expect(seen[0]).toMatchObject({ reason: "start", timestamp: 10 });
    expect(seen[1]).toMatchObject({
      name: "a",
      holders: [{ token: 3, owner: "owner-3" }],
      holdersTotal: 1,
      waiters: [],
    });
    expect(seen[3]).toMatchObject({ name: "a", waiter });
    expect(seen[5]).toMatchObject({ name: "b", holder: { token: 4 }, ticketId: "t8" });
    expect(seen[6]).toMatchObject({ token: 4, message: "" });
    expect(seen[9]).toMatchObject({ token: 7, message: "why" });
    expect(seen[11]).toMatchObject({ holder: { token: 9 }, previousToken: 8, ticketId: "t" });
    expect(seen[14]).toMatchObject({ holder: { token: 9 }, message: "because" });
    expect(s.client.clock.now()).toBe(23);
  });

  it("carry the position behind which nothing is missed", async () => {
    const s = setup();
    const { seen } = follow(s);
    s.server.onWatch = (stream) => {
      stream.push([say.reset(10), say.state(10, "a", [])], 10);
      stream.push([say.state(12, "c", []), say.granted(13, "a", 1), say.synced(14), say.granted(15, "x", 2)], 17);
      stream.push([say.ended(20, "a", 1), say.granted(21, "b", 3), say.granted(21, "c", 4), say.ended(22, "x", 2)], 30);
    };
    await s.time.settle();
    expect(positions(seen)).toEqual([0, 0, 0, 0, 14, 17, 20, 20, 21, 30]);
  });
});

describe("after a broken connection", () => {
  it("continues behind what has arrived", async () => {
    const s = setup();
    const { seen } = follow(s, { name: "a" });
    await s.time.settle();
    s.server.watch.push([say.reset(10), say.synced(10)]);
    s.server.watch.push([say.granted(11, "a", 1)], 15);
    s.server.watch.break();
    await s.time.advance(100);
    expect(s.server.watches).toHaveLength(2);
    expect(s.server.watch.request).toMatchObject({ name: "a", after: 15, fromNow: false });
    s.server.watch.push([], 16);
    s.server.watch.push([say.ended(18, "a", 1)]);
    s.server.watch.break();
    await s.time.advance(100);
    expect(s.server.watch.request).toMatchObject({ after: 18 });
    expect(seen.map((event) => event.type)).toEqual(["reset", "synced", "granted", "released"]);
  });

  it("begins anew when it broke in the midst of the state", async () => {
    const s = setup();
    const { seen } = follow(s, { prefix: "" }, { after: 5 });
    await s.time.settle();
    expect(s.server.watch.request).toMatchObject({ after: 5 });
    s.server.watch.push([say.reset(10, RESET_REASON_FORGOTTEN), say.state(10, "a", [holder(1)])]);
    s.server.watch.break();
    await s.time.advance(100);
    expect(s.server.watch.request).toMatchObject({ after: 0, fromNow: false });
    s.server.watch.push([say.reset(12), say.synced(12)]);
    await s.time.settle();
    expect(seen).toMatchObject([
      { type: "reset", reason: "forgotten", position: 0 },
      { type: "state", position: 0 },
      { type: "reset", reason: "start", position: 0 },
      { type: "synced", position: 12 },
    ]);
  });

  it("from now on means from the first answer on", async () => {
    const s = setup();
    const { seen } = follow(s, { prefix: "" }, { fromNow: true });
    await s.time.settle();
    s.server.watch.break();
    await s.time.advance(100);
    expect(s.server.watch.request).toMatchObject({ after: 0, fromNow: true });
    s.server.watch.push([], 7);
    s.server.watch.break();
    await s.time.advance(100);
    expect(s.server.watch.request).toMatchObject({ after: 7, fromNow: false });
    s.server.watch.push([say.granted(9, "a", 1)]);
    await s.time.settle();
    expect(seen).toMatchObject([{ type: "granted", position: 9 }]);
  });

  it("tries all addresses in turn, for as long as it takes, also when the server has no place", async () => {
    const s = setup();
    s.server.addresses = [
      { text: "one:1", local: false },
      { text: "two:2", local: false },
    ];
    const { seen, ended } = follow(s);
    await s.time.settle();
    s.server.watch.push([say.reset(10), say.synced(10)]);
    s.server.onWatch = (stream) => stream.break("LIMIT", 8, "too many watchers");
    s.server.watch.break();
    await s.time.advance(60_000);
    expect(ended.settled).toBe(false);
    expect(new Set(s.server.watches.map((stream) => stream.index))).toEqual(new Set([0, 1]));
    expect(s.server.watches.length).toBeGreaterThan(20);
    s.server.onWatch = (stream) => stream.push([say.granted(11, "a", 1)]);
    await s.time.advance(2_000);
    expect(seen.at(-1)).toMatchObject({ type: "granted" });
  });

  it("and a message that is none", async () => {
    const s = setup();
    const { ended } = follow(s);
    await s.time.settle();
    s.server.watch.push([], 10);
    const first = s.server.watch;
    first.pushRaw(Buffer.from([0xff, 0xff]));
    expect(first.open).toBe(false);
    await s.time.advance(100);
    expect(s.server.watches).toHaveLength(2);
    expect(ended.settled).toBe(false);
  });

  it("tells of events that were missed", async () => {
    const s = setup();
    const { seen } = follow(s);
    await s.time.settle();
    s.server.watch.push([say.reset(10), say.synced(10), say.granted(11, "a", 1)]);
    s.server.watch.push([say.reset(50, RESET_REASON_LAGGED), say.state(50, "a", [holder(9)]), say.synced(50)]);
    await s.time.settle();
    expect(seen.slice(3)).toMatchObject([
      { type: "reset", reason: "lagged", position: 0 },
      { type: "state", position: 0 },
      { type: "synced", position: 50 },
    ]);
  });
});

describe("a slow loop", () => {
  it("holds up the stream, and gets everything in the end", async () => {
    const s = setup();
    const events = s.client.watch({ prefix: "" })[Symbol.asyncIterator]();
    const first = events.next();
    await s.time.settle();
    let sent = 0;
    for (; !s.server.watch.paused; sent += 100) {
      expect(sent).toBeLessThan(1_000);
      s.server.watch.push(Array.from({ length: 100 }, (_, i) => say.granted(sent + i + 1, "a", sent + i + 1)));
    }
    expect((await first).value).toMatchObject({ timestamp: 1 });
    for (let i = 2; i <= sent; i++) expect((await events.next()).value).toMatchObject({ timestamp: i });
    expect(s.server.watch.paused).toBe(false);
  });

  it("holds up the next stream as well", async () => {
    const s = setup();
    const events = s.client.watch({ prefix: "" })[Symbol.asyncIterator]();
    void events.next();
    await s.time.settle();
    s.server.watch.push(Array.from({ length: 500 }, (_, i) => say.granted(i + 1, "a", i + 1)));
    s.server.watch.break();
    await s.time.advance(100);
    expect(s.server.watches).toHaveLength(2);
    expect(s.server.watch.paused).toBe(true);
  });
});

describe("the end", () => {
  it("comes when the loop is left", async () => {
    const s = setup();
    const loop = async () => {
      for await (const event of s.client.watch({ prefix: "" })) if (event.type === "synced") break;
    };
    const ended = watch(loop());
    await s.time.settle();
    s.server.watch.push([say.reset(1), say.synced(1), say.granted(2, "a", 1)]);
    await s.time.settle();
    expect(ended).toMatchObject({ settled: true });
    expect(s.server.watch.open).toBe(false);
    expect(s.time.timers).toBe(0);
  });

  it("is for those as well who wait for an event", async () => {
    const s = setup();
    const events = s.client.watch({ prefix: "" })[Symbol.asyncIterator]();
    const waiting = watch(events.next());
    await s.time.settle();
    expect(await events.return?.()).toEqual({ done: true, value: undefined });
    await s.time.settle();
    expect(waiting.value).toEqual({ done: true, value: undefined });
    expect(await events.next()).toEqual({ done: true, value: undefined });
    expect(s.server.watches).toHaveLength(1);
  });

  it("by the signal is a rejection with its reason", async () => {
    const s = setup();
    const stop = new AbortController();
    const { ended } = follow(s, { prefix: "" }, { signal: stop.signal });
    await s.time.settle();
    s.server.watch.push([], 1);
    const reason = new Error("enough");
    stop.abort(reason);
    await s.time.settle();
    expect(ended.error).toBe(reason);
    expect(s.server.watch.open).toBe(false);
    expect(s.time.timers).toBe(0);
    const late = follow(s, { prefix: "" }, { signal: stop.signal });
    await s.time.settle();
    expect(late.ended.error).toBe(reason);
    expect(s.server.watches).toHaveLength(1);
  });

  it("by the signal is told once, and what was not read is dropped", async () => {
    const s = setup();
    const stop = new AbortController();
    const events = s.client.watch({ prefix: "" }, { signal: stop.signal })[Symbol.asyncIterator]();
    const first = events.next();
    await s.time.settle();
    s.server.watch.push([say.reset(1), say.synced(1), say.granted(2, "a", 1)]);
    await first;
    stop.abort();
    await expect(events.next()).rejects.toBe(stop.signal.reason);
    expect(await events.next()).toMatchObject({ done: true });
  });

  it("comes with the end of the client", async () => {
    const s = setup();
    const { ended } = follow(s);
    await s.time.settle();
    await s.client.close();
    expect(ended.error).toMatchObject({ code: "CLOSED" });
    expect(s.server.watch.open).toBe(false);
    const late = follow(s);
    await s.time.settle();
    expect(late.ended.error).toMatchObject({ code: "CLOSED" });
    expect(s.time.timers).toBe(0);
  });

  it("comes at once when the server refuses", async () => {
    for (const [reason, status] of [
      ["INVALID", 3],
      ["LIMIT", 8],
      ["DENIED", 7],
    ] as const) {
      const s = setup();
      s.server.onWatch = (stream) => stream.break(reason, status, "no");
      const { ended } = follow(s);
      await s.time.settle();
      expect(ended.error).toMatchObject({ code: reason, message: "no" });
      expect(s.server.watches).toHaveLength(1);
      expect(s.time.timers).toBe(0);
    }
  });

  it("by a refusal comes behind what had arrived", async () => {
    const s = setup();
    const events = s.client.watch({ prefix: "" })[Symbol.asyncIterator]();
    const first = events.next();
    await s.time.settle();
    s.server.watch.push([say.reset(1), say.synced(1)]);
    s.server.watch.break("DENIED", 7, "not any more");
    expect((await first).value).toMatchObject({ type: "reset" });
    expect((await events.next()).value).toMatchObject({ type: "synced" });
    await expect(events.next()).rejects.toMatchObject({ code: "DENIED" });
  });

  it("comes when no server answers in time, at the beginning only", async () => {
    const s = setup();
    s.server.addresses = [{ text: "localhost:7420", local: true }];
    s.server.unreachable = "connect ECONNREFUSED 127.0.0.1:7420";
    const { ended } = follow(s);
    await s.time.advance(4_900);
    expect(ended.settled).toBe(false);
    await s.time.advance(200);
    expect(ended.error).toMatchObject({
      code: "UNREACHABLE",
      message: "cannot reach localhost:7420 (ECONNREFUSED). Start one: npx leasehold serve",
    });
    expect(s.time.timers).toBe(0);
  });

  it("comes when a server is there but says nothing", async () => {
    const s = setup();
    const { ended } = follow(s);
    await s.time.advance(5_100);
    expect(ended.error).toMatchObject({ code: "UNREACHABLE" });
    expect(s.server.watch.open).toBe(false);
  });
});

describe("a watch", () => {
  it("does nothing before it is asked for the first event", async () => {
    const s = setup();
    s.client.watch({ prefix: "" });
    await s.time.advance(10_000);
    expect(s.server.watches).toHaveLength(0);
    expect(s.time.timers).toBe(0);
  });

  it("has a connection of its own, which the idleness of the session does not end", async () => {
    const s = setup();
    const { ended } = follow(s);
    await s.time.settle();
    s.server.watch.push([say.reset(1), say.synced(1)]);
    void (await take(s)).release();
    await s.time.advance(10_000);
    expect(s.server.connection.open).toBe(false);
    expect(s.server.watch.open).toBe(true);
    expect(ended.settled).toBe(false);
  });

  it("refuses what makes no sense", () => {
    const { client } = setup();
    for (const wrong of [
      () => client.watch({} as WatchTarget),
      () => client.watch({ name: "a", prefix: "b" } as WatchTarget),
      () => client.watch({ name: "" }),
      () => client.watch({ prefix: "\n" }),
      () => client.watch({ nam: "a" } as unknown as WatchTarget),
      () => client.watch({ name: "a" }, { after: -1 }),
      () => client.watch({ name: "a" }, { form: 1 } as WatchOptions),
      () => client.watch({ name: "a" }, { signal: {} as AbortSignal }),
      () => client.observe(""),
    ]) {
      expect(thrown(wrong).code).toBe("INVALID");
    }
  });
});
