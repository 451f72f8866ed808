/**
 * The client never believes in a lock that the server has ceased to promise, whatever the network, a stopped process, an
 * administrator and the holder itself do, drawn at random. A seed that fails is printed; run it alone with PROMISES_SEED.
 */
import { expect, it } from "vitest";
import { LeaseholdClient } from "../../src/client/client.js";
import type { HeldLock } from "../../src/client/held-lock.js";
import type { Lease } from "../../src/client/lease.js";
import { PromisingServer } from "./promising-server.js";
import { FakeTime } from "./support.js";

const STEPS = 150;
const first = Number(process.env.PROMISES_SEED ?? 1 + Math.floor(Math.random() * 1e9));
const seeds = Array.from({ length: process.env.PROMISES_SEED ? 1 : 60 }, (_, i) => first + i);

/** mulberry32 */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

class World {
  readonly time = new FakeTime();
  readonly random: () => number;
  readonly server: PromisingServer;
  readonly client: LeaseholdClient;
  readonly locks: HeldLock[] = [];
  readonly leases: Lease[] = [];
  /** How often a lock was believed in, and how it was lost, to see that the test looks at something. */
  believed = 0;
  readonly seen = new Set<string>();

  constructor(readonly seed: number) {
    this.random = generator(seed);
    this.server = new PromisingServer(this.time, this.random);
    this.client = new LeaseholdClient(
      {
        transport: this.server,
        time: this.time,
        random: this.random,
        connectTimeoutMs: 2_000,
        idleMs: 3_600_000,
        clientName: "test",
      },
      { ttlMs: 6_000, waitMs: 10_000, owner: "me" },
    );
    this.client.on("warning", () => {});
  }

  below(n: number): number {
    return Math.floor(this.random() * n);
  }

  check(after: string): void {
    for (const lock of this.locks) {
      const { state } = lock;
      if (state.is !== "held" && state.is !== "jeopardy") {
        this.seen.add(state.is === "lost" ? state.reason : state.is);
        continue;
      }
      if (this.server.holds.get(lock.grant.token)?.broken) continue;
      this.believed += 1;
      const hold = this.server.holdOf(lock.grant.token);
      const what = `seed ${this.seed}, after ${after}: ${lock.name} (token ${lock.grant.token})`;
      expect(hold, `${what} is believed to be held`).toBeDefined();
      expect(lock.mode === "exclusive" && hold?.mode !== 1, `${what} is believed to be exclusive`).toBe(false);
    }
  }

  async step(): Promise<string> {
    const lock = this.locks[this.below(this.locks.length)];
    const lease = this.leases[this.below(this.leases.length)];
    const ignore = () => {};
    const actions: [string, number, () => unknown][] = [
      ["a little time", 30, () => this.time.advance(this.below(300))],
      ["time", 10, () => this.time.advance(this.below(3_000))],
      ["a stall", 6, () => this.time.stall(this.below(7_000))],
      ["a break", 6, () => this.server.break()],
      ["another network", 3, () => (this.server.delayMsMax = [1, 20, 400, 3_000][this.below(4)] as number)],
      ["an acquire", 20, () => this.#acquire(lease)],
      ["a lease", 3, () => this.#lease()],
      ["a release", 6, () => void lock?.release()],
      ["a transfer", 4, () => void lock?.transfer({ ticketId: "T1" }).catch(ignore)],
      ["a downgrade", 4, () => void lock?.downgrade().catch(ignore)],
      ["progress", 15, () => lease?.state.is === "held" && lease.progress()],
      ["a forced release", 5, () => lock && this.server.force(lock.grant.token, this.random() < 0.5)],
    ];
    let at = this.below(actions.reduce((sum, [, weight]) => sum + weight, 0));
    for (const [what, weight, act] of actions) {
      at -= weight;
      if (at >= 0) continue;
      await act();
      return what;
    }
    return "nothing";
  }

  #acquire(lease: Lease | undefined): void {
    const through = [{}, { ttl: 3_000 }, lease?.state.is === "held" ? { lease } : {}][this.below(3)];
    const mode = this.random() < 0.7 ? {} : { mode: "shared" as const };
    const limit = this.random() < 0.6 ? {} : { maxHold: 500 + this.below(8_000) };
    const taken = this.client.acquire(`lock/${this.locks.length}`, { ...through, ...mode, ...limit });
    taken.then(
      (lock) => void this.locks.push(lock),
      () => {},
    );
  }

  #lease(): void {
    const asked = this.client.lease({ ttl: 4_000, progressEvery: 2_000 + this.below(4_000) });
    asked.then(
      (lease) => void this.leases.push(lease),
      () => {},
    );
  }
}

it("belief never outlives the promise", async () => {
  let believed = 0;
  const seen = new Set<string>();
  for (const seed of seeds) {
    const world = new World(seed);
    for (let i = 0; i < STEPS; i++) {
      const what = await world.step();
      // At once: before any timer or message has told the client anything.
      world.check(`step ${i}, ${what}`);
      await world.time.settle();
      world.check(`step ${i}, ${what}, and what followed`);
    }
    believed += world.believed;
    for (const one of world.seen) seen.add(one);
  }
  if (seeds.length === 1) return;
  expect(believed).toBeGreaterThan(1_000);
  expect([...seen].sort()).toEqual(expect.arrayContaining(["expired", "forced", "max_hold", "released"]));
});
