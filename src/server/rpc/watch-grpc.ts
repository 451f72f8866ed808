/** Carries a watch over one server-streaming gRPC call. */
import type { MethodDefinition, ServerWritableStream } from "@grpc/grpc-js";
import type { Access, Identity } from "../security/access.js";
import { admit, identify, peerOf } from "./callers.js";
import { grpcStatus, type WireFailure } from "./errors.js";
import { resetAfter } from "./http2-stream.js";
import { definitionOf } from "./unary.js";
import type { WatchEndpoint, WatchInput, WatchPipe } from "./watch.js";

export type RawWatch = ServerWritableStream<Buffer, Buffer>;

/** What may wait for a client that reads slowly. A response may go beyond it. */
const BUFFERED_BYTES_MAX = 128 << 10;

export const watchDefinition: MethodDefinition<Buffer, Buffer> = {
  ...definitionOf("/leasehold.v1.LockService/Watch", true),
  requestStream: false,
};

/** `refusal`: why no watches are taken at present, else null. */
export function carryWatch(
  endpoint: WatchEndpoint,
  access: Access,
  call: RawWatch,
  refusal: () => WireFailure | null,
  closeMsMax: number,
): void {
  const peer = peerOf(call);
  const open = (identity: Identity, failure: WireFailure | null) => {
    if (call.cancelled) return;
    const pipe = new GrpcWatchPipe(call, closeMsMax, peer.requestId);
    pipe.input = endpoint.open(call.request, pipe, refusal() ?? failure, identity);
    call.on("cancelled", () => pipe.input?.close());
  };
  identify(access, peer, (who) => admit(who, call, open));
}

class GrpcWatchPipe implements WatchPipe {
  input: WatchInput | null = null;
  private buffered = 0;
  private full = false;

  constructor(
    private readonly call: RawWatch,
    private readonly closeMsMax: number,
    private readonly requestId: string,
  ) {}

  write(bytes: Buffer): boolean {
    this.buffered += bytes.length;
    // Called when the bytes have left: HTTP/2 flow control holds them back while the client does not read.
    this.call.write(bytes, (error: Error | null | undefined) => {
      this.buffered -= bytes.length;
      if (error || !this.full || this.buffered > 0) return;
      this.full = false;
      this.input?.drained();
    });
    this.full = this.buffered >= BUFFERED_BYTES_MAX;
    return !this.full;
  }

  end(failure: WireFailure): void {
    this.call.emit("error", grpcStatus(failure, this.requestId)); // how grpc-js is told to end a stream with a status
    resetAfter(this.call, this.closeMsMax); // also for a client that reads nothing any more
  }
}
