/** A small server over real gRPC that grants everything: what the client needs of the network, not of the locks. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerWritableStream,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { decode, encode, encodeStatus, type leasehold, v1 } from "../../src/client/wire/index.js";

type Stream = ServerDuplexStream<Buffer, Buffer>;
type Watch = ServerWritableStream<Buffer, Buffer>;

const asIs = (bytes: Buffer): Buffer => bytes;
const method = (path: string, requestStream: boolean, responseStream = requestStream) => ({
  path,
  requestStream,
  responseStream,
  requestSerialize: asIs,
  requestDeserialize: asIs,
  responseSerialize: asIs,
  responseDeserialize: asIs,
});

export interface Refusal {
  readonly code: number;
  readonly reason: string;
  readonly message: string;
}

export class GrpcServer {
  readonly hellos: leasehold.v1.Hello.$Properties[] = [];
  readonly streams = new Set<Stream>();
  readonly watchRequests: leasehold.v1.WatchRequest.$Properties[] = [];
  /** What it does with a watch: by default it begins with nothing. */
  onWatch: (watch: Watch) => void = (watch) => void watch.write(encode(v1.WatchResponse, { timestamp: 1 }));
  /** What the next Hello is refused with. */
  refusal: Refusal | null = null;
  /** Answers commands. */
  answering = true;
  target = "";
  #server = new Server();
  #token = 0;
  #folder = "";

  static async start(credentials = ServerCredentials.createInsecure(), address = "127.0.0.1:0"): Promise<GrpcServer> {
    const server = new GrpcServer();
    await server.#listen(credentials, address);
    return server;
  }

  static async startOnSocket(): Promise<GrpcServer> {
    const server = new GrpcServer();
    server.#folder = mkdtempSync(join(tmpdir(), "leasehold-"));
    await server.#listen(ServerCredentials.createInsecure(), `unix:${join(server.#folder, "s")}`);
    return server;
  }

  async #listen(credentials: ServerCredentials, address: string): Promise<void> {
    const attach = (stream: Stream) => this.#attach(stream);
    this.#server.addService({ attach: method("/leasehold.v1.SessionService/Attach", true) }, { attach });
    const watch = (call: Watch) => {
      this.watchRequests.push(decode(v1.WatchRequest, call.request));
      call.on("error", () => {});
      this.onWatch(call);
    };
    this.#server.addService({ watch: method("/leasehold.v1.LockService/Watch", false, true) }, { watch });
    const status = (_call: unknown, callback: sendUnaryData<Buffer>) => this.#status(callback);
    this.#server.addService({ status: method("/leasehold.v1.AdminService/Status", false) }, { status });
    const port = await new Promise<number>((resolve, reject) =>
      this.#server.bindAsync(address, credentials, (error, bound) => (error ? reject(error) : resolve(bound))),
    );
    this.target = address.startsWith("unix:") ? address : `127.0.0.1:${port}`;
  }

  #status(callback: sendUnaryData<Buffer>): void {
    if (this.refusal) {
      const { code, message, reason } = this.refusal;
      callback({ code, details: message, metadata: trailers(this.refusal), name: reason, message });
    } else if (this.answering) {
      callback(null, encode(v1.StatusResponse, { version: "1.2.3", serving: true, lastToken: this.#token }));
    }
  }

  #attach(stream: Stream): void {
    this.streams.add(stream);
    stream.on("data", (bytes: Buffer) => this.#onFrame(stream, decode(v1.AttachRequest, bytes)));
    stream.on("end", () => stream.end());
    stream.on("error", () => {});
    stream.on("close", () => this.streams.delete(stream));
  }

  #onFrame(stream: Stream, request: ReturnType<typeof v1.AttachRequest.decode>): void {
    if (request.hello) {
      this.#onHello(stream, request.hello);
      return;
    }
    if (!this.answering) return;
    const results = request.commands.map((command) => ({ seq: command.seq ?? 0, ...this.#result(command) }));
    const renewals = request.renew ? [{ sessionLease: 1, frame: request.frame, remainingMs: 15_000 }] : [];
    stream.write(encode(v1.AttachResponse, { frame: request.frame, results, renewals, timestamp: 1 }));
  }

  #onHello(stream: Stream, hello: leasehold.v1.Hello.$Properties): void {
    this.hellos.push(hello);
    if (this.refusal) {
      const { code, message } = this.refusal;
      stream.emit("error", { code, details: message, metadata: trailers(this.refusal) });
      this.refusal = null;
      return;
    }
    const welcome = {
      sessionId: hello.sessionId || "s1",
      clusterId: "c1",
      commandsInFlightMax: 100,
      frameBytesMax: 65_536,
    };
    stream.write(encode(v1.AttachResponse, { frame: 1, welcome, timestamp: 1 }));
  }

  #result(command: leasehold.v1.Command.$Properties): leasehold.v1.Result.$Properties {
    if (command.createLease) {
      return { createLease: { lease: { leaseId: "L", ttlMs: 15_000, remainingMs: 15_000 } } };
    }
    if (command.acquire) return { acquire: { grant: { token: ++this.#token, timestamp: 1 } } };
    if (command.release) return { release: {} };
    if (command.describeLock) return { describeLock: { name: command.describeLock.name ?? "" } };
    return { revokeLease: { revoked: true } };
  }

  stop(): void {
    this.#server.forceShutdown();
    if (this.#folder) rmSync(this.#folder, { recursive: true });
  }
}

function trailers({ code, message, reason }: Refusal): Metadata {
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", encodeStatus({ code, message, reason, retryAfterMs: 10 }));
  metadata.set("leasehold-reason", reason);
  return metadata;
}
