/** Carries what the server alone sends, a watch or a backup, over one server-streaming gRPC call. */
import type { MethodDefinition, ServerWritableStream } from "@grpc/grpc-js";
import type { Access } from "../security/access.js";
import { admit, identify, peerOf } from "./callers.js";
import { grpcStatus, type WireFailure } from "./errors.js";
import { resetAfter } from "./http2-stream.js";
import type { StreamOwner } from "./session.js";
import { definitionOf } from "./unary.js";

export type RawOutput = ServerWritableStream<Buffer, Buffer>;

/** What the carrier tells whoever sends. */
export interface OutputInput {
  /** After `write` returned false: it may be called again. */
  drained(): void;
  /** The client has gone. */
  close(): void;
}

export interface OutputTerms {
  /** What may wait for a client that reads slowly. A response may go beyond it. */
  readonly bufferedBytesMax: number;
  /** Sending goes on when no more than this waits. */
  readonly resumeBytes: number;
  /** How long a client may take to read what waits for it, after a failure and after a good end. */
  readonly closeMsMax: number;
  readonly lastReadMsMax: number;
}

/** A method of one request and many responses, of raw bytes. */
export const outputDefinition = (path: string): MethodDefinition<Buffer, Buffer> => ({
  ...definitionOf(path, true),
  requestStream: false,
});

/** `refusal`: why nothing is begun at present, else null. `open` is called with why this is refused, else null. */
export function carryOutput(
  call: RawOutput,
  access: Access,
  refusal: () => WireFailure | null,
  terms: OutputTerms,
  open: (pipe: GrpcOutput, failure: WireFailure | null, owner: StreamOwner) => OutputInput,
): void {
  const peer = peerOf(call);
  identify(access, peer, (who) =>
    admit(who, call, (identity, failure) => {
      if (call.cancelled) return;
      const pipe = new GrpcOutput(call, terms, peer.requestId);
      pipe.input = open(pipe, refusal() ?? failure, { ...peer, identity });
      call.on("cancelled", () => pipe.input?.close());
    }),
  );
}

export class GrpcOutput {
  input: OutputInput | null = null;
  private buffered = 0;
  private full = false;

  constructor(
    private readonly call: RawOutput,
    private readonly terms: OutputTerms,
    private readonly requestId: string,
  ) {}

  /** Returns false when nothing more is accepted before `drained` is called. */
  write(bytes: Buffer): boolean {
    const { bufferedBytesMax, resumeBytes } = this.terms;
    this.buffered += bytes.length;
    // Called when the bytes have left: HTTP/2 flow control holds them back while the client does not read.
    this.call.write(bytes, (error: Error | null | undefined) => {
      this.buffered -= bytes.length;
      if (error || !this.full || this.buffered > resumeBytes) return;
      this.full = false;
      this.input?.drained();
    });
    this.full = this.buffered >= bufferedBytesMax;
    return !this.full;
  }

  /** The last call. Null: it has ended well. */
  end(failure: WireFailure | null): void {
    if (failure === null) this.call.end();
    else this.call.emit("error", grpcStatus(failure, this.requestId)); // how grpc-js is told to end with a status
    // Also for a client that reads nothing any more.
    resetAfter(this.call, failure === null ? this.terms.lastReadMsMax : this.terms.closeMsMax);
  }
}
