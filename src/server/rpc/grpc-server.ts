/**
 * The gRPC server: all services of `leasehold.v1`, health and reflection on one listener.
 *
 * Draining, in order: health says NOT_SERVING; new calls and streams are refused with CLOSED; once everything that was
 * handed to the sequencer before has been answered, the calls that still wait (long polls), the session streams and the
 * watches end with CLOSED; then the connections close, and after the grace time they are cut.
 */
import { type MethodDefinition, Server, ServerCredentials, type ServerOptions } from "@grpc/grpc-js";
import type { CoreLimits } from "../core/types.js";
import { type Access, openAccess } from "../security/access.js";
import type { CommandSink, LiveRoute, RouteFailure } from "../sequencer/routes.js";
import type { ClientClocks } from "../skew/client-clocks.js";
import type { ServerTracing } from "../tracing/tracing.js";
import type { WatchHub } from "../watch/hub.js";
import { AuxiliaryStreams } from "./auxiliary.js";
import { type BackupContext, BackupEndpoint } from "./backup.js";
import { backupDefinition, carryBackup } from "./backup-grpc.js";
import { FrameReader } from "./frames.js";
import { descriptorSet } from "./gen/descriptors.js";
import type { RawOutput } from "./grpc-output.js";
import { carrySession, type RawStream } from "./grpc-session.js";
import { Health } from "./health.js";
import { healthDescriptorSet } from "./health-descriptor.js";
import type { RpcLimits } from "./limits.js";
import { type LocalMethod, localMethods, type SetLogLevel } from "./local-methods.js";
import { RenewalPacing } from "./pacing.js";
import { filesOf, reflection, serveReflection } from "./reflection.js";
import type { RequestInfo } from "./request-log.js";
import { ATTACH, type SessionContext } from "./session.js";
import { SessionEndpoint } from "./session-endpoint.js";
import { type Sources, systemSources } from "./sources.js";
import { definitionOf, type RawAnswer, type RawCall, UnaryCalls, type UnaryContext } from "./unary.js";
import { type AnswerSources, type UnaryMethod, unaryMethods } from "./unary-methods.js";
import { removeStaleSocket, unixPath } from "./unix-socket.js";
import { RequestValidator } from "./validate.js";
import { WatchEndpoint } from "./watch.js";
import { carryWatch, watchDefinition } from "./watch-grpc.js";

export interface RpcServerOptions {
  readonly sink: CommandSink;
  readonly coreLimits: CoreLimits;
  readonly limits: RpcLimits;
  readonly watch: WatchHub;
  readonly serverVersion: string;
  clusterId(): string;
  readonly serverStatus: AnswerSources["serverStatus"];
  readonly hottest: AnswerSources["hottest"];
  readonly clocks?: ClientClocks;
  /** Who may do what. Default: everybody everything. */
  readonly access?: Access;
  /** How busy the server is, from 0 to 1: clients are told to renew less often. */
  readonly load: () => number;
  /** A handler threw: a bug, for the log. The client has been told INTERNAL. */
  onBug(error: unknown, request?: RequestInfo): void;
  /** See `SessionContext`. */
  readonly onRefusal?: NonNullable<SessionContext["onRefusal"]>;
  /** See `SessionContext`. */
  readonly onResult?: NonNullable<SessionContext["onResult"]>;
  /** See `UnaryContext`. */
  readonly onAnswer?: NonNullable<UnaryContext["onAnswer"]>;
  /** See `SessionContext`. */
  readonly onStreamEnd?: NonNullable<SessionContext["onStreamEnd"]>;
  /** Absent: nobody traces. */
  readonly tracing?: ServerTracing | null;
  /** Absent: there is no log. */
  readonly setLogLevel?: SetLogLevel;
  /** Absent: no backups can be made. */
  readonly backup?: BackupContext["backup"];
  /** See `BackupContext`. */
  readonly onBackup?: NonNullable<BackupContext["onBackup"]>;
  /** See `BackupContext`. */
  readonly backupTimes?: BackupContext["backupTimes"];
  /** Only tests replace these. */
  readonly sources?: Partial<Sources>;
}

const services = ["AdminService", "ClockService", "LeaseService", "LockService", "SessionService"].map(
  (name) => `leasehold.v1.${name}`,
);
const REFLECTION = ["v1", "v1alpha"].map((v) => `/grpc.reflection.${v}.ServerReflection/ServerReflectionInfo`);

const closed: RouteFailure = { reason: "CLOSED", message: "the server is shutting down", retryAfterMs: 1_000 };

export class RpcServer {
  /** Sessions of all carriers; the in-memory transport opens its streams here. */
  readonly sessions: SessionEndpoint;
  /** Watches of all carriers. */
  readonly watches: WatchEndpoint;
  private readonly backups: BackupEndpoint;
  private readonly server: Server;
  private readonly access: Access;
  private readonly calls: UnaryCalls;
  private readonly health: Health;
  private readonly auxiliary: AuxiliaryStreams;
  /** Why no calls and streams are taken. */
  private refusal: RouteFailure | null = null;
  private drained: Promise<void> | null = null;

  constructor(private readonly options: RpcServerOptions) {
    const { limits } = options;
    const check = new RequestValidator(options.coreLimits, limits, { ...systemSources, ...options.sources });
    const frames = new FrameReader(check, options.coreLimits, limits);
    const pacing = new RenewalPacing(options.load, Math.random);
    this.sessions = new SessionEndpoint({ ...options, frames, pacing, core: options.coreLimits, ...bound(options) });
    this.watches = new WatchEndpoint({ ...options, ...bound(options) });
    this.backups = new BackupEndpoint({ ...options, ...bound(options) });
    this.access = options.access ?? openAccess;
    this.calls = new UnaryCalls({ ...options, ...bound(options), access: this.access });
    this.auxiliary = new AuxiliaryStreams(limits.auxiliaryStreamsMax);
    this.health = new Health(services, this.auxiliary);
    this.server = new Server(serverOptions(limits));
    this.health.addTo(this.server);
    this.addUnary([
      ...unaryMethods(check, limits, { ...options, pacing }),
      ...localMethods(options.setLogLevel ?? ((level) => level)),
    ]);
    this.addStreams();
  }

  /** Unary calls and session streams that are open, for metrics. */
  stats(): { readonly calls: number; readonly streams: number } {
    return { calls: this.calls.size, streams: this.sessions.size };
  }

  /**
   * Listens on "host:port" or "unix:path", by default without encryption. Resolves with the port (1 for a unix socket).
   * Rejects when the address cannot be had.
   */
  async listen(target: string, credentials = ServerCredentials.createInsecure()): Promise<number> {
    const path = unixPath(target);
    if (path !== undefined) await removeStaleSocket(path);
    return await new Promise((resolve, reject) => {
      this.server.bindAsync(target, credentials, (error, port) => (error ? reject(error) : resolve(port)));
    });
  }

  /**
   * Has clients make their connections to this address anew: no call begins on those that there are, and what is open
   * there may go on for `graceMs`. `target` is the one that is listened on, with the port that it has.
   */
  renewConnections(target: string, graceMs: number): void {
    this.server.drain(target, graceMs);
  }

  /** What health checks are told. False until this is called. */
  setServing(serving: boolean): void {
    this.health.setServing(serving && this.refusal === null);
  }

  /** Stops as described above. Resolves when all connections are closed, `graceMs` after the call at the latest. */
  drain(graceMs: number): Promise<void> {
    this.drained ??= this.stop(graceMs);
    return this.drained;
  }

  private async stop(graceMs: number): Promise<void> {
    this.refusal = closed;
    this.health.setServing(false);
    const grace = timer(graceMs);
    const patience = timer(graceMs / 2); // a sequencer that answers nothing must leave time to tell the clients
    await Promise.race([this.allAnswered(), patience.over]);
    patience.clear();
    this.calls.fail(closed);
    this.sessions.closeAll(closed);
    this.watches.closeAll(closed);
    this.backups.closeAll(closed);
    this.auxiliary.close();
    const shut = new Promise<void>((resolve) => this.server.tryShutdown(() => resolve()));
    await Promise.race([shut, grace.over]);
    grace.clear();
    this.server.forceShutdown();
  }

  /** A command that changes nothing: when it is answered, so is everything that was submitted before it. */
  private allAnswered(): Promise<void> {
    return new Promise((resolve) => {
      const route: LiveRoute = { kind: "call", deliver: () => resolve(), flush: () => {}, fail: () => resolve() };
      const command = { kind: "call", request: { kind: "status" }, route, observed: 0 } as const;
      if (this.options.sink.submit(command) !== null) resolve();
    });
  }

  private addUnary(methods: readonly (UnaryMethod | LocalMethod)[]): void {
    for (const method of methods) {
      this.register(definitionOf(method.path, false), (call: RawCall, answer: RawAnswer) =>
        this.calls.handle(method, call, answer, this.refusal),
      );
    }
  }

  private addStreams(): void {
    const { access } = this;
    const { closeMsMax } = this.options.limits;
    const refusal = () => this.refusal;
    this.register(definitionOf(ATTACH, true), (call: RawStream) =>
      carrySession(this.sessions, access, call, refusal, closeMsMax),
    );
    this.register(watchDefinition, (call: RawOutput) => carryWatch(this.watches, access, call, refusal, closeMsMax));
    this.register(backupDefinition, (call: RawOutput) => carryBackup(this.backups, access, call, refusal, closeMsMax));
    const answer = reflection(
      [descriptorSet, healthDescriptorSet].flatMap((set) => filesOf(Buffer.from(set, "base64"))),
    );
    for (const path of REFLECTION) {
      this.register(definitionOf(path, true), (call: RawStream) => {
        if (this.auxiliary.admit(call)) serveReflection(answer, call);
      });
    }
  }

  private register<Args extends unknown[]>(
    definition: MethodDefinition<Buffer, Buffer>,
    handler: (...args: Args) => void,
  ): void {
    this.server.addService({ [definition.path]: definition }, { [definition.path]: handler as never });
  }
}

/** Callbacks that may be methods of the object that was passed in. */
function bound(options: RpcServerOptions) {
  return {
    clusterId: () => options.clusterId(),
    onBug: (error: unknown, request?: RequestInfo) => options.onBug(error, request),
  };
}

function serverOptions(limits: RpcLimits): ServerOptions {
  return {
    // What is a little too large gets an ErrorInfo from the handlers, what is far too large a bare RESOURCE_EXHAUSTED.
    "grpc.max_receive_message_length": limits.frameBytesMax * 2,
    "grpc.max_concurrent_streams": limits.streamsPerConnectionMax,
    "grpc-node.max_session_memory": limits.connectionMemoryMibMax,
    "grpc.keepalive_time_ms": limits.keepaliveMs,
    "grpc.keepalive_timeout_ms": limits.keepaliveTimeoutMs,
    // Stays on: without it, `forceShutdown` of grpc-js 1.14 forgets the connections.
    "grpc.enable_channelz": 1,
  };
}

function timer(ms: number): { readonly over: Promise<void>; clear(): void } {
  let handle: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => {
    handle = setTimeout(resolve, ms);
  });
  return { over, clear: () => clearTimeout(handle) };
}
