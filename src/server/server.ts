/** The composition root: the only place that constructs the parts of a server and connects them. */
import type { BackupOrigin } from "./backup/stream.js";
import { formatEndpoint, parseEndpoint } from "./config/endpoint.js";
import type { ServerConfig } from "./config/schema.js";
import { authenticates, encrypts } from "./config/security.js";
import { type CertificateFacts, Diagnosis } from "./diagnosis/diagnosis.js";
import { limitUses } from "./diagnosis/limit-uses.js";
import { EventLog } from "./event-log.js";
import { STORE_FORMAT } from "./journal/checkpoint.js";
import { type Journal, JournalCorruptError, type JournalObserver } from "./journal/journal.js";
import { createJournal, parseStore } from "./journal/open.js";
import type { Logger } from "./log.js";
import { HotLocks } from "./metrics/hot-locks.js";
import { type GaugeSnapshot, ServerMetrics } from "./metrics/server-metrics.js";
import type { ConsoleOptions } from "./ops/api/context.js";
import { type OpsServer, startOps } from "./ops/ops-server.js";
import { WallTimes } from "./ops/wall-times.js";
import { Reports } from "./reports.js";
import { RpcServer } from "./rpc/grpc-server.js";
import type { SessionEndpoint } from "./rpc/session-endpoint.js";
import type { ServerStatus } from "./rpc/status.js";
import type { WatchEndpoint } from "./rpc/watch.js";
import type { Access } from "./security/access.js";
import { ReloadedCredentials } from "./security/grpc-credentials.js";
import { Security, type SecurityHooks } from "./security/security.js";
import type { SequencerObserver } from "./sequencer/observer.js";
import type { RouteFailure } from "./sequencer/routes.js";
import { Sequencer } from "./sequencer/sequencer.js";
import { eventLoop, ServedClock } from "./sequencer/served-clock.js";
import { ClientClocks } from "./skew/client-clocks.js";
import { ServerTracing } from "./tracing/tracing.js";
import { version } from "./version.js";
import { WatchHub } from "./watch/hub.js";

export interface RunningServer {
  /** Where clients connect, with the port that the system chose for port 0. */
  readonly address: string;
  /** Where metrics and probes are; null when they are nowhere. */
  readonly opsAddress: string | null;
  /** For a client in the same process; see `inMemoryTransport`. */
  readonly sessions: SessionEndpoint;
  readonly watches: WatchEndpoint;
  /** Reads again the files of certificates, tokens and keys. Resolves when that is done; what is wrong is logged. */
  reload(): Promise<void>;
  /**
   * Stops: no new grants, what is held is delivered, sessions are told, the journal is closed. Resolves within the
   * configured drain time. Safe to call twice.
   */
  stop(): Promise<void>;
}

export interface ServerHooks extends Pick<SecurityHooks, "reloadPollMs" | "wallMs"> {
  readonly log?: Logger;
  /** Only tests replace it. */
  readonly openJournal?: (observer: JournalObserver) => Journal;
  /** Only tests replace it. */
  readonly access?: Access;
}

/** How often health follows what the sequencer says. */
const HEALTH_MS = 200;
/** An event loop that is late by this much all the time is as busy as can be. */
const LOADED_LAG_SECONDS = 0.2;

/** What is open on connections of an authority that is trusted no longer may go on for so long. */
const DISTRUST_GRACE_MS = 1_000;

/** What watchers are told then; they come back for the state. */
const storeFailed: RouteFailure = { reason: "STORE_DOWN", message: "the store has failed", retryAfterMs: 1_000 };

/**
 * Recovers the store, then listens. Rejects with a message for the operator when the store cannot be opened or is
 * damaged, or an address cannot be had.
 */
export async function startServer(config: ServerConfig, hooks: ServerHooks = {}): Promise<RunningServer> {
  const server = new Server(config, hooks);
  try {
    await server.start();
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}

class Server implements RunningServer {
  readonly #config: ServerConfig;
  readonly #log: Logger | undefined;
  readonly #startedMs = performance.now();
  readonly #store: string;
  readonly #metrics: ServerMetrics;
  /** Null: nobody traces. */
  readonly #tracing = ServerTracing.detect(version);
  readonly #diagnosis: Diagnosis;
  readonly #hotLocks = new HotLocks();
  readonly #clientClocks: ClientClocks;
  readonly #sequencer: Sequencer;
  readonly #watch: WatchHub;
  /** When events have happened, for the console. */
  readonly #wallTimes = new WallTimes(() => Date.now());
  readonly #security: Security;
  readonly #access: Access;
  readonly #reports: Reports;
  readonly #rpc: RpcServer;
  #ops: OpsServer | null = null;
  #address = "";
  #recovered = false;
  #draining = false;
  #healthTimer: NodeJS.Timeout | undefined;
  #stopped: Promise<void> | undefined;

  constructor(config: ServerConfig, hooks: ServerHooks) {
    const store = parseStore(config.store);
    if (!store.ok) throw new Error(store.error);
    this.#config = config;
    this.#log = hooks.log;
    this.#store = store.store.kind;
    this.#diagnosis = new Diagnosis({
      storeDirectory: store.store.kind === "level" ? store.store.directory : undefined,
      limits: () => this.#limitUses(),
      certificates: () => this.#certificateFacts(),
      authentication: authenticates(config),
      encryption: encrypts(config),
      monotonicMs: () => performance.now(),
      wallMs: () => Date.now(),
    });
    this.#metrics = new ServerMetrics({
      version,
      store: this.#store,
      snapshot: () => this.#snapshot(),
      onLag: (seconds) => this.#diagnosis.lag(seconds),
    });
    const observer = this.#metrics.journalObserver;
    const clock = new ServedClock(eventLoop);
    this.#sequencer = new Sequencer({
      openJournal: () => hooks.openJournal?.(observer) ?? createJournal(store.store, { observer }),
      limits: config.limits,
      clock,
      turns: eventLoop,
      commandsInFlightMax: config.limits.commandsInFlightMax,
      leadershipMs: config.leadershipMs,
      tickMs: config.tickIntervalMs,
      observer: this.#observer(),
    });
    this.#watch = new WatchHub({
      sink: this.#sequencer,
      limits: config.limits,
      turns: eventLoop,
      wallMs: () => Date.now(),
      onLagged: () => this.#metrics.watchLagged(),
    });
    this.#clientClocks = new ClientClocks({
      warnMs: config.clockSkewWarnMs,
      monotonicMs: () => performance.now(),
      wallMs: () => Date.now(),
      onTime: () => clock.mayExpire(), // nothing expires just after a stall, for the same reason
      log: this.#log,
    });
    this.#security = new Security(config, { ...hooks, onRefused: (kind) => this.#metrics.authFailed(kind) });
    this.#access = hooks.access ?? this.#security.access;
    const reports = new Reports(this.#log, this.#metrics, this.#security.audit);
    this.#reports = reports;
    this.#rpc = new RpcServer({
      sink: this.#sequencer,
      coreLimits: config.limits,
      limits: config.limits,
      watch: this.#watch,
      serverVersion: version,
      clusterId: () => this.#sequencer.clusterId,
      serverStatus: () => this.#status(),
      clocks: this.#clientClocks,
      hottest: (limit) => this.#hotLocks.hottest(limit, performance.now()),
      access: this.#access,
      load: () => this.#load(),
      onBug: (error, request) => reports.bug(error, request),
      onRefusal: (reason) => this.#metrics.refused(reason),
      onResult: (rpc, reason, durationMs) => this.#metrics.sessionRpc(rpc, reason, durationMs),
      onAnswer: (request, reason, durationMs) => reports.answered(request, reason, durationMs),
      onStreamEnd: (request, reason, durationMs) => reports.streamEnded(request, reason, durationMs),
      tracing: this.#tracing,
      backup: { snapshot: () => this.#sequencer.snapshot(), origin: () => this.#backupOrigin() },
      onBackup: (request, bytes, failure) => reports.backup(request, bytes, failure),
      setLogLevel: (level) => reports.setLogLevel(level),
    });
  }

  get address(): string {
    return this.#address;
  }

  get opsAddress(): string | null {
    return this.#ops?.address ?? null;
  }

  get sessions(): SessionEndpoint {
    return this.#rpc.sessions;
  }

  get watches(): WatchEndpoint {
    return this.#rpc.watches;
  }

  async start(): Promise<void> {
    const config = this.#config;
    await this.#security.load();
    this.#metrics.start();
    await this.#startOps();
    await this.#sequencer.start();
    this.#recovered = true;
    this.#diagnosis.start(); // now there is a directory
    const port = await this.#rpc.listen(config.listen, this.#credentials());
    const endpoint = parseEndpoint(config.listen);
    this.#address = endpoint?.kind === "tcp" ? formatEndpoint({ ...endpoint, port }) : config.listen;
    this.#rpc.setServing(true);
    this.#healthTimer = setInterval(() => this.#rpc.setServing(this.#notReady() === null), HEALTH_MS);
  }

  /** Undefined: without encryption. */
  #credentials(): ReloadedCredentials | undefined {
    const { certificates } = this.#security;
    if (certificates === null) return undefined;
    certificates.onChange(({ distrust }) => {
      if (distrust) this.#rpc.renewConnections(this.#address, DISTRUST_GRACE_MS);
    });
    return new ReloadedCredentials(certificates, this.#config.tlsClientAuth);
  }

  reload(): Promise<void> {
    return this.#security.reload();
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#draining = true;
    clearInterval(this.#healthTimer);
    await this.#rpc.drain(this.#config.drainMsMax);
    await this.#sequencer.stop();
    this.#watch.close();
    await this.#ops?.stop();
    this.#metrics.stop();
    await this.#security.stop();
    this.#diagnosis.stop();
  }

  async #startOps(): Promise<void> {
    const endpoint = this.#config.opsListen === "none" ? undefined : parseEndpoint(this.#config.opsListen);
    if (endpoint === undefined) return;
    this.#ops = await startOps({
      endpoint,
      metrics: this.#metrics,
      certificates: this.#security.certificates,
      access: this.#access,
      console: this.#console(),
      readiness: () => {
        const reason = this.#notReady();
        return reason === null ? { ready: true } : { ready: false, reason };
      },
      onError: (error) => this.#log?.error({ err: error }, "the ops port failed to answer; this is a bug"),
    });
  }

  #backupOrigin(): BackupOrigin {
    const { ttlMsMax } = this.#config.limits;
    return { storeFormat: STORE_FORMAT, ttlMsMax, takenWallMs: Date.now(), server: version };
  }

  #console(): ConsoleOptions {
    const { limits } = this.#config;
    return {
      sink: this.#sequencer,
      watch: this.#watch,
      coreLimits: limits,
      limits,
      wallTimes: this.#wallTimes,
      audit: (act) => this.#reports.forced(act),
      serverStatus: () => this.#status(),
      sessions: (limit) => this.#rpc.sessions.list(limit),
      hottest: (limit) => this.#hotLocks.hottest(limit, performance.now()),
    };
  }

  /** Null: ready for clients; else why not. */
  #notReady(): string | null {
    if (this.#draining) return "the server is stopping";
    return this.#recovered ? this.#sequencer.notServing : "the server is recovering its store";
  }

  #observer(): SequencerObserver {
    const eventLog = this.#log && new EventLog(this.#log, () => performance.now());
    return {
      commit: (appendSeconds, queueSeconds, commands) => {
        this.#metrics.journalCommit(appendSeconds, commands);
        this.#metrics.queueWait(queueSeconds);
        this.#tracing?.committed(appendSeconds, commands);
        this.#diagnosis.committed(appendSeconds);
      },
      event: (event) => {
        this.#watch.event(event);
        this.#metrics.event(event);
        this.#tracing?.event(event);
        eventLog?.event(event);
        if (event.kind === "granted") this.#hotLocks.granted(event.name, performance.now());
      },
      told: (timestamp) => {
        this.#wallTimes.told(timestamp);
        this.#watch.tellTo(timestamp);
      },
      storeFailed: (error) => {
        this.#watch.closeAll(storeFailed);
        // A damaged store is for the operator to look at; opening it again and again would not mend it.
        const level = error instanceof JournalCorruptError ? "fatal" : "error";
        this.#log?.[level]({ err: error }, "the store failed");
      },
      storeRecovered: (replayedRecords, timestamp) => {
        this.#watch.restart(timestamp);
        this.#log?.info(
          { replayedRecords, incarnation: this.#sequencer.counts?.incarnation },
          "the store is recovered",
        );
      },
    };
  }

  /** From 0 to 1, or a little above. */
  #load(): number {
    const queued = this.#sequencer.commandsInFlight / this.#config.limits.commandsInFlightMax;
    return Math.max(queued, this.#metrics.loopLagSeconds / LOADED_LAG_SECONDS);
  }

  /** Both listeners show the same certificate. */
  #certificateFacts(): CertificateFacts[] {
    const { certificates } = this.#security;
    if (certificates === null) return [];
    const { subject, notAfterMs } = certificates.served;
    const listeners = this.#ops === null ? (["grpc"] as const) : (["grpc", "ops"] as const);
    return listeners.map((listener) => ({ listener, subject, notAfterMs }));
  }

  #limitUses() {
    return limitUses(this.#config.limits, {
      ...this.#rpc.stats(),
      counts: this.#sequencer.counts,
      watchers: this.#watch.size,
      commandsInFlight: this.#sequencer.commandsInFlight,
    });
  }

  #snapshot(): GaugeSnapshot {
    return {
      counts: this.#sequencer.counts ?? undefined,
      sessionsAttached: this.#sequencer.streams,
      commandsQueued: this.#sequencer.commandsInFlight,
      journalUp: this.#sequencer.journalUp,
      journal: this.#recovered ? this.#sequencer.journalStats : undefined,
      draining: this.#draining,
      quietMs: this.#recovered ? this.#sequencer.quietMs : undefined,
      leader: this.#notReady() === null,
      watchers: this.#watch.size,
      clocks: this.#clientClocks.report(),
      limits: this.#limitUses(),
      certificates: this.#diagnosis.certificates,
      resources: this.#diagnosis.resources,
    };
  }

  #status(): ServerStatus {
    const stats = this.#sequencer.journalStats;
    return {
      version,
      clusterId: this.#sequencer.clusterId,
      store: this.#store,
      notServingReason: this.#notReady() ?? "",
      uptimeMs: performance.now() - this.#startedMs,
      commandsInFlight: this.#sequencer.commandsInFlight,
      journalLogBytes: stats.logBytes,
      journalCheckpointLagRecords: stats.checkpointLagRecords,
      clockSkew: this.#clientClocks.report(),
      diagnosis: this.#diagnosis.report(),
    };
  }
}
