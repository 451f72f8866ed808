/** Streams that carry no session: health watches and reflection. Bounded together, and ended when the server drains. */
import { grpcStatus } from "./errors.js";

/** What is needed of a grpc-js call. */
interface Stream {
  on(event: "cancelled", listener: () => void): unknown;
  emit(event: "error", status: object): unknown;
  end(): unknown;
}

export class AuxiliaryStreams {
  private readonly open = new Set<Stream>();
  private closed = false;

  constructor(private readonly streamsMax: number) {}

  /** False: the stream was refused and has been ended. */
  admit(stream: Stream): boolean {
    if (this.closed || this.open.size >= this.streamsMax) {
      const [reason, message] = this.closed
        ? (["CLOSED", "the server is shutting down"] as const)
        : (["LIMIT", `more than ${this.streamsMax} streams are open`] as const);
      stream.emit("error", grpcStatus({ reason, message, retryAfterMs: 1_000 }));
      return false;
    }
    this.open.add(stream);
    stream.on("cancelled", () => this.open.delete(stream)); // comes at every end, also a good one
    return true;
  }

  close(): void {
    this.closed = true;
    for (const stream of this.open) stream.end();
  }
}
