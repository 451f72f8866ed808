import { describe, expect, test } from "vitest";
import { FakeRoute, Harness, settle } from "./harness.js";

describe("durable before visible", () => {
  test("no reply leaves before its record is durable", async () => {
    const h = await Harness.started();
    h.disk.manual = true;
    const route = h.acquire("a");
    await settle();
    expect(h.disk.pending).toBeDefined();
    expect(route.replies).toEqual([]);
    await h.disk.complete();
    expect(route.outcome.kind).toBe("grant");
    expect(route.flushes).toBe(1);
  });

  test("a read that saw a change in flight leaves after that change", async () => {
    const h = await Harness.started();
    h.disk.manual = true;
    h.acquire("a");
    await settle();
    const read = h.call({ kind: "describeLock", name: "a", waitersMax: 10, wallMs: 0 });
    await settle();
    expect(read.replies).toEqual([]);
    await h.disk.complete();
    expect(read.outcome).toMatchObject({ kind: "lock", lock: { holders: [{ token: 1 }] } });
  });

  test("a refusal that depends on a grant in flight leaves after that grant", async () => {
    const h = await Harness.started();
    h.disk.manual = true;
    h.acquire("a");
    await settle();
    const second = h.acquire("a");
    await settle();
    expect(second.replies).toEqual([]);
    await h.disk.complete();
    expect(second.outcome.kind).toBe("busy");
  });

  test("what arrives while an append is in flight becomes one record", async () => {
    const h = await Harness.started();
    h.disk.manual = true;
    h.acquire("first");
    await settle();
    const appends = h.disk.appends;
    const routes = Array.from({ length: 50 }, (_, i) => h.acquire(`lock-${i}`));
    await settle();
    expect(h.disk.appends).toBe(appends);
    await h.disk.complete();
    expect(h.disk.appends).toBe(appends + 1);
    await h.disk.complete();
    expect(routes.every((route) => route.outcome.kind === "grant")).toBe(true);
  });

  test("reads alone write nothing", async () => {
    const h = await Harness.started();
    const appends = h.disk.appends;
    const read = h.call({ kind: "listLocks", prefix: "", after: "", limit: 10, wallMs: 0 });
    await settle();
    expect(read.outcome.kind).toBe("locks");
    expect(h.disk.appends).toBe(appends);
  });
});

describe("renewals", () => {
  test("one that the record in flight does not touch is answered at once, and writes nothing", async () => {
    const h = await Harness.started();
    await h.done(h.createLease("lease", 10_000));
    h.disk.manual = true;
    h.acquire("other");
    await settle();
    const appends = h.disk.appends;
    const renewal = h.call({ kind: "renewLease", leaseId: "lease", progress: false });
    expect(renewal.outcome).toMatchObject({ kind: "renewed", remainingMs: 10_000 });
    await h.disk.complete();
    expect(h.disk.appends).toBe(appends);
  });

  test("one of a lease whose creation is in flight waits for that", async () => {
    const h = await Harness.started();
    h.disk.manual = true;
    h.createLease("lease", 10_000);
    await settle();
    const renewal = h.call({ kind: "renewLease", leaseId: "lease", progress: false });
    await settle();
    expect(renewal.replies).toEqual([]);
    await h.disk.complete();
    expect(renewal.outcome.kind).toBe("renewed");
  });

  async function session(h: Harness): Promise<FakeRoute> {
    const route = new FakeRoute("stream");
    h.submit({
      kind: "attach",
      sessionId: "",
      newSessionId: "s1",
      epoch: 1,
      claims: [],
      outstanding: [],
      abandoned: [],
      clusterId: "",
      highestToken: 0,
      route,
      observed: 0,
    });
    const frame = {
      kind: "frame",
      sessionId: "s1",
      epoch: 1,
      ackedBelow: 0,
      acked: [],
      progress: [],
      observed: 0,
    } as const;
    h.submit({
      ...frame,
      frame: 2,
      renew: false,
      requests: [
        {
          seq: 1,
          request: { kind: "createLease", leaseId: "l", ttlMs: 9_000, owner: "", metadata: "", progressEveryMs: 0 },
        },
      ],
    });
    await settle();
    return route;
  }

  test("a session's renewal is answered while an unrelated append is in flight", async () => {
    const h = await Harness.started();
    const route = await session(h);
    h.disk.manual = true;
    h.acquire("other");
    await settle();
    h.submit({
      kind: "frame",
      sessionId: "s1",
      epoch: 1,
      frame: 3,
      ackedBelow: 2,
      acked: [],
      progress: [],
      renew: true,
      observed: 0,
      requests: [],
    });
    expect(route.replies.at(-2)).toMatchObject({ kind: "renewal", frame: 3, leaseSeq: 1, remainingMs: 9_000 });
    expect(route.replies.at(-1)).toMatchObject({ kind: "processed", frame: 3 });
  });

  test("the first one after a restart waits for its record", async () => {
    const h = await Harness.started();
    await session(h);
    const again = new Harness();
    again.disk.entries = h.disk.entries;
    await again.sequencer.start();
    const route = new FakeRoute("stream");
    again.submit({
      kind: "attach",
      sessionId: "s1",
      newSessionId: "x",
      epoch: 2,
      claims: [],
      outstanding: [],
      abandoned: [],
      clusterId: "",
      highestToken: 0,
      route,
      observed: 0,
    });
    await settle();
    again.disk.manual = true;
    const frame = {
      kind: "frame",
      sessionId: "s1",
      epoch: 2,
      ackedBelow: 2,
      acked: [],
      progress: [],
      renew: true,
      observed: 0,
      requests: [],
    } as const;
    again.submit({ ...frame, frame: 2 });
    await settle();
    const renewals = () => route.replies.filter((reply) => reply.kind === "renewal").length;
    expect(renewals()).toBe(0);
    await again.disk.complete();
    expect(renewals()).toBe(1);
    again.submit({ ...frame, frame: 3 });
    expect(renewals()).toBe(2);
  });
});

describe("expiry", () => {
  test("a lease expires when its time is over, and its lock goes to the next", async () => {
    const h = await Harness.started();
    const first = h.acquire("a", { ttlMs: 1_000 });
    await settle();
    const next = h.acquire("a", { waitMs: 60_000, requestId: "r" });
    await h.turns.run(960);
    expect(next.replies).toEqual([]);
    await h.turns.run(200);
    expect(h.token(next.outcome)).toBeGreaterThan(h.token(first.outcome));
  });

  test("a renewal that waits in the socket when the deadline is seen to be over is stepped before the expiry", async () => {
    const h = await Harness.started();
    await h.done(h.createLease("lease", 1_000));
    await h.turns.run(980);
    h.turns.pass(40); // the deadline passes while the loop waits; the renewal arrived before it
    await h.turns.turn(() => h.call({ kind: "renewLease", leaseId: "lease", progress: false }));
    await h.turns.run(500);
    expect(h.events).not.toContainEqual({ kind: "leaseEnded", reason: "expired", hung: false });
    await h.turns.run(700);
    expect(h.events).toContainEqual({ kind: "leaseEnded", reason: "expired", hung: false });
  });

  test("a stall of the server far longer than the TTL expires nothing whose renewal waits in a socket", async () => {
    const h = await Harness.started();
    await h.done(h.createLease("lease", 1_000));
    await h.turns.run(900);
    h.turns.pass(60_000); // stopped, say
    await h.turns.turn(); // the renewal is read only in the second turn after waking
    h.turns.pass(90);
    await h.turns.turn(() => h.call({ kind: "renewLease", leaseId: "lease", progress: false }));
    await h.turns.run(600);
    expect(h.events).not.toContainEqual({ kind: "leaseEnded", reason: "expired", hung: false });
  });

  test("after a stall a lease without renewals still expires", async () => {
    const h = await Harness.started();
    await h.done(h.createLease("lease", 1_000));
    h.turns.pass(60_000);
    await h.turns.run(1_200);
    expect(h.events).toContainEqual({ kind: "leaseEnded", reason: "expired", hung: false });
  });

  test("a thousand leases that expire together are worked off in slices, and a grant comes between", async () => {
    const h = await Harness.started();
    for (let i = 0; i < 1_000; i++) h.createLease(`lease-${i}`, 1_000);
    await settle();
    await h.turns.run(980);
    const ended = () => h.events.filter((event) => event.kind === "leaseEnded").length;
    let turnsWithBoth = 0;
    for (let i = 0; i < 60; i++) {
      const before = ended();
      h.turns.pass(20);
      let route: FakeRoute | undefined;
      await h.turns.turn(() => {
        route = h.acquire(`lock-${i}`);
      });
      if (route?.outcome.kind === "grant" && ended() > before) turnsWithBoth++;
      expect(ended() - before).toBeLessThanOrEqual(200);
    }
    expect(ended()).toBe(1_000);
    expect(turnsWithBoth).toBeGreaterThan(3);
  });
});

describe("leadership is a recent append", () => {
  test("an idle server appends ticks", async () => {
    const h = await Harness.started();
    await h.turns.run(10_000);
    const appends = h.disk.appends;
    await h.turns.run(5_000);
    expect(h.disk.appends - appends).toBeGreaterThanOrEqual(4);
    expect(h.disk.appends - appends).toBeLessThanOrEqual(6);
  });

  test("no reply, not even of a read or a renewal, while no append has succeeded in time", async () => {
    const h = await Harness.started();
    await h.done(h.createLease("lease", 60_000));
    h.disk.manual = true;
    await h.turns.run(4_000);
    const early = h.call({ kind: "validate", name: "a", token: 1 });
    await h.turns.run(2_000); // the tick that was sent is stuck in the disk
    expect(early.replies).toEqual([]);
    const late = h.call({ kind: "validate", name: "a", token: 1 });
    await settle();
    expect(late.replies).toEqual([]);
    expect(h.sequencer.notServing).toMatch(/no write to the store/);
    await h.disk.complete(); // sent too long ago to prove anything
    expect(late.replies).toEqual([]);
    await h.disk.complete();
    expect(early.outcome.kind).toBe("validated");
    expect(late.outcome.kind).toBe("validated");
    expect(h.sequencer.notServing).toBeNull();
  });
});

describe("events", () => {
  const granted = (h: Harness) => h.events.filter((event) => event.kind === "granted");

  test("are told when they are durable, behind the replies of their batch, and then up to where", async () => {
    const h = await Harness.started();
    expect(h.recovered).toEqual([h.sequencer.counts?.timestamp]);
    h.disk.manual = true;
    const route = h.acquire("a", { ttlMs: 60_000 });
    let toldAtDelivery = -1;
    route.flush = () => {
      toldAtDelivery = h.events.length;
    };
    await settle();
    expect(h.events).toEqual([]);
    await h.disk.complete();
    expect(toldAtDelivery).toBe(0);
    expect(granted(h)).toMatchObject([{ name: "a" }]);
    expect(h.told).toEqual([{ timestamp: granted(h)[0]?.timestamp, events: h.events.length }]);
  });

  test("are held back together with the replies while the server does not lead", async () => {
    const h = await Harness.started();
    h.disk.manual = true;
    await h.turns.run(4_000); // a tick is stuck in the disk
    const first = h.acquire("a", { ttlMs: 60_000 });
    await h.turns.run(2_000);
    await h.disk.complete(); // the tick: sent too long ago
    const second = h.acquire("b", { ttlMs: 60_000 });
    await h.turns.run(6_000);
    await h.disk.complete(); // the grant of a: durable, but this server may be deposed
    expect(h.sequencer.notServing).toMatch(/no write to the store/);
    expect(first.replies).toEqual([]);
    expect(h.events).toEqual([]);
    expect(h.told).toEqual([]);
    await h.disk.complete();
    expect(first.outcome.kind).toBe("grant");
    expect(second.outcome.kind).toBe("grant");
    expect(granted(h)).toMatchObject([{ name: "a" }, { name: "b" }]);
    expect(h.told.map(({ events }) => events)).toEqual([0, h.events.length / 2, h.events.length]); // batch by batch
  });

  test("that are held back when the store fails are never told", async () => {
    const h = await Harness.started();
    h.disk.manual = true;
    await h.turns.run(4_000);
    const route = h.acquire("a", { ttlMs: 60_000 });
    await h.turns.run(6_000);
    await h.disk.complete();
    await h.turns.run(6_000);
    await h.disk.complete(); // the grant; the next append proves nothing, for it fails
    h.disk.manual = false;
    await h.disk.fail(false);
    await h.turns.run(1_000);
    expect(route.failures[0]?.reason).toBe("OUTCOME_UNKNOWN");
    // Only what the recovery itself has to tell.
    expect(h.events.filter(({ kind }) => kind !== "leaseExtended")).toEqual([]);
    expect(h.recovered.length).toBe(2);
    expect(h.recovered[1]).toBeGreaterThan(h.recovered[0] as number);
    await h.done(h.acquire("b", { ttlMs: 60_000 }));
    expect(granted(h)).toMatchObject([{ name: "b" }]);
  });

  test("commands whose replies are held back count as in flight", async () => {
    const h = await Harness.started({ commandsInFlightMax: 2 });
    h.disk.manual = true;
    await h.turns.run(4_000);
    h.acquire("a", { ttlMs: 60_000 });
    await h.turns.run(6_000);
    await h.disk.complete();
    h.acquire("b", { ttlMs: 60_000 });
    await h.turns.run(6_000);
    await h.disk.complete();
    expect(h.sequencer.commandsInFlight).toBe(2);
    expect(h.acquire("c", { ttlMs: 60_000 }).failures[0]?.reason).toBe("LIMIT");
    await h.disk.complete();
    expect(h.sequencer.commandsInFlight).toBe(0);
  });
});

describe("a failed append", () => {
  test.each([true, false])(
    "outcome unknown (written: %s): routes fail, the state is rebuilt, tokens go on above",
    async (written) => {
      const h = await Harness.started();
      const before = h.token(await h.done(h.acquire("before")));
      h.disk.manual = true;
      const inFlight = h.acquire("in-flight");
      await settle();
      const inBatch = h.acquire("in-batch");
      h.disk.manual = false;
      await h.disk.fail(written);
      expect(inFlight.failures[0]?.reason).toBe("OUTCOME_UNKNOWN");
      expect(inBatch.failures[0]?.reason).toBe("OUTCOME_UNKNOWN");
      expect(inFlight.replies).toEqual([]);
      await h.turns.run(1_000);
      expect(h.disk.opens).toBe(2);
      expect(h.sequencer.notServing).toBeNull();
      const kept = await h.done(h.acquire("before"));
      expect(kept.kind).toBe("busy");
      expect((await h.done(h.acquire("in-flight"))).kind).toBe(written ? "busy" : "grant");
      const after = h.token(await h.done(h.acquire("after")));
      expect(after).toBeGreaterThan(before + 2); // above what the lost batches had been given
    },
  );

  test("waiting calls and streams are told, and commands meanwhile are refused with STORE_DOWN", async () => {
    const h = await Harness.started();
    await h.done(h.acquire("a"));
    const waiting = h.acquire("a", { waitMs: 60_000, requestId: "r" });
    await settle();
    h.disk.manual = true;
    h.disk.openError = new Error("still full");
    h.acquire("b");
    await settle();
    await h.disk.fail(false);
    expect(waiting.failures[0]?.reason).toBe("OUTCOME_UNKNOWN");
    expect(h.acquire("c").failures[0]).toMatchObject({ reason: "STORE_DOWN", retryAfterMs: 1000 });
    await h.turns.run(3_000);
    expect(h.sequencer.notServing).toMatch(/store has failed/);
    h.disk.openError = undefined;
    h.disk.manual = false;
    await h.turns.run(6_000);
    expect(h.sequencer.notServing).toBeNull();
    // The place in the queue was durable.
    expect(await h.done(h.call({ kind: "describeLock", name: "a", waitersMax: 1, wallMs: 0 }))).toMatchObject({
      lock: { holders: [{ token: 1 }] },
    });
  });
});

describe("bounds and the end", () => {
  test("more commands in flight than configured are refused, and nothing has happened", async () => {
    const h = await Harness.started({ commandsInFlightMax: 3 });
    h.disk.manual = true;
    for (let i = 0; i < 3; i++) h.acquire(`ok-${i}`);
    const refused = h.acquire("too-many");
    expect(refused.failures[0]).toMatchObject({ reason: "LIMIT", retryAfterMs: 100 });
    await settle();
    h.disk.manual = false;
    await h.disk.complete();
    expect((await h.done(h.acquire("too-many"))).kind).toBe("grant");
  });

  test("stop delivers what is held, refuses what is new, tells who waits, and closes the journal", async () => {
    const h = await Harness.started();
    await h.done(h.acquire("a"));
    const waiting = h.acquire("a", { waitMs: 60_000, requestId: "r" });
    await settle();
    h.disk.manual = true;
    const held = h.acquire("b");
    await settle();
    const behind = h.acquire("c");
    const stopped = h.sequencer.stop();
    await settle();
    expect(h.acquire("d").failures[0]?.reason).toBe("CLOSED");
    await h.disk.complete();
    await h.disk.complete();
    await stopped;
    expect(held.outcome.kind).toBe("grant");
    expect(behind.outcome.kind).toBe("grant");
    expect(waiting.failures[0]?.reason).toBe("CLOSED");
  });
});
