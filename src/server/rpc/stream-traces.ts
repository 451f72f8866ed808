/** The spans of the commands of one stream that have not been answered. */
import type { Outcome } from "../core/types.js";
import type { RequestTrace, ServerTracing } from "../tracing/tracing.js";
import type { BatchFrame } from "./frames.js";

export class StreamTraces {
  readonly #open = new Map<number, RequestTrace>();

  /** `tracing`: absent or null: nobody traces. `openMax`: further commands are not traced. */
  constructor(
    private readonly tracing: ServerTracing | null | undefined,
    private readonly openMax: number,
  ) {}

  /** Of the requests of a frame so many, the first ones, are handed over. */
  begin({ requests, traceparents }: BatchFrame, handedOver: number): void {
    if (!this.tracing) return;
    for (const { index, traceparent } of traceparents) {
      if (index >= handedOver) return;
      const { seq, request } = requests[index] as BatchFrame["requests"][number];
      if (request.kind === "refused" || this.#open.size >= this.openMax || this.#open.has(seq)) continue;
      const trace = this.tracing.request(request, traceparent, "session");
      if (trace !== null) this.#open.set(seq, trace);
    }
  }

  answered(seq: number, outcome: Outcome): void {
    if (this.#open.size === 0) return;
    this.#open.get(seq)?.answered(outcome);
    this.#open.delete(seq);
  }

  /** The stream is over. */
  close(): void {
    for (const trace of this.#open.values()) trace.failed("gone");
    this.#open.clear();
  }
}
