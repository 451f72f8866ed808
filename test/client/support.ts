/**
 * A clock that tests turn by hand, and a server that they script, for the client without network and without waiting.
 */
import { expect } from "vitest";
import { type ClientDefaults, LeaseholdClient } from "../../src/client/client.js";
import type { Timer, TimeSource } from "../../src/client/clock/elapsed.js";
import { LeaseholdError } from "../../src/client/errors.js";
import type { SessionOptions } from "../../src/client/session/session.js";
import type { Stream, StreamHandlers, Transport, WatchHandlers } from "../../src/client/transport.js";
import { decode, encode, type leasehold, v1 } from "../../src/client/wire/index.js";
import { ScriptedWatch } from "./watch-support.js";

type Request = ReturnType<typeof v1.AttachRequest.decode>;
export type WireCommand = leasehold.v1.Command.$Properties & { seq: number };
export type WireResult = Omit<leasehold.v1.Result.$Properties, "seq">;
export type WireResponse = leasehold.v1.AttachResponse.$Properties;

/** Time that stands still until a test moves it. */
export class FakeTime implements TimeSource {
  #nowMs = 1_000_000;
  #timers: { atMs: number; f: () => void }[] = [];
  #soon: (() => void)[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  setTimer(delayMs: number, f: () => void): Timer {
    const timer = { atMs: this.#nowMs + Math.max(0, delayMs), f };
    this.#timers.push(timer);
    const cancel = () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
    return { cancel };
  }

  soon(f: () => void): void {
    this.#soon.push(f);
  }

  get timers(): number {
    return this.#timers.length;
  }

  /** Lets everything happen that happens without time. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 2; ) {
      await new Promise((resolve) => setImmediate(resolve));
      const due = this.#soon;
      this.#soon = [];
      quiet = due.length === 0 ? quiet + 1 : 0;
      for (const f of due) f();
    }
  }

  /** Time passes, and every timer runs when it is due. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    await this.settle();
    for (;;) {
      const due = this.#timers.filter((timer) => timer.atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (!due) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.f();
      await this.settle();
    }
    this.#nowMs = untilMs;
  }

  /** Time passes and nothing runs, as when the process is stopped or its loop is blocked. */
  stall(ms: number): void {
    this.#nowMs += ms;
  }
}

/** What the server does with a command: a result, or null to keep it unanswered. */
type Answer = (command: WireCommand, connection: Connection) => WireResult | null;

/** One stream as the server sees it. */
export class Connection implements Stream {
  readonly index: number;
  readonly frames: Request[] = [];
  readonly frameBytes: number[] = [];
  readonly #server: ScriptedServer;
  readonly #handlers: StreamHandlers;
  open = true;
  /** The client has said that it will send no more. */
  ended = false;
  /** What `send` returns: false when the test wants back-pressure. */
  takesMore = true;

  constructor(server: ScriptedServer, index: number, handlers: StreamHandlers) {
    this.#server = server;
    this.index = index;
    this.#handlers = handlers;
  }

  get hello(): leasehold.v1.Hello.$Properties | null | undefined {
    return this.frames[0]?.hello;
  }

  /** All commands that arrived here, in order. */
  get commands(): WireCommand[] {
    return this.frames.flatMap((frame) => frame.commands as WireCommand[]);
  }

  get lastFrame(): Request {
    return this.frames.at(-1) as Request;
  }

  // -------------------------------------------------------------------------------- the client's side

  send(bytes: Buffer): boolean {
    const frame = decode(v1.AttachRequest, bytes);
    expect(frame.frame).toBe(this.frames.length + 1);
    this.frames.push(frame);
    this.frameBytes.push(bytes.length);
    this.#server.time.soon(() => this.open && this.#server.onFrame(this, frame));
    return this.takesMore;
  }

  end(): void {
    this.ended = true;
    this.open = false;
  }

  destroy(): void {
    this.open = false;
  }

  // -------------------------------------------------------------------------------- the server's side

  push(response: WireResponse): void {
    if (!this.open) return;
    const frame = this.lastFrame?.frame ?? 0;
    this.#handlers.onFrame(encode(v1.AttachResponse, { frame, timestamp: this.#server.timestamp, ...response }));
  }

  /** Bytes as they are. */
  pushRaw(bytes: Uint8Array): void {
    this.#handlers.onFrame(bytes);
  }

  answer(seq: number, result: WireResult): void {
    this.push({ results: [{ seq, ...result }] });
  }

  drain(): void {
    this.takesMore = true;
    this.#handlers.onDrain();
  }

  /** The stream ends, by default as when the connection breaks. */
  break(reason = "", code = 14, message = "the connection broke", retryAfterMs = 0): void {
    if (!this.open) return;
    this.open = false;
    this.#handlers.onEnd({ code, message, reason, retryAfterMs });
  }
}

/** A transport whose other end is this script. By default it welcomes, grants and renews everything at once. */
export class ScriptedServer implements Transport {
  readonly time: FakeTime;
  addresses = [{ text: "test:7420", local: true }];
  readonly connections: Connection[] = [];
  /** The streams of watches. */
  readonly watches: ScriptedWatch[] = [];
  sessionId = "session-1";
  clusterId = "cluster-1";
  commandsInFlightMax = 64;
  frameBytesMax = 65_536;
  timestamp = 100;
  token = 0;
  ttlMs = 15_000;
  /** Nobody is there: every stream ends at once with this message. */
  unreachable: string | null = null;
  /** Renewals are answered. */
  renews = true;
  /** When the server wants the next renewal; 0: it does not say. */
  renewAfterMs = 0;
  /** TTLs by the number of the creation. */
  readonly leases = new Map<number, number>();
  answers: Partial<Record<string, Answer>> = {};
  onHello: (connection: Connection, hello: leasehold.v1.Hello.$Properties) => void = (connection) =>
    this.welcome(connection);

  constructor(time: FakeTime) {
    this.time = time;
  }

  get connection(): Connection {
    const last = this.connections.at(-1);
    if (!last) throw new Error("the client has opened no stream");
    return last;
  }

  open(index: number, handlers: StreamHandlers): Stream {
    const connection = new Connection(this, index, handlers);
    this.connections.push(connection);
    if (this.unreachable !== null) {
      const message = this.unreachable;
      this.time.soon(() => connection.break("", 14, message));
    }
    return connection;
  }

  /** What the server does with a new stream of a watch. By default nothing. */
  onWatch: (watch: ScriptedWatch) => void = () => {};

  get watch(): ScriptedWatch {
    const last = this.watches.at(-1);
    if (!last) throw new Error("the client has opened no watch");
    return last;
  }

  openWatch(index: number, request: Uint8Array, handlers: WatchHandlers): ScriptedWatch {
    const watch = new ScriptedWatch(index, request, handlers);
    this.watches.push(watch);
    const { unreachable } = this;
    this.time.soon(() => {
      if (unreachable !== null) watch.break("", 14, unreachable);
      else if (watch.open) this.onWatch(watch);
    });
    return watch;
  }

  onFrame(connection: Connection, frame: Request): void {
    if (frame.hello) {
      if (this.unreachable === null) this.onHello(connection, frame.hello);
      return;
    }
    const results: leasehold.v1.Result.$Properties[] = [];
    for (const command of frame.commands as WireCommand[]) {
      const result = this.#answer(command, connection);
      if (result) results.push({ seq: command.seq, ...result });
    }
    const renewed = [...this.leases.keys()].filter((seq) => frame.renew || frame.progress.includes(seq));
    const renewals = this.renews ? renewed.map((seq) => this.renewal(seq, frame.frame)) : [];
    if (results.length > 0 || renewals.length > 0) connection.push({ results, renewals });
  }

  welcome(connection: Connection, more: leasehold.v1.Welcome.$Properties = {}): void {
    const { sessionId, clusterId, commandsInFlightMax, frameBytesMax } = this;
    connection.push({
      welcome: { sessionId, clusterId, commandsInFlightMax, frameBytesMax, resumeMs: 5_000, ...more },
    });
  }

  renewal(
    sessionLease: number,
    frame: number,
    remainingMs = this.leases.get(sessionLease) ?? this.ttlMs,
  ): leasehold.v1.Renewal.$Properties {
    return { sessionLease, frame, remainingMs, renewAfterMs: this.renewAfterMs };
  }

  #answer(command: WireCommand, connection: Connection): WireResult | null {
    const kind = Object.keys(DEFAULT_ANSWERS).find((key) => command[key as keyof WireCommand] != null) ?? "";
    const answer = this.answers[kind] ?? DEFAULT_ANSWERS[kind]?.(this);
    return answer ? answer(command, connection) : null;
  }

  grant(): WireResult {
    this.token += 1;
    this.timestamp += 1;
    return { acquire: { grant: { token: this.token, timestamp: this.timestamp } } };
  }

  /** One grant for each lock that is asked for. */
  grantAll(command: WireCommand): WireResult {
    this.timestamp += 1;
    const { timestamp } = this;
    const grants = (command.acquireAll?.locks ?? []).map(() => ({ token: ++this.token, timestamp }));
    return { acquireAll: { grants: { grants } } };
  }

  lease(command: WireCommand, remainingMs?: number): WireResult {
    const ttlMs = command.createLease?.ttlMs || this.ttlMs;
    const termMs = Math.min(ttlMs, command.createLease?.progressEveryMs || ttlMs);
    this.leases.set(command.seq, termMs);
    return { createLease: { lease: { leaseId: `lease-${command.seq}`, ttlMs, remainingMs: remainingMs ?? termMs } } };
  }
}

const DEFAULT_ANSWERS: Record<string, (server: ScriptedServer) => Answer> = {
  createLease: (server) => (command) => server.lease(command),
  acquire: (server) => () => server.grant(),
  acquireAll: (server) => (command) => server.grantAll(command),
  release: () => () => ({ release: {} }),
  transfer: (server) => () => ({ transfer: { token: ++server.token } }),
  downgrade: () => () => ({ downgrade: {} }),
  setMetadata: () => () => ({ setMetadata: {} }),
  cancelAcquire: () => () => ({ cancelAcquire: { outcome: 2 } }),
  validate: () => () => ({ validate: { held: true } }),
  describeLock: () => (command) => ({ describeLock: { name: command.describeLock?.name ?? "" } }),
  listLocks: () => () => ({ listLocks: { locks: [] } }),
  tick: (server) => (command) => {
    const first = Math.max(server.timestamp, command.tick?.observed ?? 0) + 1;
    server.timestamp = first + (command.tick?.count ?? 1) - 1;
    return { tick: { first, last: server.timestamp } };
  },
  revokeSessionLease: (server) => (command) => {
    return { revokeLease: { revoked: server.leases.delete(command.revokeSessionLease ?? 0) } };
  },
  abandonSessionLease: (server) => (command) => {
    return { revokeLease: { revoked: server.leases.delete(command.abandonSessionLease ?? 0) } };
  },
};

export interface Setup {
  readonly time: FakeTime;
  readonly server: ScriptedServer;
  readonly client: LeaseholdClient;
  readonly warnings: LeaseholdError[];
}

/** A client of a scripted server; it has not connected. */
export function setup(defaults: Partial<ClientDefaults> = {}, options: Partial<SessionOptions> = {}): Setup {
  const time = new FakeTime();
  const server = new ScriptedServer(time);
  const client = new LeaseholdClient(
    {
      transport: server,
      time,
      random: () => 0.5,
      connectTimeoutMs: 5_000,
      idleMs: 1_000,
      clientName: "test",
      ...options,
    },
    { ttlMs: 15_000, waitMs: 30_000, owner: "host/1", ...defaults },
  );
  const warnings: LeaseholdError[] = [];
  client.on("warning", (warning) => void warnings.push(warning));
  return { time, server, client, warnings };
}

/** What became of a promise, without waiting for it. */
export function watch<T>(promise: Promise<T>): { value?: T; error?: unknown; settled: boolean } {
  const seen: { value?: T; error?: unknown; settled: boolean } = { settled: false };
  promise.then(
    (value) => Object.assign(seen, { value, settled: true }),
    (error: unknown) => Object.assign(seen, { error, settled: true }),
  );
  return seen;
}

/** The error that `f` throws. */
export function thrown(f: () => unknown): LeaseholdError {
  try {
    f();
  } catch (error) {
    if (LeaseholdError.is(error)) return error;
    throw error;
  }
  throw new Error("it did not throw");
}

/** Takes a lock, letting as little time pass as possible. */
export async function take(s: Setup, name = "a", options?: Parameters<LeaseholdClient["acquire"]>[1]) {
  const taken = s.client.acquire(name, options);
  await s.time.settle();
  return taken;
}
