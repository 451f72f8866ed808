/**
 * Spans through OpenTelemetry's API, below the span of the client that asked and asked for it to be sampled. Requests
 * without such a span make none, so nothing here costs a server that nobody traces.
 *
 * - `leasehold.server.acquire`: from the arrival of an acquire to its answer.
 * - `leasehold.server.wait`, below it: the time in the queue.
 * - `leasehold.server.journal_commit`, below it: the write that made the answer durable, which other commands shared.
 * - `leasehold.server.hold`, below it, for unary callers: from the grant to its end. The SDK has a span of its own for that.
 * - `leasehold.server.release`, for unary callers.
 *
 * The core knows nothing of traces. An answer is delivered right before the events of the same batch are told, so a grant
 * that was answered finds its event, with the time it waited, within the same turn of the loop; the answer to a repeated
 * request has none.
 *
 * Which SDK receives the spans is the operator's choice: it registers itself before the server starts
 * (`NODE_OPTIONS=--import=./telemetry.mjs`). Without one, `ServerTracing.detect` returns null.
 */
import {
  type Context,
  ProxyTracerProvider,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import type { CoreEvent, Outcome, Request } from "../core/types.js";

const NAME = "leasehold";
/** Version, trace id, span id, flags; later versions may add more. https://www.w3.org/TR/trace-context/ */
const TRACEPARENT = /^(?!ff)[\da-f]{2}-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(?:$|-)/;
const SAMPLED = 1;
/** Spans of holds that have not ended; further ones are not traced. */
const HOLDS_MAX = 10_000;

/** The span of one request. */
export interface RequestTrace {
  answered(outcome: Outcome): void;
  /** It came to nothing: "gone" for a client that did not wait for the answer, else the reason. */
  failed(why: string): void;
}

interface Commit {
  readonly startMs: number;
  readonly endMs: number;
  readonly commands: number;
}

/** A grant that was answered, and whose event is about to come. */
interface Granted {
  readonly span: Span;
  readonly context: Context;
  readonly startMs: number;
  readonly unary: boolean;
}

export class ServerTracing {
  readonly #tracer: Tracer;
  #lastCommit: Commit | null = null;
  readonly #granted = new Map<number, Granted>();
  readonly #holds = new Map<number, Span>();

  constructor(tracer: Tracer) {
    this.#tracer = tracer;
  }

  /** Null when no SDK has been registered. */
  static detect(version: string): ServerTracing | null {
    const provider = trace.getTracerProvider();
    const silent = provider instanceof ProxyTracerProvider && provider.getDelegateTracer(NAME) === undefined;
    return silent ? null : new ServerTracing(trace.getTracer(NAME, version));
  }

  /** Null: this request is not to be traced. `traceparent` is what the caller has sent, and may be anything. */
  request(request: Request, traceparent: string, transport: "unary" | "session"): RequestTrace | null {
    if (request.kind !== "acquire" && (request.kind !== "release" || transport !== "unary")) return null;
    const parent = contextOf(traceparent);
    if (parent === null) return null;
    const lock = request.kind === "acquire" ? (request.items[0]?.name ?? "") : request.name;
    const startMs = performance.now();
    const attributes = { "leasehold.lock": lock, "rpc.system": "grpc", "leasehold.transport": transport };
    const options = { kind: SpanKind.SERVER, startTime: startMs, attributes };
    const span = this.#tracer.startSpan(`leasehold.server.${request.kind}`, options, parent);
    if (request.kind === "acquire") span.setAttribute("leasehold.wait_ms", request.waitMs);
    const unary = transport === "unary";
    const context = trace.setSpan(parent, span);
    return {
      answered: (outcome) => this.#answered({ span, context, startMs, unary }, outcome),
      failed: (why) => fail(span, why),
    };
  }

  #answered(granted: Granted, outcome: Outcome): void {
    const { span } = granted;
    if (outcome.kind === "refused") {
      fail(span, outcome.reason);
      return;
    }
    span.setAttribute("leasehold.outcome", outcome.kind);
    this.#commitSpan(granted);
    const token = outcome.kind === "grant" ? outcome.grants[0]?.token : undefined;
    if (token === undefined) {
      span.end();
      return;
    }
    span.setAttribute("leasehold.token", token);
    this.#granted.set(token, granted);
    setImmediate(() => {
      if (this.#granted.delete(token)) span.end();
    });
  }

  /** The last write, if it came after the request: then the answer has waited for it. */
  #commitSpan({ context, startMs }: Granted): void {
    const commit = this.#lastCommit;
    if (commit === null || commit.endMs < startMs) return;
    const attributes = { "leasehold.commands": commit.commands };
    const options = { startTime: commit.startMs, attributes };
    this.#tracer.startSpan("leasehold.server.journal_commit", options, context).end(commit.endMs);
  }

  /** A batch is durable; what it answers is delivered next. */
  committed(appendSeconds: number, commands: number): void {
    const endMs = performance.now();
    this.#lastCommit = { startMs: endMs - appendSeconds * 1_000, endMs, commands };
  }

  event(event: CoreEvent): void {
    if (event.kind === "granted") this.#onGranted(event.token, event.waitedMs);
    else if (event.kind === "holdEnded") {
      const span = this.#holds.get(event.token);
      if (span === undefined) return;
      this.#holds.delete(event.token);
      span.setAttribute("leasehold.end", event.end);
      span.end();
    }
  }

  #onGranted(token: number, waitedMs: number): void {
    const granted = this.#granted.get(token);
    if (granted === undefined) return;
    this.#granted.delete(token);
    const { span, context, startMs, unary } = granted;
    if (waitedMs > 0) {
      // The wait ended before the write that made the grant durable began.
      const endMs = Math.max(startMs, this.#lastCommit?.startMs ?? startMs);
      const beganMs = Math.max(startMs, endMs - waitedMs);
      this.#tracer.startSpan("leasehold.server.wait", { startTime: beganMs }, context).end(endMs);
    }
    span.end();
    if (!unary || this.#holds.size >= HOLDS_MAX) return;
    const attributes = { "leasehold.token": token };
    this.#holds.set(token, this.#tracer.startSpan("leasehold.server.hold", { attributes }, context));
  }
}

function contextOf(traceparent: string): Context | null {
  const match = TRACEPARENT.exec(traceparent);
  if (match === null) return null;
  const [, traceId = "", spanId = "", flags = ""] = match;
  const traceFlags = Number.parseInt(flags, 16);
  if ((traceFlags & SAMPLED) === 0) return null;
  return trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags, isRemote: true });
}

function fail(span: Span, why: string): void {
  span.setAttribute("leasehold.outcome", why);
  span.setStatus({ code: SpanStatusCode.ERROR, message: why });
  span.end();
}
