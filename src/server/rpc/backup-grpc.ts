/** Carries a backup over one server-streaming gRPC call. */
import type { MethodDefinition, ServerWritableStream } from "@grpc/grpc-js";
import type { Access, Identity } from "../security/access.js";
import { BACKUP, type BackupEndpoint, type BackupInput, type BackupPipe } from "./backup.js";
import { admit, identify, peerOf } from "./callers.js";
import { grpcStatus, type WireFailure } from "./errors.js";
import { resetAfter } from "./http2-stream.js";
import { definitionOf } from "./unary.js";

export type RawBackup = ServerWritableStream<Buffer, Buffer>;

/** What may wait for a client that reads slowly: one response more may. */
const BUFFERED_BYTES_MAX = 256 * 1024;

/** How long a client may take to read what waits for it at the end. */
const LAST_READ_MS_MAX = 60_000;

export const backupDefinition: MethodDefinition<Buffer, Buffer> = {
  ...definitionOf(BACKUP, true),
  requestStream: false,
};

/** `refusal`: why no backups are made at present, else null. */
export function carryBackup(
  endpoint: BackupEndpoint,
  access: Access,
  call: RawBackup,
  refusal: () => WireFailure | null,
  closeMsMax: number,
): void {
  const peer = peerOf(call);
  const open = (identity: Identity, failure: WireFailure | null) => {
    if (call.cancelled) return;
    const pipe = new GrpcBackupPipe(call, closeMsMax, peer.requestId);
    pipe.input = endpoint.open(call.request, pipe, refusal() ?? failure, { ...peer, identity });
    call.on("cancelled", () => pipe.input?.close());
  };
  identify(access, peer, (who) => admit(who, call, open));
}

class GrpcBackupPipe implements BackupPipe {
  input: BackupInput | null = null;
  private buffered = 0;
  private full = false;

  constructor(
    private readonly call: RawBackup,
    private readonly closeMsMax: number,
    private readonly requestId: string,
  ) {}

  write(bytes: Buffer): boolean {
    this.buffered += bytes.length;
    // Called when the bytes have left: HTTP/2 flow control holds them back while the client does not read.
    this.call.write(bytes, (error: Error | null | undefined) => {
      this.buffered -= bytes.length;
      if (error || !this.full || this.buffered > BUFFERED_BYTES_MAX / 2) return;
      this.full = false;
      this.input?.drained();
    });
    this.full = this.buffered >= BUFFERED_BYTES_MAX;
    return !this.full;
  }

  end(failure: WireFailure | null): void {
    if (failure === null) {
      this.call.end();
      resetAfter(this.call, LAST_READ_MS_MAX);
      return;
    }
    this.call.emit("error", grpcStatus(failure, this.requestId)); // how grpc-js is told to end a stream with a status
    resetAfter(this.call, this.closeMsMax);
  }
}
