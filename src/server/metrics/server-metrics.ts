/**
 * Everything that the server counts. The methods are called on the hot path and only move numbers in arrays; prom-client
 * reads them at the scrape (`register.ts`).
 */
import type { Registry } from "prom-client";
import type { CoreEvent, Counts } from "../core/types.js";
import type { CertificateFacts, LimitUse } from "../diagnosis/diagnosis.js";
import type { ResourceFigures } from "../diagnosis/resources.js";
import type { JournalObserver, JournalStats } from "../journal/journal.js";
import type { WireReason } from "../rpc/errors.js";
import type { ClockSkewReport } from "../skew/report.js";
import { Accumulator, Count, cells } from "./accumulators.js";
import * as define from "./definitions.js";
import { LoopLag } from "./loop-lag.js";
import { registerAll } from "./register.js";

/** What is not counted but looked up at the scrape. */
export interface GaugeSnapshot {
  /** Undefined while the state is being recovered. */
  readonly counts?: Counts | undefined;
  /** Sessions whose stream is open. */
  readonly sessionsAttached: number;
  /** Commands that wait for the sequencer. */
  readonly commandsQueued: number;
  /** Whether the store takes writes. */
  readonly journalUp: boolean;
  /** Undefined while the store is closed. */
  readonly journal?: JournalStats | undefined;
  readonly draining: boolean;
  /** For how long nothing is granted after a restore. */
  readonly quietMs?: number | undefined;
  /** Whether locks are granted now. */
  readonly leader: boolean;
  /** Open watches. */
  readonly watchers: number;
  readonly limits: readonly LimitUse[];
  readonly certificates: readonly CertificateFacts[];
  readonly resources: ResourceFigures;
  /** Undefined where no clocks are measured. */
  readonly clocks?: Pick<ClockSkewReport, "measured" | "skewed" | "certainMsMax"> | undefined;
}

export interface ServerMetricsOptions {
  readonly version: string;
  /** "level" or "memory" */
  readonly store: string;
  readonly snapshot: () => GaugeSnapshot;
  /** Is told of every sample of the event loop's lag. */
  readonly onLag?: (seconds: number) => void;
  /** Also tell about the process: memory, CPU, garbage collection. Default: true. */
  readonly processMetrics?: boolean;
}

/** A turn of the event loop that takes longer has delayed renewals. */
const STALL_SECONDS = 0.1;

const counters = <K extends string>(keys: readonly K[]) => cells(keys, () => new Count());
/** By mode, then by something else. */
const histograms = <K extends string>(keys: readonly K[], bounds: readonly number[]) =>
  cells(define.lockModes, () => cells(keys, () => histogram(bounds)));
const histogram = (bounds: readonly number[]) => new Accumulator(bounds);

export class ServerMetrics {
  readonly acquires = histograms(define.acquireOutcomes, define.ACQUIRE_BOUNDS);
  readonly holds = histograms(define.holdEnds, define.HOLD_BOUNDS);
  readonly deadlocks = new Count();
  readonly deadlockSearchesCut = new Count();
  readonly leasesCreated = new Count();
  readonly leaseEnds = counters(define.leaseEnds);
  readonly leaseExtensionSeconds = new Count();
  readonly renewals = counters(define.renewalResults);
  readonly renewalSlack = histogram(define.RATIO_BOUNDS);
  readonly sessionsCreated = new Count();
  readonly sessionResumes = counters(define.resumeResults);
  readonly staleTokens = counters(Object.values(define.staleTokenRpcs));
  readonly watchesLagged = new Count();
  readonly clockJumpsRefused = new Count();
  readonly halts = new Count();
  readonly refusals = counters(define.refusalReasons);
  readonly authFailures = counters(define.authFailureReasons);
  readonly commits = histogram(define.SHORT_BOUNDS);
  readonly batches = histogram(define.BATCH_BOUNDS);
  readonly checkpoints = histogram(define.SHORT_BOUNDS);
  readonly journalErrors = counters(define.journalOperations);
  readonly queued = histogram(define.SHORT_BOUNDS);
  readonly loopLag = histogram(define.LAG_BOUNDS);
  readonly loopStalls = new Count();
  /** By rpc, then transport, then reason; made when first needed, as most combinations never occur. */
  readonly rpcs = cells(define.rpcs, () => ({
    unary: new Map<WireReason | "OK", Accumulator>(),
    session: new Map<WireReason | "OK", Accumulator>(),
  }));

  readonly #rpcOfPath = new Map<string, define.Rpc>();
  readonly #lag: LoopLag;
  readonly #registry: Registry;
  readonly #snapshot: () => GaugeSnapshot;
  #now: GaugeSnapshot | undefined;

  constructor(options: ServerMetricsOptions) {
    this.#snapshot = options.snapshot;
    this.#lag = new LoopLag((seconds) => {
      this.lag(seconds);
      options.onLag?.(seconds);
    });
    this.#registry = registerAll(this, options, () => this.#now ?? this.#snapshot());
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Starts to watch the event loop. */
  start(): void {
    this.#lag.start();
  }

  stop(): void {
    this.#lag.stop();
  }

  /** In the text format of Prometheus. */
  render(): Promise<string> {
    this.#now = this.#snapshot(); // all gauges of one scrape are of one moment
    return this.#registry.metrics();
  }

  /** Something happened in the core. */
  event(event: CoreEvent): void {
    switch (event.kind) {
      case "granted":
        this.acquires[event.mode].granted.observe(event.waitedMs / 1_000);
        break;
      case "acquireEnded":
        this.acquires[event.mode][event.outcome].observe(event.waitedMs / 1_000);
        break;
      case "holdEnded":
        this.holds[event.mode][event.end].observe(event.heldMs / 1_000);
        break;
      case "leaseCreated":
        this.leasesCreated.value++;
        break;
      case "leaseRenewed":
        this.renewals[event.result].value++;
        if (event.result === "ok") this.renewalSlack.observe(event.slackRatio);
        break;
      case "leaseEnded":
        this.leaseEnds[event.hung ? "hung" : event.reason].value++;
        break;
      case "leaseExtended":
        this.leaseExtensionSeconds.value += event.extensionMs / 1_000;
        break;
      case "deadlock":
        this.deadlocks.value++;
        break;
      case "deadlockSearchCut":
        this.deadlockSearchesCut.value++;
        break;
      case "staleToken":
        this.staleTokens[define.staleTokenRpcs[event.rpc]].value++;
        break;
      case "clockJumpRefused":
        this.clockJumpsRefused.value++;
        break;
      case "sessionAttached":
        if (event.result === "new") this.sessionsCreated.value++;
        else this.sessionResumes[event.result].value++;
        break;
      case "halted":
        this.halts.value++;
        break;
      case "queued":
      case "dequeued":
      case "downgraded":
      case "updated":
      case "revoking":
        break; // for watchers
    }
  }

  /** A watcher fell behind and was told so. */
  watchLagged(): void {
    this.watchesLagged.value++;
  }

  /** By how much the event loop is late, smoothed. */
  get loopLagSeconds(): number {
    return this.#lag.smoothedSeconds;
  }

  /** A record became durable. */
  journalCommit(seconds: number, commands: number): void {
    this.commits.observe(seconds);
    this.batches.observe(commands);
  }

  /** To hand to the journal. */
  readonly journalObserver: JournalObserver = {
    checkpoint: (seconds) => this.checkpoints.observe(seconds),
    error: (operation) => {
      this.journalErrors[operation].value++;
    },
  };

  /** A command has waited this long before it was stepped. */
  queueWait(seconds: number): void {
    this.queued.observe(seconds);
  }

  /**
   * A call was answered. `path` is the gRPC path or its last segment; one that the server
   * does not know is counted as "other".
   */
  rpc(path: string, reason: WireReason | "OK", durationMs: number): void {
    this.#timed(this.rpcs[this.#rpcOf(path)].unary, reason, durationMs);
    if (reason !== "OK") this.refused(reason);
  }

  /** A command of a session was answered. Refusals are reported by `refused`. */
  sessionRpc(rpc: define.Rpc, reason: WireReason | "OK", durationMs: number): void {
    this.#timed(this.rpcs[rpc].session, reason, durationMs);
  }

  #timed(byReason: Map<WireReason | "OK", Accumulator>, reason: WireReason | "OK", durationMs: number): void {
    let accumulator = byReason.get(reason);
    if (accumulator === undefined) {
      accumulator = histogram(define.SHORT_BOUNDS);
      byReason.set(reason, accumulator);
    }
    accumulator.observe(durationMs / 1_000);
  }

  /** A request was refused that is not reported through `rpc`. */
  refused(reason: WireReason): void {
    this.refusals[reason].value++;
  }

  /** Somebody was turned away. */
  authFailed(reason: define.AuthFailureReason): void {
    this.authFailures[reason].value++;
  }

  /** The event loop was this late. */
  lag(seconds: number): void {
    this.loopLag.observe(seconds);
    if (seconds > STALL_SECONDS) this.loopStalls.value++;
  }

  #rpcOf(path: string): define.Rpc {
    const known = this.#rpcOfPath.get(path);
    if (known !== undefined) return known;
    const name = path.slice(path.lastIndexOf("/") + 1);
    const rpc = define.rpcs.find((candidate) => candidate === name);
    if (rpc === undefined) return "other"; // not remembered: paths come from outside
    this.#rpcOfPath.set(path, rpc);
    return rpc;
  }
}
