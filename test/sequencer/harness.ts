import type { Command, CoreEvent, CoreLimits, Outcome, Reply, Request } from "../../src/server/core/types.js";
import type { Journal, JournalSnapshot, JournalStats, Mutations, Recovery } from "../../src/server/journal/journal.js";
import type { LiveRoute, RouteFailure } from "../../src/server/sequencer/routes.js";
import { Sequencer, type SequencerOptions } from "../../src/server/sequencer/sequencer.js";
import { ServedClock, type TurnScheduler } from "../../src/server/sequencer/served-clock.js";

export const limits: CoreLimits = {
  nameBytesMax: 512,
  metadataBytesMax: 4096,
  ownerBytesMax: 256,
  ttlMsMin: 500,
  ttlMsMax: 86_400_000,
  ttlMsDefault: 15_000,
  waitMsMax: 86_400_000,
  leasesMax: 10_000,
  locksMax: 10_000,
  waitersPerLockMax: 1_000,
  holdersPerLockMax: 1_000,
  locksPerAcquireMax: 64,
  permitLimitMax: 10_000,
  contenderBytesMax: 128,
  heldTokensMax: 64,
  lockDelayMsMax: 86_400_000,
  maxHoldMsMax: 86_400_000,
  forceMessageBytesMax: 256,
  deadlockSearchMax: 1_000,
  blockerHopsMax: 32,
  holdsPerLeaseMax: 1_000,
  sessionsMax: 1_000,
  commandsPerSessionMax: 1_000,
  requestsRememberedMax: 1_000,
  requestRememberedMs: 60_000,
  resumeMs: 5_000,
  tickCountMax: 1_000_000,
  clockJumpPerSecondMax: 1_000_000,
  expirySliceMax: 100,
};

/** An event loop that turns when the test says so. */
export class FakeTurns implements TurnScheduler {
  #nowMs = 1_000_000;
  #afterTurn: (() => void)[] = [];
  readonly #intervals = new Set<{ everyMs: number; dueMs: number; f: () => void }>();
  readonly #delays = new Set<{ dueMs: number; resolve: () => void }>();

  monotonicMs(): number {
    return this.#nowMs;
  }
  afterTurn(f: () => void): void {
    this.#afterTurn.push(f);
  }
  every(everyMs: number, f: () => void): () => void {
    const interval = { everyMs, dueMs: this.#nowMs + everyMs, f };
    this.#intervals.add(interval);
    return () => this.#intervals.delete(interval);
  }
  delay(ms: number): Promise<void> {
    return new Promise((resolve) => this.#delays.add({ dueMs: this.#nowMs + ms, resolve }));
  }

  /** Time passes without a turn of the loop: a stall, or a slow disk. */
  pass(ms: number): void {
    this.#nowMs += ms;
  }

  /** One turn: timers that are due (once each, as in a real loop), then what the input is, then what waits for the end. */
  async turn(input: () => void = () => undefined): Promise<void> {
    for (const interval of this.#intervals) {
      if (interval.dueMs > this.#nowMs) continue;
      interval.dueMs = this.#nowMs + interval.everyMs;
      interval.f();
    }
    for (const delay of this.#delays) {
      if (delay.dueMs > this.#nowMs) continue;
      this.#delays.delete(delay);
      delay.resolve();
    }
    await settle();
    input();
    await settle();
    const after = this.#afterTurn;
    this.#afterTurn = [];
    for (const f of after) f();
    await settle();
  }

  /** Time passes in turns of 20 ms. */
  async run(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 20) {
      this.pass(Math.min(20, ms - passed));
      await this.turn();
    }
  }
}

/** Lets all promises that can go on go on. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 50; i++) await Promise.resolve();
}

/** A store that completes, or fails, an append when the test says so. */
export class ManualJournal implements Journal {
  readonly store = "manual";
  readonly #disk: ManualDisk;
  #closed = false;

  constructor(disk: ManualDisk) {
    this.#disk = disk;
  }
  async open(): Promise<Recovery> {
    if (this.#disk.openError) throw this.#disk.openError;
    this.#disk.opens++;
    return { clusterId: "c".repeat(32), entries: new Map(this.#disk.entries), replayedRecords: 0 };
  }
  append(mutations: Mutations): Promise<void> {
    if (this.#closed) throw new Error("append after close");
    if (this.#disk.pending) throw new Error("two appends in flight");
    const copy = [...mutations];
    this.#disk.appends++;
    if (!this.#disk.manual) {
      this.#disk.apply(copy);
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      this.#disk.pending = { mutations: copy, resolve, reject };
    });
  }
  async snapshot(): Promise<JournalSnapshot> {
    throw new Error("not for these tests");
  }
  stats(): JournalStats {
    return { writtenBytes: 0, logBytes: 0, checkpointLagRecords: 0 };
  }
  async close(): Promise<void> {
    this.#closed = true;
    this.#disk.pending = undefined;
  }
}

export class ManualDisk {
  entries = new Map<string, string>();
  pending: { mutations: Mutations; resolve: () => void; reject: (error: Error) => void } | undefined;
  manual = false;
  appends = 0;
  opens = 0;
  openError: Error | undefined;

  apply(mutations: Mutations): void {
    for (let i = 0; i < mutations.length; i += 2) {
      const value = mutations[i + 1] as string | null;
      if (value === null) this.entries.delete(mutations[i] as string);
      else this.entries.set(mutations[i] as string, value);
    }
  }
  /** The append in flight becomes durable. */
  async complete(): Promise<void> {
    const { pending } = this;
    if (!pending) throw new Error("no append is in flight");
    this.pending = undefined;
    this.apply(pending.mutations);
    pending.resolve();
    await settle();
  }
  /** The append in flight fails; what it wrote may be found later all the same. */
  async fail(written: boolean): Promise<void> {
    const { pending } = this;
    if (!pending) throw new Error("no append is in flight");
    this.pending = undefined;
    if (written) this.apply(pending.mutations);
    pending.reject(new Error("ENOSPC"));
    await settle();
  }
}

export class FakeRoute implements LiveRoute {
  readonly kind: "call" | "stream";
  readonly replies: Reply[] = [];
  readonly failures: RouteFailure[] = [];
  flushes = 0;

  constructor(kind: "call" | "stream" = "call") {
    this.kind = kind;
  }
  deliver(reply: Reply): void {
    this.replies.push(reply);
  }
  flush(): void {
    this.flushes++;
  }
  fail(failure: RouteFailure): void {
    this.failures.push(failure);
  }
  get outcomes(): Outcome[] {
    return this.replies.flatMap((reply) => (reply.kind === "outcome" ? [reply.outcome] : []));
  }
  /** The one outcome there is. */
  get outcome(): Outcome {
    if (this.outcomes.length !== 1) throw new Error(`${this.outcomes.length} outcomes instead of one`);
    return this.outcomes[0] as Outcome;
  }
}

export class Harness {
  readonly turns = new FakeTurns();
  readonly disk = new ManualDisk();
  readonly events: CoreEvent[] = [];
  /** Up to which timestamp all events have been told, and how many there were then. */
  readonly told: { readonly timestamp: number; readonly events: number }[] = [];
  readonly recovered: number[] = [];
  readonly errors: unknown[] = [];
  readonly sequencer: Sequencer;
  #ids = 0;

  constructor(overrides: Partial<SequencerOptions> = {}) {
    this.sequencer = new Sequencer({
      openJournal: () => new ManualJournal(this.disk),
      limits,
      clock: new ServedClock(this.turns),
      turns: this.turns,
      commandsInFlightMax: 1_000,
      leadershipMs: 5_000,
      tickMs: 1_000,
      observer: {
        commit: () => undefined,
        event: (event) => this.events.push(event),
        told: (timestamp) => this.told.push({ timestamp, events: this.events.length }),
        storeFailed: (error) => this.errors.push(error),
        storeRecovered: (_replayedRecords, timestamp) => this.recovered.push(timestamp),
      },
      ...overrides,
    });
  }

  static async started(overrides: Partial<SequencerOptions> = {}): Promise<Harness> {
    const harness = new Harness(overrides);
    await harness.sequencer.start();
    return harness;
  }

  submit(command: Command): RouteFailure | null {
    return this.sequencer.submit(command);
  }

  call(request: Request): FakeRoute {
    const route = new FakeRoute();
    const failure = this.submit({ kind: "call", request, route, observed: 0 });
    if (failure) route.fail(failure);
    return route;
  }

  acquire(
    name: string,
    options: { leaseId?: string; ttlMs?: number; waitMs?: number; requestId?: string } = {},
  ): FakeRoute {
    return this.call({
      kind: "acquire",
      items: [{ name, mode: "exclusive", permits: 0, permitLimit: 0 }],
      all: false,
      holder: options.leaseId
        ? { kind: "lease", leaseId: options.leaseId }
        : { kind: "own", leaseId: `own-${++this.#ids}`, ttlMs: options.ttlMs ?? 10_000 },
      waitMs: options.waitMs ?? 0,
      pollMs: 10_000,
      requestId: options.requestId ?? "",
      owner: "test",
      metadata: "",
      wallMs: 0,
      lockDelayMs: 0,
      maxHoldMs: 0,
      contenderId: "",
      heldTokens: [],
    });
  }

  createLease(leaseId: string, ttlMs: number): FakeRoute {
    return this.call({ kind: "createLease", leaseId, ttlMs, owner: "test", metadata: "", progressEveryMs: 0 });
  }

  /** A command, its append and its reply, on a disk that is not manual. */
  async done(route: FakeRoute): Promise<Outcome> {
    await settle();
    return route.outcome;
  }

  token(outcome: Outcome): number {
    if (outcome.kind !== "grant") throw new Error(`not granted: ${JSON.stringify(outcome)}`);
    return outcome.grants[0]?.token as number;
  }
}
