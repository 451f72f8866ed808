/** Carries a session over one bidirectional gRPC stream. */
import type { ServerDuplexStream } from "@grpc/grpc-js";
import type { Access, Identity } from "../security/access.js";
import { admit, identify, peerOf } from "./callers.js";
import { grpcStatus, type WireFailure } from "./errors.js";
import { resetAfter, resetNow } from "./http2-stream.js";
import type { SessionEndpoint } from "./session-endpoint.js";
import type { SessionPipe } from "./session-pipe.js";

export type RawStream = ServerDuplexStream<Buffer, Buffer>;

/** `refusal`: why no streams are taken at present, else null. */
export function carrySession(
  endpoint: SessionEndpoint,
  access: Access,
  call: RawStream,
  refusal: () => WireFailure | null,
  closeMsMax: number,
): void {
  // What the client sends meanwhile stays in the network.
  const peer = peerOf(call);
  const open = (identity: Identity, failure: WireFailure | null) => {
    if (call.cancelled) return;
    const { requestId, address } = peer;
    const owner = { identity, requestId, address };
    const input = endpoint.open(new GrpcPipe(call, closeMsMax, requestId), refusal() ?? failure, owner);
    call.on("data", (bytes: Buffer) => input.receive(bytes));
    call.on("end", () => input.ended());
    call.on("cancelled", () => input.ended());
  };
  identify(access, peer, (who) => admit(who, call, open));
}

class GrpcPipe implements SessionPipe {
  private buffered = 0;

  constructor(
    private readonly call: RawStream,
    private readonly closeMsMax: number,
    private readonly requestId: string,
  ) {}

  write(bytes: Buffer): void {
    this.buffered += bytes.length;
    // Called when the bytes have left: HTTP/2 flow control holds them back while the client does not read.
    this.call.write(bytes, () => {
      this.buffered -= bytes.length;
    });
  }

  rest(ms: number): void {
    if (this.call.isPaused()) return;
    this.call.pause(); // what the client sends meanwhile stays in the network
    setTimeout(() => this.call.resume(), ms).unref();
  }

  bufferedBytes(): number {
    return this.buffered;
  }

  close(failure: WireFailure | null): void {
    if (failure === null) this.call.end();
    else this.call.emit("error", grpcStatus(failure, this.requestId)); // how grpc-js is told to end a stream with a status
    // A client that reads nothing, or that leaves its own half open, must not keep the stream alive.
    resetAfter(this.call, this.closeMsMax);
  }

  /** No status can reach a client that does not read, so its reason goes nowhere. */
  reset(_failure: WireFailure): void {
    resetNow(this.call);
  }
}
