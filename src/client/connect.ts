import { parseTarget } from "./address.js";
import type { Client } from "./api.js";
import { checkKeys, checkOwner, defaultOwner } from "./arguments.js";
import type { TokenSource } from "./bearer.js";
import { LeaseholdClient } from "./client.js";
import { systemTime } from "./clock/elapsed.js";
import { type Duration, durationMs } from "./duration.js";
import { grpcTransport, type Tls } from "./grpc-transport.js";
import { ttlMs } from "./options.js";
import type { Session } from "./session/session.js";
import { ClientTracing, type OpenTelemetry } from "./tracing.js";

/** Options of `connect`. */
export interface ConnectOptions {
  /** Who this client is, for people: at most 256 bytes. Default: "hostname/pid". */
  readonly owner?: string | undefined;
  /** The TTL of leases for which none is given. Default 15 s. */
  readonly ttl?: Duration | undefined;
  /** How long acquires wait that do not say it. Default 30 s. */
  readonly wait?: Duration | undefined;
  /** How long to try to reach a server, here and in calls that wait for nothing else. Default 5 s. */
  readonly timeout?: Duration | undefined;
  /** The module `@opentelemetry/api`, for spans of acquires, holds and releases. Default: no spans. */
  readonly openTelemetry?: OpenTelemetry | undefined;
  /** Certificates, or `false` for plaintext. Default: plaintext to this machine, TLS to all others. */
  readonly tls?: Tls;
  /**
   * The bearer token that says who this client is; a function is asked anew for every stream. Without encryption it is
   * sent to this machine only. Default: none.
   */
  readonly token?: TokenSource | undefined;
}

/** The version of this package, kept equal to its package.json by a test. */
const VERSION = "0.1.0";
const CLIENT_NAME = `@leasehold/client ${VERSION}`;
const IDLE_MS = 1_000;

/**
 * Connects to a server and resolves when it has answered.
 *
 * `target` is "host:port", "[IPv6]:port" or "unix:/path"; several, as an array or separated by commas, are tried in turn.
 * Default: the environment variable LEASEHOLD_ADDR, else localhost:7420.
 *
 * The connection is given up after a second in which nothing is held or awaited, and opened again when it is needed: a
 * script that has released its locks ends by itself.
 *
 * Rejects UNREACHABLE when no server answers within `timeout`, DENIED, INVALID.
 *
 * @example
 * const client = await connect("localhost:7420");
 * await client.withLock("orders/42", (lock) => save(order, lock.token));
 * await client.close();
 */
export async function connect(target?: string | readonly string[], options: ConnectOptions = {}): Promise<Client> {
  checkKeys(options, ["owner", "ttl", "wait", "timeout", "tls", "token", "openTelemetry"], "the options of connect");
  const connectTimeoutMs = durationMs(options.timeout ?? "5s", "the timeout");
  const owner = options.owner === undefined ? defaultOwner() : checkOwner(options.owner);
  const client = new LeaseholdClient(
    {
      transport: grpcTransport(parseTarget(target), options.tls, options.token),
      time: systemTime(),
      random: Math.random,
      connectTimeoutMs,
      idleMs: IDLE_MS,
      clientName: CLIENT_NAME,
      owner,
    },
    {
      owner,
      ttlMs: ttlMs(options.ttl ?? "15s"),
      waitMs: durationMs(options.wait ?? "30s", "the wait"),
      tracing: options.openTelemetry && new ClientTracing(options.openTelemetry, VERSION),
    },
  );
  try {
    await firstConnection(client.session, connectTimeoutMs);
  } catch (error) {
    await client.close();
    throw error;
  }
  return client;
}

/** Resolves when the server has answered; rejects when it refuses, or has not answered in time. */
export function firstConnection(session: Session, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (then: () => void) => {
      timer.cancel();
      listener[Symbol.dispose]();
      session.unkeep();
      then();
    };
    const timer = session.time.setTimer(timeoutMs, () => settle(() => reject(session.unreachable())), true);
    const listener = session.reports.events.on("state", (state) => {
      if (state === "connected") settle(resolve);
      else if (session.reports.refusal) settle(() => reject(session.reports.refusal));
    });
    session.keep();
    session.connect();
  });
}
