/**
 * Reads the frames of a client. A failure here concerns the frame as a whole and ends the stream; what is wrong with a
 * single command becomes a refusal in that command's place.
 */
import { decode, type leasehold, v1, WireError } from "@leasehold/client/wire";
import type { Attach, CoreLimits, Frame } from "../core/types.js";
import type { ClockReading } from "../skew/client-clocks.js";
import { failureOf, type WireFailure } from "./errors.js";
import type { RpcLimits } from "./limits.js";
import type { RequestValidator } from "./validate.js";

/** The first frame. */
export interface HelloFrame {
  /** What it asks of the core, without what only the stream knows. */
  readonly attach: Omit<Attach, "kind" | "route">;
  /** Who the client is, for people. */
  readonly owner: string;
  readonly client: string;
  readonly clock: ClockReading;
}

/** Every other frame: what it asks of the core, without what only the stream knows, and what the core does not get. */
export interface BatchFrame extends Omit<Frame, "kind" | "sessionId" | "epoch"> {
  /** The message itself, which has these fields. */
  readonly clock: ClockReading;
  /** The callers' spans, of those commands that have one. */
  readonly traceparents: readonly { readonly index: number; readonly traceparent: string }[];
}

export class FrameReader {
  private readonly commandsMax: number;
  private readonly leasesMax: number;

  constructor(
    private readonly check: RequestValidator,
    core: CoreLimits,
    private readonly limits: RpcLimits,
  ) {
    this.commandsMax = Math.max(limits.commandsPerFrameMax, core.commandsPerSessionMax);
    this.leasesMax = core.holdsPerLeaseMax;
  }

  /** The first frame. */
  hello(bytes: Uint8Array): HelloFrame | WireFailure {
    const message = this.decode(bytes);
    if ("reason" in message) return message;
    const { hello, observed } = message;
    if (message.frame !== 1) return wrongFrame(1, message.frame);
    if (!hello) return invalid("the first frame must carry hello");
    if (message.commands.length + message.progress.length > 0 || message.renew) {
      return invalid("the first frame must carry nothing but hello");
    }
    const attach = this.check.hello(hello as leasehold.v1.Hello);
    if ("kind" in attach) return failureOf(attach);
    const { owner, client } = hello as leasehold.v1.Hello;
    return { attach: { ...attach, observed }, owner, client, clock: message };
  }

  /** Every other frame; it must have the number `expected`. */
  batch(bytes: Uint8Array, expected: number): BatchFrame | WireFailure {
    const message = this.decode(bytes);
    if ("reason" in message) return message;
    const { frame, commands, ackedBelow, acked, renew, progress, observed } = message;
    if (frame !== expected) return wrongFrame(expected, frame);
    if (message.hello) return invalid("hello may only be in the first frame");
    if (acked.length > this.commandsMax) {
      return limit(`the frame acknowledges ${acked.length} commands; at most ${this.commandsMax} are allowed`);
    }
    if (commands.length > this.commandsMax) {
      return limit(`the frame has ${commands.length} commands; at most ${this.commandsMax} are allowed`);
    }
    const badProgress = this.badProgress(progress);
    if (badProgress !== null) return badProgress;
    const requests = new Array<BatchFrame["requests"][number]>(commands.length);
    const traceparents: { index: number; traceparent: string }[] = [];
    for (let i = 0; i < commands.length; i++) {
      const command = commands[i] as leasehold.v1.Command;
      const { seq } = command;
      if (seq < 1) return invalid(`command ${i + 1} of frame ${frame} has no seq`);
      requests[i] = { seq, request: this.check.command(command) };
      const traceparent = (command.acquire ?? command.acquireAll)?.traceparent;
      if (traceparent) traceparents.push({ index: i, traceparent });
    }
    return { frame, ackedBelow, acked, renew, progress, observed, requests, clock: message, traceparents };
  }

  private badProgress(progress: readonly number[]): WireFailure | null {
    if (progress.length > this.leasesMax) {
      return limit(`the frame reports progress on ${progress.length} leases; at most ${this.leasesMax} are allowed`);
    }
    return progress.includes(0) ? invalid("progress must name the commands that created the leases; given: 0") : null;
  }

  private decode(bytes: Uint8Array): leasehold.v1.AttachRequest | WireFailure {
    const { frameBytesMax } = this.limits;
    if (bytes.length > frameBytesMax) {
      return limit(`the frame has ${bytes.length} bytes; at most ${frameBytesMax} are allowed`);
    }
    try {
      return decode(v1.AttachRequest, bytes);
    } catch (error) {
      if (error instanceof WireError) return invalid(`the frame is malformed: ${error.message}`);
      throw error;
    }
  }
}

const invalid = (message: string): WireFailure => ({ reason: "INVALID", message, retryAfterMs: 0 });
const limit = (message: string): WireFailure => ({ reason: "LIMIT", message, retryAfterMs: 0 });

function wrongFrame(expected: number, given: number): WireFailure {
  return invalid(`frame ${expected} was expected; given: ${given}`);
}
