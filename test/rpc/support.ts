import { type ChannelCredentials, Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { decode, decodeStatus, encode, type leasehold, type StatusDetails, v1 } from "@leasehold/client/wire";
import type {
  Command,
  CoreLimits,
  HolderView,
  LockView,
  Outcome,
  Reply,
  Request,
  WaiterView,
} from "../../src/server/core/types.js";
import { RpcServer, type RpcServerOptions } from "../../src/server/rpc/grpc-server.js";
import { type RpcLimits, rpcLimitDefaults, watchLimitDefaults } from "../../src/server/rpc/limits.js";
import type { ServerStatus } from "../../src/server/rpc/status.js";
import type { CommandSink, LiveRoute, RouteFailure } from "../../src/server/sequencer/routes.js";
import { eventLoop } from "../../src/server/sequencer/served-clock.js";
import { WatchHub } from "../../src/server/watch/hub.js";

export const coreLimits: CoreLimits = {
  nameBytesMax: 512,
  metadataBytesMax: 4_096,
  ownerBytesMax: 256,
  ttlMsMin: 500,
  ttlMsMax: 86_400_000,
  ttlMsDefault: 15_000,
  waitMsMax: 3_600_000,
  leasesMax: 1_000,
  locksMax: 1_000,
  waitersPerLockMax: 1_000,
  holdersPerLockMax: 1_000,
  locksPerAcquireMax: 64,
  permitLimitMax: 10_000,
  contenderBytesMax: 128,
  heldTokensMax: 64,
  lockDelayMsMax: 3_600_000,
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
  expirySliceMax: 1_000,
};

type Of<K extends Command["kind"]> = Extract<Command, { kind: K }>;

/** Resolves when `condition` holds; rejects, saying what was awaited, when it does not within ten seconds. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`timed out: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Answers every command at once with a plausible outcome, unless told to hold; remembers all commands. */
export class FakeSink implements CommandSink {
  readonly commands: Command[] = [];
  /** Not null: every command is refused with it. */
  refusal: RouteFailure | null = null;
  hold = false;
  timestamp = 7;
  answer: (request: Request) => Outcome = plausible;

  submit(command: Command): RouteFailure | null {
    if (this.refusal !== null) return this.refusal;
    this.commands.push(command);
    if (!this.hold) queueMicrotask(() => this.process(command));
    return null;
  }

  process(command: Command): void {
    if (command.kind === "call") this.reply(command.route, [outcome(command, 0, this.answer(command.request))]);
    else if (command.kind === "attach") this.reply(command.route, [outcome(command, 0, this.welcome(command))]);
    else if (command.kind === "frame") this.reply(this.streamRoute(command), this.frameReplies(command));
  }

  reply(route: Of<"call">["route"], replies: Reply[]): void {
    const live = route as LiveRoute;
    for (const reply of replies) live.deliver(reply, this.timestamp);
    live.flush();
  }

  all<K extends Command["kind"]>(kind: K): Of<K>[] {
    return this.commands.filter((command): command is Of<K> => command.kind === kind);
  }

  async first<K extends Command["kind"]>(kind: K): Promise<Of<K>> {
    await until(`a ${kind} is submitted`, () => this.all(kind).length > 0);
    return this.all(kind)[0] as Of<K>;
  }

  private welcome(command: Of<"attach">): Outcome {
    const sessionId = command.sessionId || command.newSessionId;
    return { kind: "welcome", sessionId, epoch: command.epoch, resumed: command.sessionId !== "", lost: [] };
  }

  /** The stream that attached last to the session of the frame. */
  streamRoute(command: Of<"frame">): Of<"attach">["route"] {
    const attach = this.all("attach").findLast(
      ({ sessionId, newSessionId, epoch }) =>
        (sessionId || newSessionId) === command.sessionId && epoch === command.epoch,
    );
    if (attach === undefined) throw new Error("a frame of a session that never attached");
    return attach.route;
  }

  private frameReplies(command: Of<"frame">): Reply[] {
    const route = this.streamRoute(command);
    const replies: Reply[] = command.requests.map(({ seq, request }) => ({
      kind: "outcome",
      route,
      seq,
      outcome: request.kind === "refused" ? request : this.answer(request),
      clockAheadBy: 0,
    }));
    return [...replies, { kind: "processed", route, frame: command.frame, clockAheadBy: 0 }];
  }
}

export function outcome(command: { readonly route: Of<"call">["route"] }, seq: number, result: Outcome): Reply {
  return { kind: "outcome", route: command.route, seq, outcome: result, clockAheadBy: 0 };
}

export const lease = {
  leaseId: "L",
  displayId: "D",
  ttlMs: 1_000,
  remainingMs: 900,
  owner: "o",
  metadata: "",
  holds: 0,
  waits: 0,
  restartExtensionMs: 0,
  progressEveryMs: 0,
};

export const grant: Extract<Outcome, { kind: "grant" }> = {
  kind: "grant",
  grants: [{ name: "n", token: 41, slots: [] }],
  all: false,
  timestamp: 9,
  leaseId: "SECRET",
  leaseTtlMs: 1_000,
  leaseRemainingMs: 999,
  maxHoldRemainingMs: 0,
};

/** What an AcquireAll of these names is granted, with tokens from 41 on. */
export const grantAll = (names: readonly string[]): Outcome => ({
  ...grant,
  all: true,
  grants: names.map((name, i) => ({ name, token: 41 + i, slots: [] })),
});

export const holder: HolderView = {
  token: 41,
  timestamp: 9,
  owner: "o",
  metadata: "aGk=",
  heldMs: 11,
  leaseRemainingMs: 12,
  leaseDisplayId: "D",
  mode: "semaphore",
  permits: 2,
  permitLimit: 5,
  slots: [0, 3],
  maxHoldRemainingMs: 13,
  revoking: true,
  contenderId: "c",
};

export const waiter: WaiterView = {
  ticketId: "T7",
  position: 2,
  owner: "w",
  metadata: "aGk=",
  waitedMs: 14,
  attached: true,
  mode: "shared",
  permits: 0,
  permitLimit: 0,
  locks: 3,
  contenderId: "c2",
  blockedBy: { lock: "m", token: 40, ticketId: "", owner: "b", hops: 2 },
};

export const counts = {
  leases: 1,
  leasesEnding: 0,
  locks: 2,
  holds: 3,
  heldExclusive: 1,
  heldShared: 1,
  heldSemaphore: 1,
  oldestHoldMs: 0,
  oldestWaitMs: 0,
  waiters: 4,
  sessions: 5,
  requestsRemembered: 0,
  lastToken: 6,
  timestamp: 7,
  incarnation: 8,
  halted: "",
};

export const lock = (name: string): LockView => ({
  name,
  holders: [],
  holdersTotal: 0,
  waiters: [],
  waitersTotal: 0,
  reserved: false,
  delayRemainingMs: 0,
});

export function plausible(request: Request): Outcome {
  switch (request.kind) {
    case "createLease":
    case "getLease":
      return { kind: "lease", lease };
    case "renewLease":
      return { kind: "renewed", displayId: "D", owner: "o", ttlMs: 1_000, remainingMs: 1_000, revoking: [] };
    case "revokeLease":
      return { kind: "revoked", revoked: true };
    case "listLeases":
      return { kind: "leases", leases: [lease], next: "" };
    case "acquire":
      return request.all ? grantAll(request.items.map(({ name }) => name)) : grant;
    case "cancelAcquire":
      return { kind: "cancelled", what: "ticket" };
    case "release":
      return { kind: "released" };
    case "transfer":
      return { kind: "transferred", token: 42 };
    case "downgrade":
      return { kind: "downgraded" };
    case "setMetadata":
      return { kind: "metadataSet" };
    case "forceRelease":
      return { kind: "forced", ended: [1], revoking: [2, 3], withinMs: 4 };
    case "validate":
      return { kind: "validated", held: true };
    case "describeLock":
      return { kind: "lock", lock: lock(request.name) };
    case "listLocks":
      return { kind: "locks", locks: [], next: "", timestamp: 6 };
    case "topLocks":
      return { kind: "top", holds: [{ name: "long", holder }], waits: [{ name: "slow", waiter }] };
    case "tick":
      return { kind: "ticks", first: 1, last: request.count };
    case "status":
      return { kind: "status", counts };
  }
}

export const serverStatus: ServerStatus = {
  version: "1.2.3",
  clusterId: "cluster",
  store: "memory",
  notServingReason: "",
  uptimeMs: 12.5,
  commandsInFlight: 0,
  journalLogBytes: 0,
  journalCheckpointLagRecords: 0,
  clockSkew: { measured: 0, skewed: 0, warnMs: 500, certainMsMax: undefined, clients: [], serverAheadMs: 0 },
  diagnosis: {
    loopLag: { p50: 0, p99: 0, max: 0 },
    commit: { p50: 0, p99: 0, max: 0 },
    limits: [],
    certificates: [],
    wallClockMs: 0,
    nodeVersion: "",
    authentication: false,
    encryption: false,
  },
};

export interface TestServer {
  readonly server: RpcServer;
  readonly sink: FakeSink;
  readonly port: number;
  readonly bugs: unknown[];
  readonly client: TestClient;
  stop(): Promise<void>;
}

export async function startServer(
  limits: Partial<RpcLimits> = {},
  options: Partial<RpcServerOptions> = {},
): Promise<TestServer> {
  const sink = new FakeSink();
  const bugs: unknown[] = [];
  const server = new RpcServer({
    sink,
    coreLimits,
    limits: { ...rpcLimitDefaults, ...limits },
    watch: new WatchHub({ sink, limits: watchLimitDefaults, turns: eventLoop, wallMs: () => 1_234 }),
    serverVersion: "1.2.3",
    clusterId: () => "cluster",
    serverStatus: () => serverStatus,
    hottest: (limit) => [{ name: "hot", grantsPerSecond: limit }],
    load: () => 0,
    onBug: (error) => bugs.push(error),
    ...options,
  });
  const port = await server.listen("127.0.0.1:0");
  const client = new TestClient(`127.0.0.1:${port}`);
  const stop = async () => {
    client.close();
    sink.refusal ??= { reason: "CLOSED", message: "", retryAfterMs: 0 };
    await server.drain(2_000);
  };
  return { server, sink, port, bugs, client, stop };
}

const raw = (bytes: Buffer) => bytes;

export class GrpcFailure extends Error {
  constructor(
    readonly code: number,
    readonly details: StatusDetails | undefined,
    readonly reasonTrailer: string | undefined,
    message: string,
  ) {
    super(message);
  }

  static of(error: ServiceError): GrpcFailure {
    const [bytes] = error.metadata.get("grpc-status-details-bin");
    const [reason] = error.metadata.get("leasehold-reason");
    return new GrpcFailure(
      error.code,
      bytes ? decodeStatus(bytes as Buffer) : undefined,
      reason as string,
      error.details,
    );
  }
}

export class TestClient {
  readonly grpc: Client;
  private readonly headers = new Metadata();

  constructor(target: string, creds: ChannelCredentials = credentials.createInsecure()) {
    this.grpc = new Client(target, creds, { "grpc.max_receive_message_length": -1 });
  }

  /** A unary call of raw bytes. Rejects with a `GrpcFailure`. */
  call(method: string, request: Buffer, options: { deadline?: number; signal?: AbortSignal } = {}): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const callOptions = options.deadline === undefined ? {} : { deadline: options.deadline };
      const path = method.startsWith("/") ? method : `/leasehold.v1.${method}`;
      const headers = this.headers.clone();
      const call = this.grpc.makeUnaryRequest(path, raw, raw, request, headers, callOptions, (error, response) =>
        error ? reject(GrpcFailure.of(error)) : resolve(response as Buffer),
      );
      options.signal?.addEventListener("abort", () => call.cancel());
    });
  }

  /** Sends this header with everything from now on. */
  header(name: string, value: string | readonly string[] | undefined): void {
    this.headers.remove(name);
    for (const one of typeof value === "string" ? [value] : (value ?? [])) this.headers.add(name, one);
  }

  /** Reads a stream of the server's to its end: how many bytes came, and "OK" or why it failed. */
  readStream(method: string, request: Buffer): Promise<{ readonly reason: string; readonly bytes: number }> {
    return new Promise((resolve) => {
      const path = `/leasehold.v1.${method}`;
      const call = this.grpc.makeServerStreamRequest(path, raw, raw, request, this.headers.clone());
      let bytes = 0;
      call.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
      });
      call.on("error", (error: ServiceError) => resolve({ reason: GrpcFailure.of(error).reasonTrailer ?? "", bytes }));
      call.on("end", () => resolve({ reason: "OK", bytes }));
    });
  }

  /** Reads a stream of the server's to its end; resolves with the status that it fails with. */
  serverStream(method: string, request: Buffer, signal?: AbortSignal): Promise<GrpcFailure> {
    return new Promise((resolve) => {
      const path = `/leasehold.v1.${method}`;
      const call = this.grpc.makeServerStreamRequest(path, raw, raw, request, this.headers.clone());
      signal?.addEventListener("abort", () => call.cancel());
      call.on("error", (error: ServiceError) => resolve(GrpcFailure.of(error)));
      call.resume();
    });
  }

  acquire(request: leasehold.v1.AcquireRequest.$Properties, options = {}): Promise<leasehold.v1.AcquireResponse> {
    return this.call("LockService/Acquire", encode(v1.AcquireRequest, request), options).then((bytes) =>
      decode(v1.AcquireResponse, bytes),
    );
  }

  attach(): TestStream {
    return new TestStream(this.grpc, undefined, this.headers.clone());
  }

  close(): void {
    this.grpc.close();
  }
}

export class TestStream {
  readonly frames: leasehold.v1.AttachResponse[] = [];
  failure: GrpcFailure | null = null;
  ended = false;
  private readonly call;

  constructor(grpc: Client, path = "/leasehold.v1.SessionService/Attach", headers = new Metadata()) {
    this.call = grpc.makeBidiStreamRequest<Buffer, Buffer>(path, raw, raw, headers);
    this.call.on("data", (bytes: Buffer) => this.frames.push(decode(v1.AttachResponse, bytes)));
    this.call.on("error", (error: ServiceError) => {
      this.failure = GrpcFailure.of(error);
      this.ended = true;
    });
    this.call.on("end", () => {
      this.ended = true;
    });
  }

  send(message: leasehold.v1.AttachRequest.$Properties): this {
    return this.sendRaw(encode(v1.AttachRequest, message));
  }

  sendRaw(bytes: Buffer): this {
    this.call.write(bytes);
    return this;
  }

  hello(hello: leasehold.v1.Hello.$Properties = {}): this {
    return this.send({ frame: 1, hello: { epoch: 1, client: "test", ...hello } });
  }

  end(): void {
    this.call.end();
  }

  cancel(): void {
    this.call.cancel();
  }

  /** The frame at `index`, once it is there. */
  async frame(index: number): Promise<leasehold.v1.AttachResponse> {
    await until(`frame ${index} arrives`, () => this.frames.length > index || this.failure !== null);
    const frame = this.frames[index];
    if (frame === undefined) throw this.failure;
    return frame;
  }

  /** The status that the stream ends with. */
  async status(): Promise<GrpcFailure> {
    await until("the stream ends with a status", () => this.failure !== null);
    return this.failure as GrpcFailure;
  }
}

/** A message as it is framed on an HTTP/2 stream. */
export function grpcMessage(message: Buffer, compressed = 0): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(compressed, 0);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}
