/** The clocks of all clients: who counts, for how long, and what is told of them. */
import pino from "pino";
import { describe, expect, test } from "vitest";
import { ClientClocks, type ClockReading, type RenewedLease } from "../../src/server/skew/client-clocks.js";

type Line = Readonly<Record<string, unknown>>;

class World {
  nowMs = 1_000;
  /** By how much the server's wall clock is ahead of its monotonic one. */
  serverMs = 1.8e12;
  onTime = true;
  readonly lines: Line[] = [];
  readonly clocks: ClientClocks;

  constructor() {
    const settings = { base: null, timestamp: false, formatters: { level: (level: string) => ({ level }) } };
    this.clocks = new ClientClocks({
      warnMs: 500,
      monotonicMs: () => this.nowMs,
      wallMs: () => this.nowMs + this.serverMs,
      onTime: () => this.onTime,
      log: pino(settings, { write: (line) => this.lines.push(JSON.parse(line) as Line) }),
    });
  }

  /** What a client says whose clock is ahead by so much, and whose last frame took 1 ms. */
  says(aheadMs: number, roundTripFrame = 0, roundTripMs = 1): ClockReading {
    return { wallClockMs: this.nowMs + this.serverMs + aheadMs, roundTripMs, roundTripFrame };
  }

  /** A session that has been measured. */
  session(owner: string, aheadMs: number, client = "sdk 1") {
    const session = this.clocks.session(owner, client);
    session.heard(1, this.says(aheadMs, 0, 0));
    session.attached();
    session.heard(2, this.says(aheadMs, 1));
    return session;
  }

  lease(lease: Partial<RenewedLease>, aheadMs: number, roundTripMs = 1): void {
    const all = { leaseId: "secret", displayId: "L1", owner: "py", ttlMs: 10_000, ...lease };
    this.clocks.lease(all, this.says(aheadMs, 0, roundTripMs), this.nowMs);
  }

  get report() {
    return this.clocks.report();
  }
}

describe("sessions", () => {
  test("count from the welcome until the stream ends, if they tell their clock", () => {
    const world = new World();
    expect(world.report).toEqual({
      measured: 0,
      skewed: 0,
      warnMs: 500,
      certainMsMax: undefined,
      clients: [],
      serverAheadMs: 0,
    });
    const session = world.clocks.session("billing/1", "sdk 1");
    session.heard(1, world.says(12_300, 0, 0));
    expect(world.report.measured).toBe(0);
    session.attached();
    expect(world.report).toMatchObject({ measured: 1, skewed: 1, clients: [{ owner: "billing/1" }] });
    const silent = world.clocks.session("old/1", "sdk 0");
    silent.heard(1, { wallClockMs: 0, roundTripMs: 0, roundTripFrame: 0 });
    silent.attached();
    expect(world.report.measured).toBe(1);
    session.gone();
    session.gone();
    expect(world.report).toMatchObject({ measured: 0, skewed: 0, certainMsMax: undefined });
  });

  test("are told with their offset, the error, and how old that is", () => {
    const world = new World();
    world.session("billing/1", 12_300);
    world.nowMs += 4_000;
    const [clock] = world.report.clients;
    expect(clock).toMatchObject({ owner: "billing/1", client: "sdk 1", leaseDisplayId: "", agoMs: 4_000 });
    expect(Math.abs((clock?.offsetMs ?? 0) - 12_300)).toBeLessThan(1.5);
    expect(clock?.errorMs).toBeLessThan(4);
    expect(world.report.certainMsMax).toBeLessThan(12_300);
    expect(world.report.certainMsMax).toBeGreaterThan(12_290);
  });

  test("that are off by less than the limit are measured and not named", () => {
    const world = new World();
    world.session("a", 490);
    world.session("b", -490);
    expect(world.report).toMatchObject({ measured: 2, skewed: 0, clients: [] });
    expect(world.report.certainMsMax).toBeGreaterThan(480);
    world.session("c", -510);
    expect(world.report).toMatchObject({ measured: 3, skewed: 1, clients: [{ owner: "c" }] });
  });

  test("only the ten that are most off are named, the worst first", () => {
    const world = new World();
    const order = [5, 12, 1, 9, 3, 11, 7, 2, 10, 4, 8, 6];
    for (const n of order) world.session(`s${n}`, n % 2 === 0 ? n * 1_000 : -n * 1_000);
    const { skewed, clients } = world.report;
    expect(skewed).toBe(12);
    expect(clients.map(({ owner }) => owner)).toEqual([12, 11, 10, 9, 8, 7, 6, 5, 4, 3].map((n) => `s${n}`));
  });

  test("may claim any time at all", () => {
    const world = new World();
    for (const wallClockMs of [1, 2 ** 53 - 1, 8.64e15]) {
      const session = world.clocks.session(`at ${wallClockMs}`, "");
      for (let frame = 1; frame <= 3; frame++) {
        session.heard(frame, { wallClockMs, roundTripMs: 2 ** 53 - 1, roundTripFrame: 2 ** 53 - 1 });
        session.heard(frame, { wallClockMs, roundTripMs: 1, roundTripFrame: frame });
      }
      session.attached();
    }
    const { skewed, clients, certainMsMax } = world.report;
    expect(skewed).toBe(3);
    for (const { offsetMs } of clients) expect(Number.isFinite(offsetMs)).toBe(true);
    expect(Number.isFinite(certainMsMax)).toBe(true);
  });
});

describe("leases of unary calls", () => {
  test("count until their TTL is over, or they are revoked", () => {
    const world = new World();
    world.lease({}, 90_000);
    world.nowMs += 9_999;
    expect(world.report).toMatchObject({ skewed: 1, clients: [{ owner: "py", client: "", leaseDisplayId: "L1" }] });
    world.lease({}, 90_000);
    world.nowMs += 9_999;
    expect(world.report.measured).toBe(1);
    world.nowMs += 1;
    expect(world.report.measured).toBe(0);
    world.lease({}, 90_000);
    world.clocks.leaseEnded("secret");
    expect(world.report.measured).toBe(0);
  });

  test("a round trip is that of the last call", () => {
    const world = new World();
    world.lease({}, -700, 0);
    expect(world.report.skewed).toBe(0); // the call may have been on its way for 700 ms
    world.nowMs += 3_000;
    world.lease({}, -700, 20);
    expect(world.report.skewed).toBe(1);
    expect(world.report.clients[0]?.errorMs).toBeLessThan(14);
  });

  test("of one program are one client; those of different clocks, or without an owner, are not", () => {
    const world = new World();
    for (let i = 0; i < 50; i++) world.lease({ leaseId: `a${i}`, displayId: `L${i}` }, 90_000 + (i % 5) * 100, 0);
    expect(world.report).toMatchObject({ measured: 1, skewed: 1 });
    world.lease({ leaseId: "b" }, -90_000, 0);
    world.lease({ leaseId: "c", owner: "other" }, 90_000, 0);
    expect(world.report).toMatchObject({ measured: 3, skewed: 3 });
    world.lease({ leaseId: "d", owner: "" }, 0, 0);
    world.lease({ leaseId: "e", owner: "" }, 0, 0);
    expect(world.report.measured).toBe(5);
  });

  test("of several, the one that is known best is told", () => {
    const world = new World();
    world.lease({ leaseId: "a", displayId: "La" }, 90_000, 0);
    for (let i = 0; i < 2; i++) world.lease({ leaseId: "b", displayId: "Lb" }, 90_000, 3);
    world.lease({ leaseId: "c", displayId: "Lc" }, 90_010, 0);
    expect(world.report.clients).toMatchObject([{ leaseDisplayId: "Lb" }]);
    expect(world.report.clients[0]?.errorMs).toBeLessThan(5);
  });

  test("are bounded: the one renewed longest ago is forgotten", () => {
    const world = new World();
    for (let i = 0; i < 10_000; i++) world.lease({ leaseId: `l${i}`, owner: `o${i}`, ttlMs: 1e9 }, 0);
    world.lease({ leaseId: "l0", owner: "o0", ttlMs: 1e9 }, 90_000);
    world.lease({ leaseId: "one more", owner: "one more", ttlMs: 1e9 }, 90_000);
    expect(world.report.measured).toBe(10_000);
    expect(world.report.clients.map(({ owner }) => owner).sort()).toEqual(["o0", "one more"]);
  });

  test("whose call came just after a stall of the server's say nothing of being behind", () => {
    const world = new World();
    world.onTime = false;
    world.lease({}, -60_000, 0);
    expect(world.report.skewed).toBe(0);
    world.onTime = true;
    world.lease({}, -60_000, 0);
    expect(world.report.skewed).toBe(1);
  });
});

describe("the server's own clock", () => {
  test("is the one that is off when most clients are off by the same", () => {
    const world = new World();
    for (const ahead of [100, -100, 0, 50]) world.session(`s${ahead}`, ahead);
    world.session("really off", 90_000);
    expect(world.report).toMatchObject({ skewed: 1, serverAheadMs: 0 });
    world.serverMs -= 3_600_000; // it is set back: everybody is ahead by an hour
    const { skewed, serverAheadMs } = world.report;
    expect(skewed).toBe(5);
    expect(Math.abs(serverAheadMs + 3_600_000)).toBeLessThan(100);
    world.serverMs += 3_600_000;
    expect(world.report).toMatchObject({ skewed: 1, serverAheadMs: 0 });
  });

  test("is not accused by a minority, by two, or by clients that disagree", () => {
    const two = new World();
    for (const owner of ["a", "b"]) two.session(owner, 5_000);
    expect(two.report).toMatchObject({ skewed: 2, serverAheadMs: 0 });
    two.session("c", 5_000);
    expect(two.report.serverAheadMs).toBeLessThan(-4_900);
    for (const owner of ["d", "e", "f"]) two.session(owner, 0);
    expect(two.report).toMatchObject({ skewed: 3, serverAheadMs: 0 });
    const differ = new World();
    for (const ahead of [2_000, 9_000, -4_000, 30_000, -80_000]) differ.session(`s${ahead}`, ahead);
    expect(differ.report).toMatchObject({ skewed: 5, serverAheadMs: 0 });
  });

  test("is accused whatever the order in which the clients came", () => {
    const offsets = [5_000, 5_100, 4_900, 5_050, -70_000, 20_000, 0];
    for (let shift = 0; shift < offsets.length; shift++) {
      const world = new World();
      for (let i = 0; i < offsets.length; i++) world.session(`s${i}`, offsets[(i + shift) % offsets.length] as number);
      expect(Math.abs(world.report.serverAheadMs + 5_000), `shifted by ${shift}`).toBeLessThan(200);
    }
  });
});

describe("the log", () => {
  test("has a line when a clock goes wrong, and one when it is right again", () => {
    const world = new World();
    const session = world.session("billing/1", 0);
    for (let i = 0; i < 3; i++) session.heard(3 + i, world.says(12_300, 2 + i));
    expect(world.lines).toMatchObject([
      {
        level: "warn",
        owner: "billing/1",
        client: "sdk 1",
        msg: expect.stringMatching(/^the wall clock of a client is off/),
      },
    ]);
    expect(Math.abs((world.lines[0]?.offsetMs as number) - 12_300)).toBeLessThan(2);
    for (let i = 0; i < 3; i++) session.heard(6 + i, world.says(400, 5 + i));
    expect(world.lines).toHaveLength(1); // better, but not yet well
    for (let i = 0; i < 3; i++) session.heard(9 + i, world.says(0, 8 + i));
    expect(world.lines.slice(1)).toMatchObject([{ level: "info", msg: "the wall clock of a client is right again" }]);
  });

  test("has nothing of a client that was never welcome", () => {
    const world = new World();
    const session = world.clocks.session("stranger", "");
    session.heard(1, world.says(90_000));
    expect(world.lines).toEqual([]);
  });

  test("names a lease by its display id, and no secret", () => {
    const world = new World();
    world.lease({ owner: "" }, 90_000);
    expect(world.lines).toMatchObject([{ leaseDisplayId: "L1" }]);
    expect(JSON.stringify(world.lines)).not.toContain("secret");
  });

  test("has so many lines a minute, and says how many were left out", () => {
    const world = new World();
    for (let i = 0; i < 100; i++) world.session(`s${i}`, 90_000);
    expect(world.lines).toHaveLength(60);
    world.nowMs += 60_000;
    world.session("later", 90_000);
    expect(world.lines.at(-1)).toMatchObject({ owner: "later", leftOutBefore: 40 });
    world.session("and later", 90_000);
    expect(world.lines.at(-1)).not.toHaveProperty("leftOutBefore");
  });
});
