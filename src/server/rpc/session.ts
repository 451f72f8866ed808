/**
 * Sessions, as seen from one stream, whatever carries it.
 *
 * The life of a stream: the first frame says Hello and becomes an `attach`; frames that follow before the Welcome are
 * held, within a bound; from then on each frame becomes one command, so that its requests are stepped together and in
 * order. When the stream ends, for whatever reason, a `detach` tells the core, unless another stream has taken the
 * session over.
 *
 * What is wrong with a frame as a whole (bytes that are no message, a frame number out of order, no Hello) ends the
 * stream: there is no telling what the client meant. What is wrong with one command in a good frame travels through the
 * core as a refusal in that command's place, so that it is answered in order and, after a resume, in the same way again.
 *
 * When the sequencer takes no more, each command of the frame fails at once and may be sent anew under a new number. Not
 * so a command that a resuming client sends again: it may have had its effect before, and a failure would hide that.
 * Then the stream ends instead, and the client resumes later.
 */
import type { CoreLimits, Outcome, Reply } from "../core/types.js";
import { everybody, type Identity } from "../security/access.js";
import { withhold } from "../security/withhold.js";
import type { CommandSink, LiveRoute, RouteFailure } from "../sequencer/routes.js";
import type { ClientClocks, SessionClock } from "../skew/client-clocks.js";
import type { ServerTracing } from "../tracing/tracing.js";
import { forbidden } from "./callers.js";
import { failureOf, internalFailure, type WireFailure } from "./errors.js";
import type { BatchFrame, FrameReader } from "./frames.js";
import type { RpcLimits } from "./limits.js";
import { Outbox } from "./outbox.js";
import type { RenewalPacing } from "./pacing.js";
import type { RequestInfo } from "./request-log.js";
import { Resent } from "./resent.js";
import type { SessionInput, SessionPipe } from "./session-pipe.js";
import { HELLO_SEQ, type OnResult, StreamTimes } from "./stream-times.js";
import { StreamTraces } from "./stream-traces.js";

export interface SessionContext {
  readonly sink: CommandSink;
  readonly frames: FrameReader;
  readonly core: CoreLimits;
  readonly limits: RpcLimits;
  readonly pacing: RenewalPacing;
  readonly serverVersion: string;
  /** What clients tell of their wall clocks goes here, and nowhere else. */
  readonly clocks?: Pick<ClientClocks, "session">;
  /** Absent: nobody traces. */
  readonly tracing?: ServerTracing | null;
  clusterId(): string;
  /** An encoder threw: a bug, for the log. */
  onBug(error: unknown, request: RequestInfo): void;
  /** A stream or a command was refused: for metrics. */
  onRefusal?(reason: WireFailure["reason"]): void;
  /** A command was answered, or the stream welcomed: for metrics. */
  readonly onResult?: OnResult;
  /** A stream has ended: for the log. "OK": its client ended it. */
  onStreamEnd?(request: RequestInfo, reason: WireFailure["reason"] | "OK", durationMs: number): void;
}

/** The gRPC path of a session's stream. */
export const ATTACH = "/leasehold.v1.SessionService/Attach";

/** So short that the renewals of leases of any TTL do not suffer. */
const REST_MS_MAX = 100;

/** Whose stream it is. */
export interface StreamOwner {
  readonly identity: Identity;
  readonly requestId: string;
  readonly address: string;
}

/** One client that is connected. */
export interface SessionView {
  /** As it gave it itself. */
  readonly owner: string;
  /** Name and version of its library. */
  readonly client: string;
  readonly principal: string;
  readonly address: string;
  /** Since it connected, for the last time. */
  readonly connectedMs: number;
}

/** A client of this process. */
export const local: StreamOwner = { identity: everybody, requestId: "", address: "in-memory" };

export class SessionStream implements SessionInput, LiveRoute {
  readonly kind = "stream";
  private phase: "hello" | "attaching" | "open" | "closed" = "hello";
  private readonly helloTimer: NodeJS.Timeout;
  /** The number of the last frame that was taken. */
  private frame = 0;
  private held: Uint8Array[] = [];
  private heldBytes = 0;
  /** "" until the core has welcomed the stream. */
  private sessionId = "";
  private epoch = 0;
  private clock: SessionClock | undefined;
  private readonly resent = new Resent();
  private readonly outbox: Outbox;
  /** The stream ends with this after what is in the outbox has been written. */
  private ending: WireFailure | null = null;
  /** That the last frame has brought about, so far. */
  private renewals = 0;
  private forget: () => void = () => undefined;
  private readonly traces: StreamTraces;
  private readonly times: StreamTimes;
  private readonly identity: Identity;
  private readonly info: RequestInfo;
  private readonly startedMs = performance.now();
  private owner = "";
  private client = "";

  constructor(
    private readonly context: SessionContext,
    private readonly pipe: SessionPipe,
    { identity, requestId, address }: StreamOwner,
    private readonly onGone: (stream: SessionStream) => void,
  ) {
    this.identity = identity;
    this.traces = new StreamTraces(context.tracing, context.core.commandsPerSessionMax);
    this.info = { requestId, path: ATTACH, principal: identity.principal.name, address };
    this.times = new StreamTimes(context.onResult, context.core.commandsPerSessionMax);
    const { helloMsMax, frameBytesMax, listBytesMax } = context.limits;
    this.outbox = new Outbox(frameBytesMax, listBytesMax, context.pacing);
    this.helloTimer = setTimeout(() => this.helloOverdue(helloMsMax), helloMsMax);
    this.helloTimer.unref();
  }

  // ------------------------------------------------------------------------------------------ from the client

  begin(): void {
    this.forget = this.identity.onWithdrawn((failure) => this.end(failure));
  }

  receive(bytes: Uint8Array): void {
    try {
      if (this.phase === "hello") this.hello(bytes);
      else if (this.phase === "attaching") this.hold(bytes);
      else if (this.phase === "open") this.take(bytes);
    } catch (error) {
      this.bug(error);
    }
  }

  private hello(bytes: Uint8Array): void {
    const hello = this.context.frames.hello(bytes);
    if ("reason" in hello) {
      this.end(hello);
      return;
    }
    clearTimeout(this.helloTimer);
    this.phase = "attaching";
    this.times.hello();
    this.frame = 1;
    this.owner = hello.owner;
    this.client = hello.client;
    this.clock = this.context.clocks?.session(hello.owner, hello.client);
    this.clock?.heard(1, hello.clock);
    const { attach } = hello;
    this.resent.announce(attach.outstanding);
    const { principal } = this.identity;
    const failure = this.context.sink.submit({ kind: "attach", ...attach, route: this, principal });
    if (failure !== null) this.end(failure);
  }

  private helloOverdue(helloMsMax: number): void {
    this.end({ reason: "INVALID", message: `no hello within ${helloMsMax} ms`, retryAfterMs: 0 });
  }

  private hold(bytes: Uint8Array): void {
    const { heldBytesMax } = this.context.limits;
    this.heldBytes += bytes.length;
    this.held.push(bytes);
    if (this.heldBytes <= heldBytesMax) return;
    const message = `more than ${heldBytesMax} bytes of frames were sent before welcome`;
    this.end({ reason: "LIMIT", message, retryAfterMs: 0 });
  }

  private take(bytes: Uint8Array): void {
    const batch = this.context.frames.batch(bytes, this.frame + 1);
    if ("reason" in batch) {
      this.end(batch);
      return;
    }
    const { frame, ackedBelow, acked, renew, progress, observed, clock } = batch;
    if (clock.wallClockMs > 0 || clock.roundTripMs > 0) this.clock?.heard(frame, clock);
    this.frame = frame;
    const { sessionId, epoch } = this;
    const { principal } = this.identity;
    // What is sent again is never too much: a client that cannot come back loses what it has.
    const again = this.resent.take(batch.requests);
    if (again > 0) this.identity.charge(again, "again");
    const others = batch.requests.length - again;
    const tooMany = others > 0 ? this.identity.charge(others, "frame") : null;
    const admitted = tooMany === null ? batch.requests.length : again + (tooMany.admitted ?? 0);
    this.times.begin(batch.requests);
    if (tooMany !== null) this.notTaken(batch.requests.slice(admitted), tooMany);
    if (tooMany?.holdMs) this.rest(tooMany.holdMs);
    if (batch.requests.length === 0) this.rest(this.identity.pace(this.renewals));
    this.renewals = 0;
    if (this.isClosed) return;
    // Renewals are never too many: whoever asks for too much keeps what it has.
    const requests = this.permitted(tooMany === null ? batch.requests : batch.requests.slice(0, admitted));
    this.traces.begin(batch, admitted);
    const command = { sessionId, epoch, frame, ackedBelow, acked, renew, progress, principal, observed, requests };
    const failure = this.context.sink.submit({ kind: "frame", ...command });
    if (failure !== null) this.notTaken(requests, failure);
  }

  /** A whole millisecond at least, which is the least that a timer takes. */
  private rest(ms: number): void {
    if (ms >= 1 && !this.isClosed) this.pipe.rest?.(Math.min(ms, REST_MS_MAX));
  }

  /** The requests, with a refusal in the place of each that is not permitted. */
  private permitted(requests: BatchFrame["requests"]): BatchFrame["requests"] {
    const { identity } = this;
    if (identity === everybody) return requests;
    return requests.map((one) => {
      const refusal = one.request.kind === "refused" ? null : forbidden(identity, one.request);
      return refusal === null ? one : { seq: one.seq, request: refusal };
    });
  }

  private notTaken(requests: BatchFrame["requests"], failure: RouteFailure): void {
    if (this.resent.someOf(requests)) {
      this.end(failure);
      return;
    }
    this.times.notTaken(requests, failure.reason);
    for (const { seq } of requests) {
      this.outbox.failure(seq, failure);
      this.context.onRefusal?.(failure.reason);
    }
    this.flush();
  }

  // ------------------------------------------------------------------------------------------ to the client

  deliver(reply: Reply, timestamp: number): void {
    if (this.phase === "closed") {
      this.deliverTooLate(reply);
      return;
    }
    const { outbox } = this;
    outbox.stamp(timestamp);
    switch (reply.kind) {
      case "outcome":
        outbox.clockAhead(reply.clockAheadBy);
        if (this.phase === "attaching") this.attached(reply.outcome);
        else this.result(reply.seq, withhold(reply.outcome, this.identity));
        return;
      case "processed":
        outbox.clockAhead(reply.clockAheadBy);
        outbox.processed(reply.frame);
        return;
      case "renewal":
        this.renewals++;
        outbox.renewal(reply);
        return;
      case "leaseEnd":
        outbox.leaseEnd(reply);
        return;
      case "holdEnd":
        outbox.holdEnd(reply);
        return;
      case "replaced":
        this.sessionId = ""; // it belongs to another stream now: nothing to detach
        this.ending = { reason: "SESSION_REPLACED", message: "another stream has taken over", retryAfterMs: 0 };
    }
  }

  private result(seq: number, outcome: Outcome): void {
    this.traces.answered(seq, outcome);
    this.times.answered(seq, outcome);
    if (outcome.kind === "refused") this.context.onRefusal?.(outcome.reason);
    try {
      this.outbox.result(seq, outcome);
    } catch (error) {
      this.context.onBug(error, this.info);
      this.outbox.failure(seq, internalFailure);
    }
  }

  private attached(outcome: Outcome): void {
    this.times.answered(HELLO_SEQ, outcome);
    if (outcome.kind === "refused") {
      this.ending = failureOf(outcome);
      return;
    }
    if (outcome.kind !== "welcome") {
      this.context.onBug(new Error(`attach was answered with the outcome ${outcome.kind}`), this.info);
      return;
    }
    const { context } = this;
    this.phase = "open";
    this.sessionId = outcome.sessionId;
    this.epoch = outcome.epoch;
    this.clock?.attached();
    this.outbox.welcome({
      sessionId: outcome.sessionId,
      clusterId: context.clusterId(),
      lost: [...outcome.lost],
      resumeMs: context.core.resumeMs,
      frameBytesMax: context.limits.frameBytesMax,
      commandsInFlightMax: context.core.commandsPerSessionMax,
      serverVersion: context.serverVersion,
    });
  }

  /** The client went while it was being welcomed: only now is there something to detach. */
  private deliverTooLate(reply: Reply): void {
    if (reply.kind !== "outcome" || reply.outcome.kind !== "welcome") return;
    const { sessionId, epoch } = reply.outcome;
    this.context.sink.submit({ kind: "detach", sessionId, epoch });
  }

  flush(): void {
    this.times.flushed();
    if (this.phase === "closed") return;
    if (this.outbox.filled && this.phase === "open") this.write();
    if (this.ending !== null) this.end(this.ending);
    else if (this.held.length > 0 && this.phase === "open") this.takeHeld();
  }

  private write(): void {
    try {
      for (const frame of this.outbox.take()) this.pipe.write(frame);
    } catch (error) {
      this.bug(error);
      return;
    }
    const { streamBufferedBytesMax } = this.context.limits;
    if (this.pipe.bufferedBytes() <= streamBufferedBytesMax) return;
    const message = `the client does not read: more than ${streamBufferedBytesMax} bytes wait for it`;
    if (this.close("LIMIT")) this.pipe.reset({ reason: "LIMIT", message, retryAfterMs: 0 });
  }

  private takeHeld(): void {
    const { held } = this;
    this.held = [];
    for (const bytes of held) this.receive(bytes);
  }

  // ------------------------------------------------------------------------------------------ the end

  fail(failure: RouteFailure): void {
    this.sessionId = ""; // whoever fails a route has dropped it already
    this.end(failure);
  }

  end(failure: WireFailure): void {
    if (!this.close(failure.reason)) return;
    this.context.onRefusal?.(failure.reason);
    this.pipe.close(failure);
  }

  ended(): void {
    if (this.close("OK")) this.pipe.close(null);
  }

  private bug(error: unknown): void {
    this.context.onBug(error, this.info);
    this.end(internalFailure);
  }

  /** For people; null: it has not been welcomed yet. */
  get view(): SessionView | null {
    if (this.phase !== "open") return null;
    const { owner, client, startedMs } = this;
    const { principal, address } = this.info;
    return { owner, client, principal, address, connectedMs: performance.now() - startedMs };
  }

  private get isClosed(): boolean {
    return this.phase === "closed";
  }

  /** Returns false when the stream was closed before. */
  private close(reason: WireFailure["reason"] | "OK"): boolean {
    if (this.phase === "closed") return false;
    this.phase = "closed";
    clearTimeout(this.helloTimer);
    this.held = [];
    this.clock?.gone();
    this.forget();
    this.traces.close();
    this.onGone(this);
    const { sessionId, epoch } = this;
    if (sessionId !== "") this.context.sink.submit({ kind: "detach", sessionId, epoch });
    this.context.onStreamEnd?.(this.info, reason, performance.now() - this.startedMs);
    return true;
  }
}
