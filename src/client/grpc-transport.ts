/** Streams over gRPC: one HTTP/2 connection each, so that nothing of a broken one is used again. */
import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  type ClientOptions,
  type ClientReadableStream,
  credentials,
  type StatusObject,
  status,
} from "@grpc/grpc-js";
import type { Address } from "./address.js";
import { bearer, checkToken, type TokenSource } from "./bearer.js";
import { invalid, statusOf } from "./errors.js";
import type { Stream, StreamHandlers, Transport, WatchHandlers, WatchStream } from "./transport.js";

/** Certificates in PEM form. */
export interface TlsOptions {
  /** Whom to trust; the authorities that Node trusts if absent. */
  readonly ca?: string | Uint8Array | undefined;
  /** This client's certificate and its key, for servers that ask for one. */
  readonly cert?: string | Uint8Array | undefined;
  readonly key?: string | Uint8Array | undefined;
  /** The name that the server's certificate must carry, if it is not the host's. */
  readonly serverName?: string | undefined;
}

/**
 * `false`: plaintext. Absent: plaintext to this machine, TLS to all others. A function is asked anew for every
 * connection, so that certificates can be exchanged while the client lives.
 */
export type Tls = TlsOptions | (() => TlsOptions) | false | undefined;

const isEncrypted = (address: Address, tls: Tls): boolean => tls !== false && !(tls === undefined && address.local);

const ATTACH = "/leasehold.v1.SessionService/Attach";
const WATCH = "/leasehold.v1.LockService/Watch";
/** How long a stream that has ended may take to go down in good order. */
const END_GRACE_MS = 500;
const RECEIVE_BYTES_MAX = 64 * 1024 * 1024;
const KEEPALIVE_TIME_MS = 20_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;

const asBuffer = (pem: string | Uint8Array | undefined): Buffer | null =>
  pem === undefined ? null : Buffer.from(pem as Uint8Array);

/** Throws what the function throws. */
const resolved = (tls: Tls): TlsOptions => (typeof tls === "function" ? tls() : tls || {});

function credentialsFor(address: Address, tls: Tls): ChannelCredentials {
  if (!isEncrypted(address, tls)) return credentials.createInsecure();
  try {
    const { ca, cert, key } = resolved(tls);
    return credentials.createSsl(asBuffer(ca), asBuffer(key), asBuffer(cert));
  } catch (error) {
    throw invalid(`the TLS certificates cannot be used: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function channelOptions(address: Address, tls: Tls, token: TokenSource | undefined): ClientOptions {
  const serverName = isEncrypted(address, tls) ? resolved(tls).serverName : undefined;
  return {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_retries": 0,
    "grpc.keepalive_time_ms": KEEPALIVE_TIME_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
    "grpc.max_receive_message_length": RECEIVE_BYTES_MAX,
    "grpc.max_send_message_length": -1,
    ...(address.local ? { "grpc.enable_http_proxy": 0 } : {}),
    ...(token === undefined ? {} : { interceptors: [bearer(token)] }),
    ...(serverName === undefined ? {} : { "grpc.ssl_target_name_override": serverName }),
  };
}

/** A connection of its own. Throws INVALID for certificates that cannot be used. */
function openChannel(address: Address, tls: Tls, token?: TokenSource): Client {
  return new Client(address.target, credentialsFor(address, tls), channelOptions(address, tls, token));
}

const asIs = (bytes: Buffer): Buffer => bytes;

class GrpcStream implements Stream {
  readonly #channel: Client;
  readonly #call: ClientDuplexStream<Buffer, Buffer>;
  #handlers: StreamHandlers | null;

  constructor(channel: Client, handlers: StreamHandlers) {
    this.#channel = channel;
    this.#handlers = handlers;
    this.#call = channel.makeBidiStreamRequest(ATTACH, asIs, asIs);
    this.#call.on("data", (bytes: Buffer) => this.#handlers?.onFrame(bytes));
    this.#call.on("drain", () => this.#handlers?.onDrain());
    // Every error is also a status; without a listener it would end the process.
    this.#call.on("error", () => {});
    this.#call.on("status", (status: StatusObject) => this.#onStatus(status));
  }

  #onStatus(status: StatusObject): void {
    this.#channel.close();
    const handlers = this.#handlers;
    this.#handlers = null;
    handlers?.onEnd(statusOf(status.code, status.details, status.metadata));
  }

  send(bytes: Buffer): boolean {
    return this.#call.write(bytes);
  }

  end(): void {
    this.#handlers = null;
    this.#call.end();
    const timer = setTimeout(() => this.destroy(), END_GRACE_MS);
    this.#call.once("status", () => clearTimeout(timer));
  }

  destroy(): void {
    this.#handlers = null;
    this.#call.cancel();
    this.#channel.close();
  }
}

class GrpcWatch implements WatchStream {
  readonly #channel: Client;
  readonly #call: ClientReadableStream<Buffer>;
  #handlers: WatchHandlers | null;

  constructor(channel: Client, request: Buffer, handlers: WatchHandlers) {
    this.#channel = channel;
    this.#handlers = handlers;
    this.#call = channel.makeServerStreamRequest(WATCH, asIs, asIs, request);
    this.#call.on("data", (bytes: Buffer) => this.#handlers?.onFrame(bytes));
    this.#call.on("error", () => {}); // as above
    this.#call.on("status", (status: StatusObject) => this.#onStatus(status));
  }

  #onStatus(status: StatusObject): void {
    this.#channel.close();
    const handlers = this.#handlers;
    this.#handlers = null;
    handlers?.onEnd(statusOf(status.code, status.details, status.metadata));
  }

  pause(): void {
    this.#call.pause();
  }

  resume(): void {
    this.#call.resume();
  }

  destroy(): void {
    this.#handlers = null;
    this.#call.cancel();
    this.#channel.close();
  }
}

/**
 * Streams to these addresses. Throws INVALID for certificates that cannot be used, and for a token that would be sent in
 * the clear to another machine.
 */
export function grpcTransport(addresses: readonly Address[], tls: Tls, token?: TokenSource): Transport {
  for (const address of addresses) credentialsFor(address, tls);
  checkToken(token, addresses, (address) => isEncrypted(address, tls));
  const channel = (index: number) => openChannel(addresses[index]!, tls, token);
  return {
    addresses,
    open: (index, handlers) => orUnopened(handlers, () => new GrpcStream(channel(index), handlers)),
    openWatch: (index, request, handlers) =>
      orUnopened(handlers, () => new GrpcWatch(channel(index), Buffer.from(request), handlers)),
  };
}

/** What came of a function that gives certificates is seen at each stream: without one, it is a stream that has ended. */
function orUnopened<T extends Stream | WatchStream>(handlers: WatchHandlers, open: () => T): T | Unopened {
  try {
    return open();
  } catch (error) {
    return new Unopened(handlers, error instanceof Error ? error.message : String(error));
  }
}

class Unopened implements Stream, WatchStream {
  readonly #timer: NodeJS.Immediate;

  constructor(handlers: WatchHandlers, message: string) {
    this.#timer = setImmediate(() => handlers.onEnd({ code: status.UNAVAILABLE, message, reason: "" }));
  }

  send(): boolean {
    return true;
  }

  end(): void {
    this.destroy();
  }

  pause(): void {}
  resume(): void {}

  destroy(): void {
    clearImmediate(this.#timer);
  }
}
