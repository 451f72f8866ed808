/**
 * The sequencer: the only writer.
 *
 * Commands are stepped through the core in order of arrival. All that the commands of a batch change goes into one
 * record of the journal; their replies are held until that record is durable. One append is in flight at a time, and
 * the next batch collects meanwhile: the slower the disk, the larger the batches. On an idle server the first command
 * starts its append at once. Commands that change nothing write nothing, but ride behind whatever they may have seen.
 *
 * Leadership is a recent append. Replies are given and events told only while an append that was sent less than
 * `leadershipMs` ago has succeeded; on an idle server a tick is appended every second at the latest. A server that has
 * lost its disk, or its volume to another machine, thus falls silent. What it would have said is held back until it
 * leads again, and then said in the same order: the replies of a batch, then its events.
 *
 * A failed append means that its outcome is unknown. Whatever is held fails with that code, all streams close, the core
 * is thrown away, the journal is closed and opened again, and the state is rebuilt from it. The counters go on above
 * everything that had been handed out.
 *
 * Expiry is a command like any other. It is stamped with the time at which something was seen to be due, and stepped
 * only after the input that had arrived by then has been read.
 */
import { Core, emptyEffects } from "../core/core.js";
import { quietText } from "../core/quiet.js";
import type { Floors } from "../core/recover.js";
import type { Command, CoreLimits, Counts, Effects, Reply } from "../core/types.js";
import type { Journal, JournalSnapshot, JournalStats } from "../journal/journal.js";
import type { SequencerObserver } from "./observer.js";
import { type Phase, unavailable } from "./phase.js";
import { RouteRegistry } from "./route-registry.js";
import type { CommandSink, LiveRoute, RouteFailure } from "./routes.js";
import type { ServedClock, TurnScheduler } from "./served-clock.js";

/** How often the clock is read, and what is due looked for. */
const POLL_MS = 25;
const REOPEN_MS_MIN = 100;
const REOPEN_MS_MAX = 5_000;

export interface SequencerOptions {
  readonly openJournal: () => Journal;
  readonly limits: CoreLimits;
  readonly clock: ServedClock;
  readonly turns: TurnScheduler;
  /** Commands that are not answered yet, because their batch is not durable or is held back; more are refused. */
  readonly commandsInFlightMax: number;
  /** Replies are given only while an append sent less than this ago has succeeded. */
  readonly leadershipMs: number;
  /** An idle server appends a tick this often. */
  readonly tickMs: number;
  readonly observer: SequencerObserver;
}

interface Batch {
  readonly fx: Effects;
  commands: number;
  firstAtMs: number;
}

/** A batch that is durable. `timestamp`: that of its last event, or later. */
interface Held {
  readonly batch: Batch;
  readonly timestamp: number;
}

const newBatch = (): Batch => ({ fx: emptyEffects(), commands: 0, firstAtMs: 0 });

export class Sequencer implements CommandSink {
  readonly #options: SequencerOptions;
  #phase: Phase = "starting";
  #journal!: Journal;
  #core!: Core;
  #clusterId = "";
  /** Rises with every failure: what belongs to an earlier one is over. */
  #generation = 0;
  /** Why the store is down. */
  #storeError = "";
  #batch = newBatch();
  #appending = false;
  /** Commands in the batch whose append is in flight. */
  #appendingCommands = 0;
  #durableBatch = 0;
  #durableTimestamp = 0;
  /** When the last append that succeeded was sent. */
  #leaderSinceMs = Number.NEGATIVE_INFINITY;
  #lastAppendSentMs = 0;
  #servingSinceMs = 0;
  /** Durable, but not to be told before an append succeeds in time. */
  #heldBack: Held[] = [];
  #pumpScheduled = false;
  #expiryScheduled = false;
  readonly #routes = new RouteRegistry();
  #endPoll: () => void = () => undefined;
  #idle: (() => void) | undefined;

  constructor(options: SequencerOptions) {
    this.#options = options;
  }

  /** Recovers and begins to serve. Throws when the store cannot be opened or is damaged. */
  async start(): Promise<void> {
    await this.#open(undefined);
    this.#endPoll = this.#options.turns.every(POLL_MS, () => this.#onPoll());
  }

  submit(command: Command): RouteFailure | null {
    const failure = this.#refuse(command);
    if (failure !== null) return failure;
    this.#routes.onCommand(command);
    this.#step(command, this.#options.clock.now());
    return null;
  }

  /** Whether the store takes writes. */
  get journalUp(): boolean {
    return this.#phase === "serving" && this.#leads();
  }

  /** Null while locks are granted, else why not. */
  get notServing(): string | null {
    if (this.#phase === "down") return `${unavailable.down.message}: ${this.#storeError}`;
    if (this.#phase !== "serving") return unavailable[this.#phase].message;
    if (!this.#leads()) return `no write to the store has succeeded for ${this.#options.leadershipMs} ms`;
    return this.#core.counts.halted || (this.quietMs > 0 ? quietText(this.quietMs) : null);
  }

  /** For how long nothing is granted because the store was restored from a backup; 0: it is not so, or over. */
  get quietMs(): number {
    return this.#phase === "serving" ? this.#core.quietMs(this.#options.clock.now()) : 0;
  }

  /** What is durable now, for a backup. Rejects while the store cannot be read. */
  async snapshot(): Promise<JournalSnapshot> {
    if (!this.journalUp) throw new Error(this.notServing ?? "the store is down");
    return await this.#journal.snapshot();
  }

  get clusterId(): string {
    return this.#clusterId;
  }

  get counts(): Counts | null {
    return this.#phase === "serving" || this.#phase === "draining" ? this.#core.counts : null;
  }

  /** Sessions whose stream is open. */
  get streams(): number {
    return this.#routes.streams;
  }

  get journalStats(): JournalStats {
    return this.#journal.stats();
  }

  get commandsInFlight(): number {
    const held = this.#heldBack.reduce((sum, { batch }) => sum + batch.commands, 0);
    return this.#batch.commands + this.#appendingCommands + held;
  }

  /** Takes no more commands, delivers what is held, tells every route that it is over, and closes the journal. */
  async stop(): Promise<void> {
    if (this.#phase === "closed") return;
    const serving = this.#phase === "serving";
    this.#phase = "draining";
    if (serving) await this.#drained();
    this.#endPoll();
    this.#phase = "closed";
    this.#routes.fail(unavailable.draining);
    await this.#journal?.close();
  }

  async #drained(): Promise<void> {
    this.#schedulePump();
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
      this.#signalIdle();
    });
  }

  #signalIdle(): void {
    if (this.#idle === undefined || this.#appending || this.#pumpScheduled || this.#heldBack.length > 0) return;
    this.#idle();
  }

  #refuse(command: Command): RouteFailure | null {
    if (this.#phase !== "serving") return unavailable[this.#phase];
    if (command.kind !== "call" && command.kind !== "frame" && command.kind !== "attach") return null;
    if (this.commandsInFlight < this.#options.commandsInFlightMax) return null;
    const message = `the server has ${this.#options.commandsInFlightMax} commands in flight`;
    return { reason: "LIMIT", message, retryAfterMs: 100 };
  }

  #step(command: Command, nowMs: number): void {
    const { fx } = this.#batch;
    const before = fx.replies.length;
    if (this.#batch.commands === 0) this.#batch.firstAtMs = this.#options.turns.monotonicMs();
    this.#batch.commands += command.kind === "frame" ? Math.max(1, command.requests.length) : 1;
    let dependsOn: number;
    try {
      dependsOn = this.#core.step(command, nowMs, fx);
    } catch (error) {
      this.#fail(error); // a bug; the state may be half changed
      return;
    }
    if (dependsOn <= this.#durableBatch && fx.replies.length > before && this.#leads()) {
      this.#deliver(fx.replies.splice(before), this.#durableTimestamp);
    }
    this.#schedulePump();
  }

  #schedulePump(): void {
    if (this.#pumpScheduled) return;
    this.#pumpScheduled = true;
    queueMicrotask(() => {
      this.#pumpScheduled = false;
      this.#pump(false);
      this.#signalIdle();
    });
  }

  /** Starts the next append, or, when there is nothing to write, gives the replies. */
  #pump(tick: boolean): void {
    if (this.#appending || (this.#phase !== "serving" && this.#phase !== "draining")) return;
    const batch = this.#batch;
    const lead = this.#leads();
    const { replies, events } = batch.fx;
    const stale = !lead && (replies.length > 0 || events.length > 0 || this.#heldBack.length > 0);
    if (!this.#core.seal(this.#options.clock.now(), batch.fx, tick || stale)) {
      this.#batch = newBatch();
      if (replies.length > 0 || events.length > 0) this.#say({ batch, timestamp: this.#core.timestamp });
      return;
    }
    this.#batch = newBatch();
    this.#append(batch, this.#core.batch - 1, this.#core.timestamp);
  }

  #append(batch: Batch, number: number, timestamp: number): void {
    const sentMs = this.#options.turns.monotonicMs();
    const generation = this.#generation;
    this.#appending = true;
    this.#appendingCommands = batch.commands;
    this.#lastAppendSentMs = sentMs;
    this.#journal.append(batch.fx.mutations).then(
      () => {
        if (generation === this.#generation) this.#onDurable(batch, number, timestamp, sentMs);
      },
      (error) => {
        if (generation === this.#generation) this.#fail(error);
      },
    );
  }

  #onDurable(batch: Batch, number: number, timestamp: number, sentMs: number): void {
    const nowMs = this.#options.turns.monotonicMs();
    this.#appending = false;
    this.#appendingCommands = 0;
    this.#durableBatch = number;
    this.#durableTimestamp = timestamp;
    this.#leaderSinceMs = sentMs;
    if (batch.commands > 0) {
      this.#options.observer.commit((nowMs - sentMs) / 1000, (sentMs - batch.firstAtMs) / 1000, batch.commands);
    }
    this.#heldBack.push({ batch, timestamp });
    if (this.#leads()) {
      const held = this.#heldBack;
      this.#heldBack = [];
      for (const one of held) this.#say(one);
    }
    this.#pump(false);
    this.#signalIdle();
  }

  #leads(): boolean {
    return this.#options.turns.monotonicMs() - this.#leaderSinceMs < this.#options.leadershipMs;
  }

  #say({ batch, timestamp }: Held): void {
    const { observer } = this.#options;
    this.#deliver(batch.fx.replies, timestamp);
    for (const event of batch.fx.events) observer.event(event);
    observer.told(timestamp);
  }

  #deliver(replies: readonly Reply[], timestamp: number): void {
    const flush = new Set<LiveRoute>();
    let last: LiveRoute | undefined;
    for (const reply of replies) {
      const route = reply.route as LiveRoute;
      if (route !== last) {
        flush.add(route);
        last = route;
      }
      this.#routes.onReply(reply, route);
      route.deliver(reply, timestamp);
    }
    for (const route of flush) route.flush();
  }

  #onPoll(): void {
    if (this.#phase !== "serving") return;
    const { clock, turns } = this.#options;
    const nowMs = clock.now();
    if (!this.#expiryScheduled && this.#isDue(nowMs)) this.#scheduleExpiry(nowMs);
    if (!this.#appending && turns.monotonicMs() - this.#lastAppendSentMs >= this.#tickDueMs()) this.#pump(true);
  }

  /**
   * A restart takes off the time that was recorded as served. To lose no more than an eighth of an incarnation, however
   * short, ticks are dense at first.
   */
  #tickDueMs(): number {
    const servedMs = this.#options.turns.monotonicMs() - this.#servingSinceMs;
    return Math.min(this.#options.tickMs, servedMs / 8);
  }

  #isDue(nowMs: number): boolean {
    const due = this.#core.nextDueMs;
    return due !== null && due <= nowMs && this.#options.clock.mayExpire();
  }

  /** Steps an expiry behind the input that has arrived until now: two turns of the loop read it. */
  #scheduleExpiry(dueAtMs: number): void {
    this.#expiryScheduled = true;
    const { turns } = this.#options;
    turns.afterTurn(() =>
      turns.afterTurn(() => {
        this.#expiryScheduled = false;
        if (this.#phase !== "serving" || !this.#options.clock.mayExpire()) return;
        this.#step({ kind: "expire" }, dueAtMs);
        const nowMs = this.#options.clock.now();
        if (this.#phase === "serving" && this.#isDue(nowMs)) this.#scheduleExpiry(nowMs);
      }),
    );
  }

  /** The outcome of the batch in flight, and of the one being built, is unknown: starts over from the journal. */
  #fail(error: unknown): void {
    if (this.#phase === "closed" || this.#phase === "down") return;
    const floors = this.#core.floors;
    const draining = this.#phase === "draining";
    this.#phase = draining ? "draining" : "down";
    this.#generation++;
    this.#appending = false;
    this.#appendingCommands = 0;
    this.#batch = newBatch();
    this.#heldBack = [];
    this.#storeFailed(error);
    this.#routes.fail({
      reason: "OUTCOME_UNKNOWN",
      message: "the store failed; it is unknown whether this took effect",
      retryAfterMs: 1000,
    });
    if (draining) this.#signalIdle();
    else void this.#reopen(floors);
  }

  #storeFailed(error: unknown): void {
    this.#storeError = error instanceof Error ? error.message : String(error);
    this.#options.observer.storeFailed(error);
  }

  async #reopen(floors: Floors): Promise<void> {
    await this.#journal.close().catch((error) => this.#storeFailed(error));
    for (let waitMs = REOPEN_MS_MIN; this.#phase === "down"; waitMs = Math.min(2 * waitMs, REOPEN_MS_MAX)) {
      try {
        await this.#open(floors);
        return;
      } catch (error) {
        this.#storeFailed(error);
        await this.#journal.close().catch(() => undefined); // it has failed already; the next round opens a new one
        await this.#options.turns.delay(waitMs);
      }
    }
  }

  /** Opens the journal, rebuilds the state and makes the begin of the new incarnation durable. */
  async #open(floors: Floors | undefined): Promise<void> {
    const { clock, limits, openJournal, turns } = this.#options;
    this.#journal = openJournal();
    const { clusterId, entries, replayedRecords } = await this.#journal.open();
    const fx = emptyEffects();
    const nowMs = clock.now();
    const core = Core.recover(
      entries,
      floors ? { limits, clusterId, nowMs, floors } : { limits, clusterId, nowMs },
      fx,
    );
    const sentMs = turns.monotonicMs();
    await this.#journal.append(fx.mutations);
    if (this.#phase === "draining" || this.#phase === "closed") return;
    this.#core = core;
    this.#clusterId = clusterId;
    this.#batch = newBatch();
    this.#durableBatch = core.batch - 1;
    this.#durableTimestamp = core.timestamp;
    this.#leaderSinceMs = sentMs;
    this.#lastAppendSentMs = sentMs;
    this.#servingSinceMs = turns.monotonicMs();
    this.#phase = "serving";
    this.#options.observer.storeRecovered(replayedRecords, core.timestamp);
    for (const event of fx.events) this.#options.observer.event(event);
  }
}
