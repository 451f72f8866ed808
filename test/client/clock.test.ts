/** Lamport timestamps, and the questions that go to the server. */
import { describe, expect, it } from "vitest";
import type { ReceivedHeaders } from "../../src/client/carrier.js";
import { TIMESTAMP_HEADER } from "../../src/client/lamport.js";
import { setup, take, thrown, watch } from "./support.js";

describe("the Lamport clock", () => {
  it("follows the server's answers and says in every frame what it has seen", async () => {
    const s = setup();
    await take(s);
    expect(s.client.clock.now()).toBe(101);
    expect(s.client.clock.tick()).toBe(102);
    expect(s.client.clock.observe(500)).toBe(501);
    await take(s, "b");
    expect(s.server.connection.lastFrame.observed).toBe(501);
    expect(s.client.clock.now()).toBe(501);
  });

  it("never goes back, and a receipt is after its message and after everything before", () => {
    const { clock } = setup().client;
    expect(clock.observe(10)).toBe(11);
    expect(clock.observe(5)).toBe(12);
    clock.merge(3);
    expect(clock.now()).toBe(12);
  });

  it("carries timestamps in headers of every kind", () => {
    const { clock } = setup().client;
    clock.observe(41);
    const headers = clock.inject(new Headers());
    expect(headers.get(TIMESTAMP_HEADER)).toBe("43");
    expect(clock.inject(new Map<string, string>()).get(TIMESTAMP_HEADER)).toBe("44");
    expect(clock.inject({ accept: "*/*" })).toEqual({ accept: "*/*", "lamport-timestamp": "45" });
    const other = setup().client.clock;
    expect(other.extract(headers)).toBe(44);
    expect(other.extract({ "Lamport-Timestamp": "100" })).toBe(101);
    expect(other.extract(new Map([[TIMESTAMP_HEADER, "200"]]))).toBe(201);
    expect(other.extract({})).toBeUndefined();
    expect(other.extract(new Headers())).toBeUndefined();
    expect(other.now()).toBe(201);
  });

  it("reads headers as drivers deliver them: arrays, buffers, numbers, maps with buffers as keys, or none", () => {
    const bytes = Buffer.from("41");
    const shapes: ReceivedHeaders[] = [
      { "lamport-timestamp": bytes },
      { "Lamport-Timestamp": [bytes] },
      { "lamport-timestamp": ["41"] },
      { "lamport-timestamp": 41 },
      { "lamport-timestamp": new Uint8Array(bytes) },
      new Map([[Buffer.from("lamport-timestamp"), bytes]]),
      new Map([["LAMPORT-timestamp", "41"]]),
      { get: (name: string) => (name === TIMESTAMP_HEADER ? ["41"] : []), set: () => undefined },
    ];
    for (const headers of shapes) expect(setup().client.clock.extract(headers)).toBe(42);
    const without: ReceivedHeaders[] = [
      ...[
        undefined,
        null,
        {},
        new Map(),
        new Headers(),
        { "lamport-timestamp": undefined },
        { "lamport-timestamp": [] },
      ],
      ...[{ get: "5", set: "6" }, { get: () => [], set: () => undefined }, new Map([[7, "41"]])],
    ];
    for (const headers of without) expect(setup().client.clock.extract(headers)).toBeUndefined();
  });

  it("refuses headers that say several things, or nothing that is text", () => {
    const { clock } = setup().client;
    const several = new Headers([["lamport-timestamp", "41"]]);
    several.append("lamport-timestamp", "41");
    const shapes: unknown[] = [
      ...[several, { "lamport-timestamp": ["41", "41"] }, { "lamport-timestamp": "41", "Lamport-Timestamp": "41" }],
      ...[{ "lamport-timestamp": true }, { "lamport-timestamp": {} }, { "lamport-timestamp": 41.5 }, "41", 41],
      ...[{ "lamport-timestamp": "4".repeat(1_000) }, { "lamport-timestamp": Buffer.alloc(1_000_000, "4") }],
      ...[{ "lamport-timestamp": Buffer.from("４１") }, { "lamport-timestamp": 2 ** 53 }, { "lamport-timestamp": -1 }],
    ];
    for (const headers of shapes) {
      expect(thrown(() => clock.extract(headers as ReceivedHeaders)).code).toBe("INVALID");
    }
    expect(clock.now()).toBe(0);
  });

  it("replaces a header that is there already, in whatever case", () => {
    const { clock } = setup().client;
    expect(clock.inject({ "Lamport-Timestamp": "7", a: "b" })).toEqual({ "Lamport-Timestamp": "1", a: "b" });
    expect(clock.inject({ "LAMPORT-TIMESTAMP": "7", "lamport-timestamp": "8" })).toEqual({ "LAMPORT-TIMESTAMP": "2" });
    expect([...clock.inject(new Map([["Lamport-Timestamp", "7"]]))]).toEqual([["Lamport-Timestamp", "3"]]);
    const buffers = new Map([[Buffer.from("lamport-timestamp"), Buffer.from("7")]]);
    expect([...clock.inject(buffers as unknown as Map<string, string>)].map(String)).toEqual(["lamport-timestamp,4"]);
  });

  it.each([-1, 1.5, 2 ** 53, 2 ** 53 - 1, Number.NaN, Number.POSITIVE_INFINITY, "5", 5n, null])(
    "refuses to observe %s",
    (timestamp) => {
      const { clock } = setup().client;
      expect(thrown(() => clock.observe(timestamp as number)).code).toBe("INVALID");
      expect(clock.now()).toBe(0);
    },
  );

  it.each(["", "x", "-5", "1.5", "1e3", " 5", "9007199254740991", "99999999999999999"])(
    "refuses the header %j",
    (value) => {
      const { clock } = setup().client;
      expect(thrown(() => clock.extract({ [TIMESTAMP_HEADER]: value })).code).toBe("INVALID");
      expect(thrown(() => clock.extract({ [TIMESTAMP_HEADER]: [value] })).code).toBe("INVALID");
      expect(clock.now()).toBe(0);
    },
  );

  it("asks the server for ranges, which are after everything observed", async () => {
    const s = setup();
    s.client.clock.observe(1_000);
    const range = watch(s.client.clock.range(5));
    await s.time.settle();
    expect(range.value).toEqual({ first: 1_002, last: 1_006 });
    expect(s.client.clock.now()).toBe(1_006);
    for (const count of [0, -1, 1.5, 1_000_001, "5", Number.NaN]) {
      await expect(s.client.clock.range(count as number)).rejects.toMatchObject({ code: "INVALID" });
    }
  });

  it("passes on that a range was refused", async () => {
    const s = setup();
    s.server.answers.tick = () => ({ failure: { reason: "CLOCK_JUMP", message: "too far" } });
    const range = watch(s.client.clock.range(5));
    await s.time.settle();
    expect(range.error).toMatchObject({ code: "CLOCK_JUMP", message: "too far" });
  });
});

describe("questions", () => {
  it("describe", async () => {
    const s = setup();
    s.server.answers.describeLock = () => ({
      describeLock: {
        name: "a",
        holders: [{ token: 3, owner: "x/1", heldMs: 5, leaseDisplayId: "L1" }],
        waiters: [
          { ticketId: "T1", position: 1, owner: "y/2", waitedMs: 7, attached: true, metadata: Buffer.from("m") },
        ],
        waitersTotal: 1,
      },
    });
    const described = watch(s.client.describe("a"));
    await s.time.settle();
    expect(described.value).toMatchObject({
      name: "a",
      holders: [{ token: 3, owner: "x/1", heldMs: 5, leaseDisplayId: "L1", leaseRemainingMs: 0 }],
      waiters: [{ ticketId: "T1", position: 1, owner: "y/2", waitedMs: 7, attached: true }],
      waitersTotal: 1,
      reserved: false,
    });
  });

  it("validate", async () => {
    const s = setup();
    const answers = [{ held: true }, {}];
    s.server.answers.validate = () => ({ validate: answers.shift() ?? {} });
    const [yes, no] = [watch(s.client.validate("a", 1)), watch(s.client.validate("a", 2))];
    await s.time.settle();
    expect([yes.value, no.value]).toEqual([true, false]);
  });

  it("list locks page by page, as they are consumed", async () => {
    const s = setup();
    const pages: Record<string, { names: string[]; next: string }> = {
      "": { names: ["x/1", "x/2"], next: "p2" },
      p2: { names: [], next: "p3" },
      p3: { names: ["x/3"], next: "" },
    };
    s.server.answers.listLocks = ({ listLocks }) => {
      const { names, next } = pages[listLocks?.pageToken ?? ""] ?? { names: [], next: "" };
      return { listLocks: { locks: names.map((name) => ({ name, waiters: 1 })), nextPageToken: next } };
    };
    const seen: string[] = [];
    const listing = watch(
      (async () => {
        for await (const lock of s.client.locks({ prefix: "x/", pageSize: 2 })) seen.push(lock.name);
      })(),
    );
    await s.time.settle();
    expect(listing).toMatchObject({ settled: true });
    expect(seen).toEqual(["x/1", "x/2", "x/3"]);
    expect(s.server.connection.commands[0]).toMatchObject({ listLocks: { prefix: "x/", pageSize: 2 } });
  });

  it("are given up when no answer comes, with what is known of the cause", async () => {
    const s = setup();
    s.server.answers.validate = () => null;
    const valid = watch(s.client.validate("a", 1));
    await s.time.advance(5_100);
    expect(valid.error).toMatchObject({ code: "UNREACHABLE" });
  });

  it("an answer to something else is a bug that is reported", async () => {
    const s = setup();
    s.server.answers.validate = () => ({ release: {} });
    s.server.answers.acquire = () => ({ release: {} });
    const valid = watch(s.client.validate("a", 1));
    const taken = watch(s.client.acquire("a"));
    await s.time.settle();
    expect(valid.error).toMatchObject({ code: "INTERNAL" });
    expect(taken.error).toMatchObject({ code: "INTERNAL" });
  });
});
