/** The offset of one client's clock: the bounds hold whatever the network and the processes do. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ClockEstimate, ROUND_TRIP_MS_MAX } from "../../src/server/skew/estimate.js";

/** One renewal: when the client sends it after the one before, and how long it is on its way. */
interface Exchange {
  readonly pauseMs: number;
  readonly upMs: number;
  readonly heldMs: number;
  readonly downMs: number;
}

/** A client that renews, and a server that takes its readings, both in real time. */
class Simulation {
  readonly estimate = new ClockEstimate();
  /** Real time, which is also the server's monotonic clock. */
  nowMs = 1_000;
  #frame = 0;
  #roundTrip: { frame: number; ms: number } | null = null;

  constructor(
    /** By how much the client's wall clock is ahead of real time. */
    public clientMs: number,
    /** By how much the server's is. */
    public serverMs: number,
    readonly drift = 0,
    readonly tellsRoundTrips = true,
  ) {}

  get truthMs(): number {
    return this.clientMs + this.drift * this.nowMs - this.serverMs;
  }

  get seen() {
    return this.estimate.at(this.nowMs, Math.floor(this.nowMs + this.serverMs));
  }

  exchange({ pauseMs, upMs, heldMs, downMs }: Exchange, onTime = true): void {
    this.nowMs += pauseMs;
    const wallClockMs = Math.floor(this.nowMs + this.clientMs + this.drift * this.nowMs);
    const frame = ++this.#frame;
    const told = this.#roundTrip;
    this.nowMs += upMs;
    if (told) this.estimate.roundTrip(told.frame, told.ms, this.nowMs);
    this.estimate.reading(wallClockMs, frame, this.nowMs, onTime);
    this.nowMs += heldMs + downMs;
    this.#roundTrip = this.tellsRoundTrips ? { frame, ms: Math.ceil(upMs + heldMs + downMs) } : null;
  }

  /** Quick renewals, as on a good network. */
  renew(times = 1): void {
    for (let i = 0; i < times; i++) this.exchange({ pauseMs: 5_000, upMs: 0.4, heldMs: 0.1, downMs: 0.4 });
  }
}

const delayMs = fc.oneof(
  { weight: 6, arbitrary: fc.double({ min: 0, max: 5, noNaN: true }) },
  { weight: 2, arbitrary: fc.double({ min: 0, max: 500, noNaN: true }) },
  { weight: 1, arbitrary: fc.double({ min: 0, max: 60_000, noNaN: true }) }, // somebody stalls
);
const exchanges = fc.array(
  fc.record({
    pauseMs: fc.double({ min: 1, max: 30_000, noNaN: true }),
    upMs: delayMs,
    heldMs: delayMs,
    downMs: delayMs,
  }),
  { minLength: 2, maxLength: 30 },
);
const offsetMs = fc.oneof(
  fc.double({ min: -20, max: 20, noNaN: true }),
  fc.double({ min: -1e10, max: 1e10, noNaN: true }),
);
/** Floats of this size are that exact. */
const FLOAT_MS = 1e-3;

describe("a client that tells its round trips", () => {
  test("is off by what is told, give or take the error, at any time and whatever is late", () => {
    let measured = 0;
    fc.assert(
      fc.property(
        exchanges,
        offsetMs,
        offsetMs,
        fc.double({ min: -5e-4, max: 5e-4, noNaN: true }),
        (all, c, s, drift) => {
          const simulation = new Simulation(1.8e12 + c, 1.8e12 + s, drift);
          for (const exchange of all) {
            // Of the first frame the server does not know yet that its round trip will be told.
            simulation.exchange(exchange, exchange.upMs < ROUND_TRIP_MS_MAX);
            const { offsetMs, errorMs, certainMs } = simulation.seen;
            if (Number.isFinite(errorMs)) measured++;
            expect(Math.abs(offsetMs - simulation.truthMs)).toBeLessThanOrEqual(errorMs + FLOAT_MS);
            expect(certainMs).toBeLessThanOrEqual(Math.abs(simulation.truthMs) + FLOAT_MS);
          }
        },
      ),
      {
        numRuns: 500,
        // Drift while a frame is on its way, and nothing to hide it: the reading loses a whole millisecond, its round trip none.
        examples: [
          [
            [
              { pauseMs: 412.0515952098789, upMs: 499.999999999999, heldMs: 0, downMs: 0 },
              { pauseMs: 16.9482827198093, upMs: 0, heldMs: 0, downMs: 0 },
              { pauseMs: 1, upMs: 0, heldMs: 0, downMs: 0 },
              { pauseMs: 1, upMs: 0, heldMs: 0, downMs: 0 },
            ],
            0,
            0,
            0.0004966890243104529,
          ],
        ],
      },
    );
    expect(measured).toBeGreaterThan(1_000);
  });

  test("is known to some milliseconds on a good network", () => {
    const simulation = new Simulation(12_300, 0);
    simulation.renew(2);
    const { offsetMs, errorMs, certainMs, agoMs } = simulation.seen;
    expect(Math.abs(offsetMs - 12_300)).toBeLessThan(2);
    // 1 ms of round trip, 2 ms of rounding, and 5 s of drift between the reading and its round trip, each way.
    expect(errorMs).toBeLessThan(1.5 + 2.6);
    expect(certainMs).toBeGreaterThan(12_290);
    expect(agoMs).toBeCloseTo(0.5);
  });

  test("is not taken for behind when the server has stood still for 30 s", () => {
    const simulation = new Simulation(0, 0);
    simulation.renew(3);
    simulation.exchange({ pauseMs: 5_000, upMs: 30_000, heldMs: 0, downMs: 1 }, false);
    expect(simulation.seen.certainMs).toBe(0);
    expect(Math.abs(simulation.seen.offsetMs)).toBeLessThan(20); // as before, but 35 s of drift
    simulation.renew(2);
    expect(simulation.seen.certainMs).toBe(0);
    expect(simulation.seen.errorMs).toBeLessThan(5);
  });

  test("nor when it stood still during the very first frame", () => {
    const simulation = new Simulation(0, 0);
    simulation.exchange({ pauseMs: 0, upMs: 9_000, heldMs: 0, downMs: 1 }, false);
    expect(simulation.seen.certainMs).toBe(0);
    simulation.renew();
    expect(simulation.seen.certainMs).toBe(0);
    simulation.renew();
    expect(simulation.seen.errorMs).toBeLessThan(5);
  });

  test("a slow round trip takes nothing from what a quick one has shown", () => {
    const simulation = new Simulation(40, 0);
    simulation.renew(2);
    for (let i = 0; i < 3; i++) simulation.exchange({ pauseMs: 1_000, upMs: 2, heldMs: 0, downMs: 800 });
    expect(Math.abs(simulation.seen.offsetMs - 40)).toBeLessThan(6);
    expect(simulation.seen.errorMs).toBeLessThan(8);
  });

  test("set forward, it is seen with the next renewal, and exactly with the one after", () => {
    const simulation = new Simulation(0, 0);
    simulation.renew(3);
    simulation.clientMs += 90_000;
    simulation.renew();
    expect(simulation.seen.certainMs).toBeGreaterThan(89_990);
    expect(simulation.seen.errorMs).toBe(Number.POSITIVE_INFINITY); // how late that renewal was is not known yet
    simulation.renew();
    expect(Math.abs(simulation.seen.offsetMs - 90_000)).toBeLessThan(5);
    expect(simulation.seen.errorMs).toBeLessThan(5);
  });

  test("set back, it is seen when the round trip of the next renewal is told", () => {
    const simulation = new Simulation(0, 0);
    simulation.renew(3);
    simulation.clientMs -= 3_600_000;
    simulation.renew();
    expect(simulation.seen.certainMs).toBe(0); // it might have been on its way for an hour
    simulation.renew();
    expect(simulation.seen.certainMs).toBeGreaterThan(3_599_990);
    expect(simulation.seen.errorMs).toBeLessThan(5);
  });

  test("a round trip of another frame, or one that is too long to be believed, says nothing", () => {
    const estimate = new ClockEstimate();
    estimate.roundTrip(0, 5, 100);
    expect(estimate.known).toBe(false);
    estimate.reading(1_000_000, 7, 1_000, true);
    estimate.roundTrip(6, 1, 2_000);
    estimate.roundTrip(7, ROUND_TRIP_MS_MAX + 1, 2_000);
    expect(estimate.at(2_000, 1_001_000).errorMs).toBe(Number.POSITIVE_INFINITY);
    estimate.roundTrip(7, ROUND_TRIP_MS_MAX, 2_000);
    expect(estimate.at(2_000, 1_001_000).errorMs).toBeGreaterThan(ROUND_TRIP_MS_MAX / 2);
  });
});

test("what is known gets less exact with time", () => {
  const simulation = new Simulation(0, 0);
  simulation.renew(2);
  const before = simulation.seen.errorMs;
  simulation.nowMs += 100_000;
  expect(simulation.seen.errorMs - before).toBeCloseTo(50);
});

test("when the server's clock is set, its clients are off by that at once", () => {
  const simulation = new Simulation(0, 0);
  simulation.renew(3);
  simulation.serverMs += 60_000;
  const { offsetMs, errorMs } = simulation.seen;
  expect(Math.abs(offsetMs + 60_000)).toBeLessThan(5);
  expect(errorMs).toBeLessThan(5);
});

describe("a client that tells no round trips", () => {
  test("is ahead by the difference at least", () => {
    const simulation = new Simulation(2_000, 0, 0, false);
    simulation.renew();
    expect(simulation.seen.errorMs).toBe(Number.POSITIVE_INFINITY);
    expect(simulation.seen.certainMs).toBeGreaterThan(1_990);
    expect(Math.abs(simulation.seen.offsetMs - 2_000)).toBeLessThan(5);
  });

  test("is behind if no call takes that long", () => {
    const simulation = new Simulation(-3_600_000, 0, 0, false);
    simulation.renew();
    expect(simulation.seen.certainMs).toBeGreaterThan(3_600_000 - ROUND_TRIP_MS_MAX - 10);
    expect(simulation.seen.certainMs).toBeLessThan(3_600_000 - ROUND_TRIP_MS_MAX + 10);
    const slow = new Simulation(0, 0, 0, false);
    slow.exchange({ pauseMs: 0, upMs: 9_000, heldMs: 0, downMs: 0 });
    expect(slow.seen.certainMs).toBe(0);
  });

  test("is not taken for behind when its call has waited for a server that stood still", () => {
    const simulation = new Simulation(0, 0, 0, false);
    simulation.renew(2);
    simulation.exchange({ pauseMs: 5_000, upMs: 30_000, heldMs: 0, downMs: 1 }, false);
    expect(simulation.seen.certainMs).toBe(0);
    simulation.renew();
    expect(simulation.seen.certainMs).toBe(0);
  });

  test("set forward and back again, it is seen each time", () => {
    const simulation = new Simulation(0, 0, 0, false);
    simulation.renew(2);
    simulation.clientMs = 90_000;
    simulation.renew();
    expect(simulation.seen.certainMs).toBeGreaterThan(89_990);
    simulation.clientMs = 0;
    simulation.renew();
    expect(simulation.seen.certainMs).toBe(0);
    expect(Math.abs(simulation.seen.offsetMs)).toBeLessThan(5);
  });
});
