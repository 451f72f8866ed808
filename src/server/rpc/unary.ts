/**
 * Unary calls: one wrapper around all of them. What differs between them is in `unary-methods.ts`.
 *
 * Calls are registered with grpc-js as raw bytes in and out: decoding happens here, so that malformed bytes get
 * INVALID with an ErrorInfo and not a bare INTERNAL. When the client of an Acquire has gone before a grant could be
 * written, the core is told to take the grant back (`callGone`). grpc-js announces the end of every call by
 * `cancelled`, also of one that went well: only whether its trailers were sent tells the two apart.
 */
import type { MethodDefinition, ServerUnaryCall, sendUnaryData } from "@grpc/grpc-js";
import { WireError } from "@leasehold/client/wire";
import type { ForceRelease, Outcome, Reply, Request } from "../core/types.js";
import { type Access, type Identity, isIdentity, nobody, type Peer } from "../security/access.js";
import { withhold } from "../security/withhold.js";
import type { CommandSink, LiveRoute, RouteFailure } from "../sequencer/routes.js";
import type { ClockReading } from "../skew/client-clocks.js";
import type { RequestTrace, ServerTracing } from "../tracing/tracing.js";
import { admit, forbidden, identify, peerOf } from "./callers.js";
import { firstGrant } from "./encode.js";
import { failureOf, grpcStatus, internalFailure, type WireFailure } from "./errors.js";
import { resetAfter, wasAnswered } from "./http2-stream.js";
import type { RpcLimits } from "./limits.js";
import type { LocalMethod } from "./local-methods.js";
import type { AdministrativeAct, RequestInfo } from "./request-log.js";
import { Shares } from "./shares.js";
import { type LeaseClocks, noteClock } from "./unary-clock.js";
import type { UnaryMethod } from "./unary-methods.js";

export type RawCall = ServerUnaryCall<Buffer, Buffer>;
export type RawAnswer = sendUnaryData<Buffer>;

export interface UnaryContext {
  readonly sink: CommandSink;
  readonly limits: RpcLimits;
  readonly access: Access;
  /** Absent: nobody traces. */
  readonly tracing?: ServerTracing | null;
  /** What clients tell of their wall clocks goes here, and nowhere else. */
  readonly clocks?: LeaseClocks;
  /** A handler or an encoder threw: a bug, for the log. */
  onBug(error: unknown, request: RequestInfo): void;
  /** A call was answered: for metrics and the log. `reason` is "OK" or the reason of the error. */
  onAnswer?(request: RequestInfo, reason: WireFailure["reason"] | "OK", durationMs: number): void;
}

const raw = (bytes: Buffer) => bytes;

/** A method of raw bytes. `streaming`: both ways. */
export function definitionOf(path: string, streaming: boolean): MethodDefinition<Buffer, Buffer> {
  return {
    path,
    requestStream: streaming,
    responseStream: streaming,
    requestSerialize: raw,
    requestDeserialize: raw,
    responseSerialize: raw,
    responseDeserialize: raw,
  };
}

/** All unary calls that have not been answered. */
export class UnaryCalls {
  private readonly open = new Set<UnaryCall>();
  private readonly shares: Shares;

  constructor(private readonly context: UnaryContext) {
    this.shares = new Shares("calls", context.limits.callsPerPrincipalMax);
  }

  get size(): number {
    return this.open.size;
  }

  /** `refusal`: why no calls are taken at present, else null. */
  handle(method: UnaryMethod | LocalMethod, call: RawCall, answer: RawAnswer, refusal: WireFailure | null): void {
    const peer = peerOf(call);
    const unary = new UnaryCall(this.context, method, call, answer, peer);
    const why = refusal ?? this.full();
    if (why !== null) {
      unary.refuse(why);
      return;
    }
    this.open.add(unary);
    call.on("cancelled", () => {
      this.open.delete(unary);
      unary.ended();
    });
    identify(this.context.access, peer, (who) => this.identified(unary, call, who));
  }

  private identified(unary: UnaryCall, call: RawCall, who: Identity | WireFailure): void {
    if (unary.begun) return; // it has ended while somebody asked who it is
    const share = isIdentity(who) ? this.shares.take(who.principal.name) : who;
    if ("reason" in share) {
      unary.deny(share);
      return;
    }
    call.on("cancelled", share); // held back or not, it is one of its principal's calls
    admit(who, call, (identity, failure) => {
      if (unary.begun) return; // or while it was held back
      if (failure === null) unary.start(identity);
      else unary.deny(failure);
    });
  }

  private full(): WireFailure | null {
    const { callsMax } = this.context.limits;
    if (this.open.size < callsMax) return null;
    return { reason: "LIMIT", message: `more than ${callsMax} calls are open`, retryAfterMs: 1_000 };
  }

  /** Ends the calls that are still unanswered. */
  fail(failure: RouteFailure): void {
    for (const call of this.open) call.fail(failure);
  }
}

/**
 * new: it is not known yet who calls. pending: taken by the sink, no reply yet. answered: a response is written, or waits for the client to read. failed:
 * the same with an error. over: nothing more can be written.
 */
type CallState = "new" | "pending" | "answered" | "failed" | "over";

class UnaryCall implements LiveRoute {
  readonly kind = "call";
  private state: CallState = "new";
  private request: Request | null = null;
  /** The grant in the response; of several the first. */
  private token: number | null = null;
  private clock: ClockReading | undefined;
  private trace: RequestTrace | null = null;
  private identity = nobody;
  private act: AdministrativeAct | undefined;
  private readonly startedMs = performance.now();

  constructor(
    private readonly context: UnaryContext,
    private readonly method: UnaryMethod | LocalMethod,
    private readonly call: RawCall,
    private readonly answer: RawAnswer,
    private readonly peer: Peer,
  ) {}

  /** No longer what it was when it arrived. */
  get begun(): boolean {
    return this.state !== "new";
  }

  start(identity: Identity): void {
    try {
      const failure = this.submit(identity);
      if (failure !== null) this.refuse(failure);
    } catch (error) {
      this.bug(error);
    }
  }

  private submit(identity: Identity): WireFailure | null {
    const bytes = this.call.request;
    const { frameBytesMax } = this.context.limits;
    if (bytes.length > frameBytesMax) {
      const message = `the request has ${bytes.length} bytes; at most ${frameBytesMax} are allowed`;
      return { reason: "LIMIT", message, retryAfterMs: 0 };
    }
    const { method } = this;
    this.identity = identity;
    try {
      return "answer" in method ? this.answerLocally(method, identity, bytes) : this.hand(method, identity, bytes);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return { reason: "INVALID", message: `the request is malformed: ${error.message}`, retryAfterMs: 0 };
    }
  }

  private answerLocally(method: LocalMethod, identity: Identity, bytes: Buffer): WireFailure | null {
    const refusal = identity.permits(method.demand);
    if (refusal !== null) return failureOf(refusal);
    const answer = method.answer(bytes);
    if (!Buffer.isBuffer(answer)) return answer;
    this.act = method.act(bytes);
    this.write(answer);
    return null;
  }

  /** To the core. */
  private hand(method: UnaryMethod, identity: Identity, bytes: Buffer): WireFailure | null {
    const { request, observed, clock, traceparent } = method.read(bytes, remainingMs(this.call));
    if (request.kind === "refused") return failureOf(request);
    const refusal = forbidden(identity, request);
    if (refusal !== null) {
      this.deny(failureOf(refusal));
      return null;
    }
    const { tracing } = this.context;
    if (tracing) {
      const sent = traceparent || String(this.call.metadata.get("traceparent")[0] ?? "");
      this.trace = tracing.request(request, sent, "unary");
    }
    const { principal } = identity;
    this.clock = clock;
    this.state = "pending"; // before the sink sees the route: it may answer at once
    this.request = request;
    if (request.kind === "forceRelease") this.act = forceRelease(request);
    return this.context.sink.submit({ kind: "call", request, route: this, principal, observed });
  }

  deliver(reply: Reply, timestamp: number): void {
    if (reply.kind !== "outcome") return;
    const outcome = withhold(reply.outcome, this.identity);
    if (this.state !== "pending") {
      // The client has gone, or was told otherwise.
      if (outcome.kind === "grant") this.takeBack(firstGrant(outcome).token);
      return;
    }
    this.trace?.answered(outcome);
    this.trace = null;
    if (outcome.kind === "refused") {
      this.refuse(failureOf(outcome));
      return;
    }
    if (outcome.kind === "grant") this.token = firstGrant(outcome).token;
    const { clocks } = this.context;
    if (clocks && this.request) noteClock(clocks, this.request, outcome, this.clock, this.startedMs);
    try {
      this.write(this.encode(outcome, timestamp, reply.clockAheadBy));
    } catch (error) {
      this.bug(error);
      if (this.token !== null) this.takeBack(this.token);
    }
  }

  private encode(outcome: Outcome, timestamp: number, clockAheadBy: number): Buffer {
    const { method, request } = this;
    const { name } = this.identity.principal;
    const bytes = request && "write" in method ? method.write(outcome, timestamp, clockAheadBy, request, name) : null;
    if (bytes === null) throw new Error(`${method.path} was answered with the outcome ${outcome.kind}`);
    return bytes;
  }

  flush(): void {
    // A call has one reply, which is written when it is delivered.
  }

  fail(failure: RouteFailure): void {
    if (this.state === "pending" || this.state === "new") this.refuse(failure);
  }

  private write(bytes: Buffer): void {
    this.state = "answered";
    this.answer(null, bytes);
    resetAfter(this.call, this.context.limits.closeMsMax);
    this.told("OK");
  }

  refuse(failure: WireFailure): void {
    if (this.state === "over") return;
    const { method } = this;
    const bytes = "instead" in method ? (method.instead?.(failure) ?? null) : null;
    if (bytes !== null) this.write(bytes);
    else this.deny(failure);
  }

  /** Refuses somebody who is to learn nothing else. */
  deny(failure: WireFailure): void {
    if (this.state === "over") return;
    this.trace?.failed(failure.reason);
    this.trace = null;
    this.state = "failed";
    this.answer(grpcStatus(failure, this.peer.requestId));
    this.told(failure.reason);
  }

  private told(reason: WireFailure["reason"] | "OK"): void {
    this.context.onAnswer?.(this.info, reason, performance.now() - this.startedMs);
  }

  private get info(): RequestInfo {
    const { requestId, address } = this.peer;
    return { requestId, path: this.method.path, principal: this.identity.principal.name, address, act: this.act };
  }

  /** The call is over, in whatever way. */
  ended(): void {
    const before = this.state;
    this.state = "over";
    this.trace?.failed("gone");
    this.trace = null;
    if (before === "pending" && this.request?.kind === "acquire") this.takeBack(null);
    else if (before === "answered" && this.token !== null && !wasAnswered(this.call)) this.takeBack(this.token);
  }

  private takeBack(token: number | null): void {
    this.context.sink.submit({ kind: "callGone", route: this, token });
  }

  private bug(error: unknown): void {
    this.context.onBug(error, this.info);
    this.refuse(internalFailure);
  }
}

function forceRelease({ name, token, now, message }: ForceRelease): AdministrativeAct {
  return { event: "force_release", lock: name, token, now, reason: message };
}

function remainingMs(call: RawCall): number {
  const deadline = call.getDeadline();
  return (deadline instanceof Date ? deadline.getTime() : deadline) - Date.now();
}
