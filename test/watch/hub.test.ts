import { describe, expect, test } from "vitest";
import { isEvent } from "../../src/server/watch/entry.js";
import { Reader } from "./reader.js";
import { Store } from "./store.js";

const all = { kind: "prefix", prefix: "" } as const;

/** A store with these locks held, all of it told to a hub that keeps its history: there was a watcher. */
function storeWith(names: readonly string[], limits = {}): Store {
  const store = new Store(limits);
  new Reader(store, { kind: "name", name: "nothing" }).watch().close();
  store.commit();
  store.commands.length = 0;
  for (const name of names) store.grant(name);
  store.commit();
  return store;
}

describe("a watch begins", () => {
  test("with RESET, the state and SYNCED; its position is 0 until then", () => {
    const store = storeWith(["a", "b"]);
    const reader = new Reader(store).watch();
    expect(reader.lines).toEqual(["RESET(start) @0"]);
    store.settle();
    expect(reader.lines[1]).toBe(`a=[1] b=[2] SYNCED @${store.timestamp}`);
    store.end("a", 1);
    store.queue("c");
    expect(reader.lines.length).toBe(2); // not durable
    store.commit();
    expect(reader.lines[2]).toBe(`a-1 c+T1 @${store.timestamp}`);
  });

  test("with nothing but its position when it wants no state", () => {
    const store = storeWith(["a"]);
    const reader = new Reader(store).watch({ fromNow: true });
    expect(reader.lines).toEqual([]); // only a server that leads may say anything
    store.commit();
    expect(reader.lines).toEqual([`@${store.timestamp}`]);
    store.grant("b");
    store.commit();
    expect(reader.lines[1]).toBe(`b+2 @${store.timestamp}`);
  });

  test("by name: others that begin with the name are none of its business", () => {
    const store = storeWith(["a", "a/b", "b"]);
    const reader = new Reader(store, { kind: "name", name: "a" }).watch();
    const absent = new Reader(store, { kind: "name", name: "a/" }).watch();
    store.settle();
    expect(reader.lines[1]).toBe(`a=[1] SYNCED @${store.timestamp}`);
    expect(absent.lines[1]).toBe(`SYNCED @${store.timestamp}`);
    store.queue("a/b");
    store.queue("a");
    store.commit();
    expect(reader.lines.slice(2)).toEqual([`a+T2 @${store.timestamp}`]);
    expect(absent.lines.length).toBe(2);
  });

  test("by prefix", () => {
    const store = storeWith(["a", "a/b", "ab", "b"]);
    const slash = new Reader(store, { kind: "prefix", prefix: "a/" }).watch();
    const a = new Reader(store, { kind: "prefix", prefix: "a" }).watch();
    store.settle();
    expect(slash.lines[1]).toMatch(/^a\/b=\[2\] SYNCED/);
    expect(a.lines[1]).toMatch(/^a=\[1\] a\/b=\[2\] ab=\[3\] SYNCED/);
    for (const name of ["a", "a/b", "ab", "b"]) store.queue(name);
    store.commit();
    expect(slash.lines[2]).toMatch(/^a\/b\+T2 @/);
    expect(a.lines[2]).toMatch(/^a\+T1 a\/b\+T2 ab\+T3 @/);
  });
});

describe("a watch goes on behind a position", () => {
  test("with what has happened since, and no RESET", () => {
    const store = storeWith(["a"]);
    const position = store.timestamp;
    store.grant("b");
    store.queue("a");
    store.commit();
    const reader = new Reader(store, all);
    reader.position = position;
    reader.reconnect();
    reader.state.set("a", { tokens: new Set([1]), tickets: new Set() });
    store.settle();
    expect(reader.lines).toEqual([`b+2 a+T1 @${store.timestamp}`]);
  });

  test("although nothing has happened: it is told its position", () => {
    const store = storeWith(["a"]);
    const reader = new Reader(store).watch({ after: store.timestamp });
    store.settle();
    expect(reader.lines).toEqual([`@${store.timestamp}`]);
  });

  test.each([
    ["the last one that the history has", 0, /^b\+2/],
    ["one before", -1, /^RESET\(forgotten\)/],
    ["one that the server has not reached", 1_000_000, /^RESET\(forgotten\)/],
  ])("%s", (_what, offset, first) => {
    const store = storeWith(["a"], { watchHistoryEventsMax: 1 });
    const base = store.timestamp;
    store.grant("b");
    store.commit();
    const reader = new Reader(store).watch({ after: base + offset });
    store.settle();
    expect(reader.lines[0]).toMatch(first);
    if (offset !== 0) expect(reader.lines[1]).toMatch(/^a=\[1\] b=\[2\] SYNCED/);
  });

  test("a restart forgets what was before", () => {
    const store = storeWith(["a"]);
    const before = store.timestamp;
    const cut = new Reader(store).watch({ fromNow: true });
    store.restart();
    expect(cut.failure).toMatchObject({ reason: "STORE_DOWN" });
    const old = new Reader(store).watch({ after: before });
    const recovered = new Reader(store).watch({ after: store.timestamp });
    store.settle();
    expect(old.lines[0]).toMatch(/^RESET\(forgotten\)/);
    expect(recovered.lines[0]).toBe(`@${store.timestamp}`);
  });

  test("through a history of many slices, while events go on and connections break", () => {
    const store = storeWith([]);
    const position = store.timestamp;
    for (let i = 0; i < 15_000; i++) store.grant(`n${i}`);
    store.commit();
    const reader = new Reader(store).watch({ after: position });
    while (reader.state.size < 15_000) {
      store.grant("more");
      store.commit();
      store.turns.turn();
      if (reader.position > position) reader.reconnect();
    }
    store.settle();
    expect(reader.state.size).toBe(15_001);
    expect(reader.state.get("more")).toEqual(store.state.get("more"));
    expect(reader.lines.some((line) => line.includes("RESET"))).toBe(false);
  });

  test("and breaks off in the middle of a slice that it reads slowly", () => {
    const store = storeWith([]);
    const reader = new Reader(store);
    reader.position = store.timestamp;
    store.metadata = "m".repeat(100);
    for (let i = 0; i < 6_000; i++) store.grant(`n${i}`);
    store.commit();
    reader.pause();
    reader.reconnect();
    store.commit();
    store.turns.turn();
    const first = reader.state.size;
    reader.resume(); // the rest of the slice
    expect(reader.state.size).toBeGreaterThan(first);
    reader.reconnect();
    store.settle();
    expect(reader.state.size).toBe(6_000);
  });

  test("until the history has run away from it: then it has lagged", () => {
    const store = storeWith([], { watchHistoryEventsMax: 10_000 });
    const position = store.timestamp;
    for (let i = 0; i < 10_000; i++) store.grant("a");
    store.commit();
    const reader = new Reader(store).watch({ after: position });
    store.commit();
    store.turns.turn(); // reads the first slices
    reader.close();
    const slow = new Reader(store).watch({ after: position });
    slow.pause();
    store.commit();
    store.turns.turn();
    expect(slow.lines.length).toBe(1);
    for (let i = 0; i < 10_000; i++) store.grant("b");
    store.commit();
    slow.resume();
    store.settle();
    expect(slow.entries.filter(({ kind }) => kind === "reset")).toMatchObject([{ reason: "lagged" }]);
    expect(slow.state).toEqual(store.state);
    expect(store.lagged).toBe(1);
  });
});

describe("what is told", () => {
  test("a transfer is one event; what concerns no lock is none", () => {
    const store = storeWith(["a"]);
    const reader = new Reader(store).watch();
    const ticket = store.queue("a");
    store.settle();
    store.transfer("a", 1, ticket);
    store.other({ kind: "leaseCreated" });
    store.other({ kind: "acquireEnded", outcome: "busy", mode: "shared", waitedMs: 0 });
    store.commit();
    expect(reader.lines[2]).toBe(`a+2 @${store.timestamp}`);
    expect(reader.entries.at(-1)).toMatchObject({ kind: "granted", transferredFrom: 1, ticketId: ticket });
    expect(store.hub.history.size).toBe(3);
  });

  test("the grants of one AcquireAll come in one response, however large they are", () => {
    const store = storeWith([], { watcherQueueEventsMax: 8 });
    const reader = new Reader(store).watch({ fromNow: true });
    store.commit();
    store.metadata = "m".repeat(4_000);
    const names = Array.from({ length: 64 }, (_, i) => `n${i}`);
    store.grant("before");
    store.grantAll(names);
    store.grant("after");
    store.commit();
    expect(reader.lines.map((line) => line.split(" ").length - 1)).toEqual([0, 1, 64, 1]);
    const resumed = new Reader(store).watch({ after: reader.position - 3 });
    store.settle();
    expect(resumed.lines.map((line) => line.split(" ").length - 1)).toEqual([65, 1]);
    expect(store.lagged).toBe(0);
  });

  test("a long batch is cut into responses, each with a position to continue from", () => {
    const store = storeWith([]);
    const reader = new Reader(store).watch({ fromNow: true });
    store.commit();
    store.metadata = "m".repeat(1_000);
    for (let i = 0; i < 500; i++) store.grant(`n${i}`);
    store.commit();
    expect(reader.lines.length).toBeGreaterThan(5);
    expect(reader.lines.length).toBeLessThan(20);
    const positions = reader.lines.map((line) => Number(line.split("@")[1]));
    expect(positions).toEqual([...new Set(positions)].sort((a, b) => a - b));
    expect(positions.at(-1)).toBe(store.timestamp);
  });
});

describe("state and events fit together", () => {
  /** A listing of a, b | c, d (pages of two), and a change at each place in time. */
  function listing() {
    const store = storeWith(["a", "b", "c", "d"]);
    store.pageMax = 2;
    const reader = new Reader(store).watch();
    return { store, reader };
  }

  test.each(["a", "b", "bb", "c", "d", "e"])("a change of %s between any two steps of the listing", (name) => {
    for (const at of [0, 1, 2, 3, 4, 5, 6]) {
      const { store, reader } = listing();
      const change = (step: number) => {
        if (step === at) store.queue(name);
      };
      change(0); // in the batch of the first page, before it
      store.turns.turn();
      change(1); // in the same batch, behind it
      store.commit();
      change(2); // before the next page is asked for
      if (at === 3) store.commit();
      change(3);
      store.turns.turn();
      change(4);
      store.commit();
      change(5);
      store.turns.turn();
      change(6);
      store.settle();
      expect(reader.synced).toBe(true);
      expect(reader.state.get(name)?.tickets).toEqual(store.state.get(name)?.tickets);
      const told = reader.lines.join(" ").split("T1").length - 1;
      expect(told, `step ${at}: ${reader.lines.join("\n")}`).toBe(1);
    }
  });

  test("events come at their place in the order of timestamps, before and behind the page", () => {
    const { store, reader } = listing();
    store.turns.turn();
    store.commit();
    store.queue("a"); // listed
    store.queue("c"); // not yet
    store.turns.turn(); // the second page is read
    store.queue("a");
    store.queue("c");
    store.commit();
    expect(reader.lines[1]).toMatch(/^a=\[1\] b=\[2\] @0$/);
    expect(reader.lines[2]).toMatch(/^a\+T1 c=\[3,T2\] d=\[4\] a\+T3 c\+T4 @0$/);
  });

  test("a state that is cut off is told anew from the beginning", () => {
    const { store, reader } = listing();
    store.turns.turn();
    store.commit();
    expect(reader.lines[1]).toMatch(/^a=/);
    reader.reconnect();
    store.settle();
    expect(reader.lines.slice(2).join(" ")).toMatch(/^RESET\(start\) @0 a=.* c=.* SYNCED/);
  });
});

describe("a watcher that does not read", () => {
  test("is told that it lagged once it reads again, and slows nobody down", () => {
    const store = storeWith(["a"], { watcherQueueEventsMax: 10 });
    const slow = new Reader(store).watch();
    const fast = new Reader(store).watch();
    store.settle();
    slow.pause();
    for (let i = 0; i < 12; i++) {
      store.queue("a");
      store.commit();
      store.turns.turn();
      expect(fast.position).toBe(store.timestamp);
    }
    expect(store.lagged).toBe(1);
    expect(slow.lines.length).toBe(3); // the first event found out that nothing more is accepted
    for (let i = 0; i < 1_000; i++) store.queue("b");
    store.commit();
    expect(store.lagged).toBe(1);
    slow.resume();
    store.settle();
    expect(slow.lines[3]).toBe("RESET(lagged) @0");
    expect(slow.state).toEqual(store.state);
    expect(fast.state).toEqual(store.state);
    expect(slow.pushed + fast.pushed).toBe(0);
  });

  test("has not lagged as long as its queue suffices", () => {
    const store = storeWith(["a"], { watcherQueueEventsMax: 10 });
    const slow = new Reader(store).watch({ fromNow: true });
    slow.pause();
    store.commit();
    for (let i = 0; i < 10; i++) store.queue("a");
    store.commit();
    expect(slow.lines.length).toBe(1);
    slow.resume();
    expect(slow.lines[1]?.split(" ").length).toBe(11);
    expect(store.lagged).toBe(0);
  });

  test("one that reads does not lag in a batch that is longer than its queue", () => {
    const store = storeWith([], { watcherQueueEventsMax: 10 });
    const fast = new Reader(store).watch({ fromNow: true });
    const slow = new Reader(store).watch({ fromNow: true });
    store.commit();
    slow.pause();
    for (let i = 0; i < 19; i++) store.queue("a");
    store.commit();
    expect(store.lagged).toBe(0); // ten went to the transport, nine wait
    store.queue("a");
    store.queue("a");
    store.commit();
    expect(store.lagged).toBe(1);
    expect(fast.state).toEqual(store.state);
  });

  test("gets no more pages than it reads", () => {
    const store = storeWith(["a", "b", "c", "d", "e"]);
    store.pageMax = 1;
    const slow = new Reader(store).watch();
    slow.pause();
    store.settle();
    expect(store.commands.length).toBe(1);
    expect(slow.lines.length).toBe(2);
    slow.resume();
    store.settle();
    expect(slow.state).toEqual(store.state);
  });
});

describe("bounds", () => {
  test("more watchers than configured are refused; one that leaves makes room", () => {
    const store = storeWith([], { watchersMax: 2 });
    const first = new Reader(store).watch();
    new Reader(store).watch();
    expect(() => new Reader(store).watch()).toThrow(/more than 2 watches/);
    first.close();
    first.close();
    new Reader(store).watch();
    expect(store.hub.size).toBe(2);
  });

  test("no more than four pages are asked for in one turn of the event loop", () => {
    const store = storeWith(["a"]);
    const readers = Array.from({ length: 50 }, () => new Reader(store).watch());
    store.turns.turn();
    expect(store.commands.length).toBe(4);
    store.turns.turn();
    expect(store.commands.length).toBe(8);
    store.settle();
    for (const reader of readers) expect(reader.state).toEqual(store.state);
  });

  test("of many watchers sixteen write behind a batch, and the others soon, in turn, what several batches brought", () => {
    const store = storeWith([]);
    const readers = Array.from({ length: 50 }, () => new Reader(store).watch());
    store.settle();
    const caughtUp = () => readers.filter(({ position }) => position === store.timestamp).length;
    store.queue("a");
    store.commit();
    expect(caughtUp()).toBe(16);
    store.turns.turn();
    expect(caughtUp()).toBe(32);
    store.queue("a");
    store.commit();
    expect(caughtUp()).toBe(0); // those that were first wait behind the others
    for (const reader of readers.slice(0, 32)) expect(reader.entries.filter(isEvent).length).toBe(1);
    store.turns.turn();
    for (const reader of readers.slice(32, 48)) expect(reader.entries.filter(isEvent).length).toBe(2);
    for (let i = 0; i < 3; i++) store.turns.turn();
    expect(caughtUp()).toBe(50);
  });

  test("a sequencer that is full is asked again behind the next batch", () => {
    const store = storeWith(["a"]);
    const reader = new Reader(store).watch();
    store.refusal = { reason: "LIMIT", message: "full", retryAfterMs: 100 };
    expect(store.turns.turn()).toBe(true);
    expect(store.turns.turn()).toBe(false); // not in every turn
    store.refusal = null;
    store.commit();
    store.settle();
    expect(reader.state).toEqual(store.state);
  });

  test("the history is bounded in bytes", () => {
    const store = storeWith([], { watchHistoryBytesMax: 100_000 });
    store.metadata = "m".repeat(1_000);
    for (let i = 0; i < 1_000; i++) store.grant("a");
    store.commit();
    expect(store.hub.history.size).toBeLessThan(100);
    expect(store.hub.history.size).toBeGreaterThan(50);
    expect(store.hub.history.base).toBe(store.timestamp - store.hub.history.size);
  });

  test("without a history every position but the last is forgotten", () => {
    const store = storeWith(["a", "b"], { watchHistoryEventsMax: 0 });
    const last = new Reader(store).watch({ after: store.timestamp });
    const before = new Reader(store).watch({ after: store.timestamp - 1 });
    store.settle();
    expect(last.lines).toEqual([`@${store.timestamp}`]);
    expect(before.lines[0]).toMatch(/forgotten/);
  });
});

describe("quiet watchers", () => {
  test("are told from time to time how far they have come", () => {
    const store = storeWith(["a"]);
    const readers = Array.from({ length: 30 }, (_, i) =>
      new Reader(store, { kind: "name", name: `quiet${i}` }).watch({ fromNow: true }),
    );
    store.commit();
    store.tick(100);
    store.commit();
    let most = 0;
    for (let i = 0; i < 20; i++) {
      const before = readers.reduce((sum, { lines }) => sum + lines.length, 0);
      store.turns.beat();
      most = Math.max(most, readers.reduce((sum, { lines }) => sum + lines.length, 0) - before);
    }
    expect(most).toBe(2); // spread over time
    for (const reader of readers) expect(reader.position).toBe(store.timestamp);
    for (let i = 0; i < 20; i++) store.turns.beat();
    for (const reader of readers) expect(reader.lines.length).toBe(2); // nothing new
  });

  test("need no timer and no history when there are none, nor ten minutes after the last one has left", () => {
    const store = new Store();
    store.grant("a");
    store.commit();
    expect(store.turns.timers + store.hub.history.size).toBe(0);
    const reader = new Reader(store).watch();
    expect(store.turns.timers).toBe(1);
    reader.close();
    for (let i = 0; i < 2_399; i++) store.turns.beat();
    store.grant("b");
    store.commit();
    expect(store.turns.timers + store.hub.history.size).toBe(2);
    store.turns.beat();
    expect(store.turns.timers + store.hub.history.size).toBe(0);
    expect(store.hub.history.base).toBe(store.timestamp);
  });

  test("a position from before the history began is forgotten", () => {
    const store = new Store();
    const position = store.timestamp;
    store.grant("a");
    store.commit();
    const first = new Reader(store).watch();
    store.settle();
    const reader = new Reader(store).watch({ after: position });
    store.settle();
    expect(reader.lines[0]).toMatch(/^RESET\(forgotten\)/);
    first.close();
  });
});

describe("the end", () => {
  test("of the store: every watch ends, and nothing of an unfinished listing is told", () => {
    const store = storeWith(["a"]);
    const live = new Reader(store).watch();
    store.settle();
    const listing = new Reader(store).watch();
    const starting = new Reader(store).watch({ fromNow: true });
    store.turns.turn();
    store.restart();
    for (const reader of [live, listing, starting]) expect(reader.failure?.reason).toBe("STORE_DOWN");
    expect(store.hub.size).toBe(0);
    store.settle();
    expect(listing.lines).toEqual(["RESET(start) @0"]);
    expect(starting.lines).toEqual([]);
  });

  test("a sequencer that refuses ends the watch with its reason", () => {
    const store = storeWith(["a"]);
    const listing = new Reader(store).watch();
    store.refusal = { reason: "CLOSED", message: "stopping", retryAfterMs: 1_000 };
    const starting = new Reader(store).watch({ after: 5 });
    store.settle();
    expect(listing.failure).toBe(store.refusal);
    expect(starting.failure).toBe(store.refusal);
    expect(store.hub.size).toBe(0);
  });
});
