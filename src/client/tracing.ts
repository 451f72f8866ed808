/**
 * Spans for what a client does with locks, through OpenTelemetry's API as the caller hands it in, so that this package
 * depends on none: `connect(target, { openTelemetry: api })`.
 *
 * - `leasehold.acquire`, a client span from the call to its answer. Its context travels with the request, and the server's
 *   spans hang below it.
 * - `leasehold.hold`, from the grant to the end of the belief in it; jeopardy, recovery and loss are its events. The
 *   callback of `withLock` runs inside it.
 * - `leasehold.release`, below the hold, from the call to the answer.
 */

import { LeaseholdError } from "./errors.js";
import type { HeldLock } from "./held-lock.js";
import type { AcquireRequest } from "./session/acquire-request.js";
import type { AcquireOutcome } from "./session/acquisition.js";

type Attributes = Record<string, string | number | boolean>;

interface Span {
  setAttribute(key: string, value: string | number | boolean): unknown;
  addEvent(name: string, attributes?: Attributes): unknown;
  setStatus(status: { code: number; message?: string }): unknown;
  end(): void;
}

interface Tracer {
  startSpan(name: string, options?: { kind?: number; attributes?: Attributes }, context?: unknown): Span;
}

/** As much of `@opentelemetry/api` as is used. */
export interface OpenTelemetry {
  readonly trace: {
    getTracer(name: string, version?: string): Tracer;
    setSpan(context: unknown, span: Span): unknown;
  };
  readonly context: {
    active(): unknown;
    with<T>(context: unknown, f: () => T): T;
  };
  readonly propagation: { inject(context: unknown, carrier: Record<string, string>): void };
}

const KIND_CLIENT = 2;
const STATUS_ERROR = 2;

/** Spans of one lock that is held. Each method may be called at any time and in any order. */
export interface HoldTrace {
  /** Its holder calls release; the answer is yet to come. */
  releasing(released: Promise<boolean>): void;
  /** It is held no longer: "released", "transferred", "closed" or a reason of loss. */
  ended(how: string): void;
  event(name: "jeopardy" | "recovered"): void;
}

export class ClientTracing {
  readonly #api: OpenTelemetry;
  readonly #tracer: Tracer;

  constructor(api: OpenTelemetry, version: string) {
    this.#api = api;
    this.#tracer = api.trace.getTracer("@leasehold/client", version);
  }

  /** Begins the span of an acquire: the request with its context, and the outcome that ends the span. */
  acquire(request: AcquireRequest, outcome: AcquireOutcome): { request: AcquireRequest; outcome: AcquireOutcome } {
    const { context, propagation, trace } = this.#api;
    const parent = context.active();
    const [first] = request.items;
    const attributes: Attributes = { "leasehold.lock": first?.name ?? "", "leasehold.mode": first?.mode ?? "" };
    if (request.all) attributes["leasehold.locks"] = request.items.length;
    const span = this.#tracer.startSpan("leasehold.acquire", { kind: KIND_CLIENT, attributes }, parent);
    const carrier: Record<string, string> = {};
    propagation.inject(trace.setSpan(parent, span), carrier);
    return {
      request: { ...request, traceparent: carrier.traceparent ?? "" },
      outcome: {
        granted: (locks) => {
          for (const lock of locks) lock.trace = this.#hold(lock, parent);
          end(span, "granted", { "leasehold.token": locks[0]?.grant.token ?? 0 });
          outcome.granted(locks);
        },
        busy: (busy, error) => {
          end(span, "busy");
          outcome.busy(busy, error);
        },
        failed: (error) => {
          fail(span, error);
          outcome.failed(error);
        },
      },
    };
  }

  #hold(lock: HeldLock, parent: unknown): HoldTrace & { readonly context: unknown } {
    const { token, timestamp } = lock.grant;
    const attributes = { "leasehold.lock": lock.name, "leasehold.token": token, "leasehold.timestamp": timestamp };
    const span = this.#tracer.startSpan("leasehold.hold", { attributes }, parent);
    const context = this.#api.trace.setSpan(parent, span);
    let over = false;
    return {
      context,
      event: (name) => void span.addEvent(name),
      ended: (how) => {
        if (over) return;
        over = true;
        span.setAttribute("leasehold.end", how);
        if (!GIVEN_UP.has(how)) span.setStatus({ code: STATUS_ERROR, message: how });
        span.end();
      },
      releasing: (released) => {
        const release = this.#tracer.startSpan("leasehold.release", { kind: KIND_CLIENT, attributes }, context);
        released.then(
          (was) => end(release, was ? "released" : "was not held"),
          (error) => fail(release, error),
        );
      },
    };
  }

  /** Runs `f` inside the hold of the first of these locks. */
  within<T>([lock]: readonly HeldLock[], f: () => T): T {
    const trace = lock?.trace;
    return trace && "context" in trace ? this.#api.context.with(trace.context, f) : f();
  }
}

const GIVEN_UP: ReadonlySet<string> = new Set(["released", "transferred", "closed"]);

function end(span: Span, outcome: string, attributes: Attributes = {}): void {
  span.setAttribute("leasehold.outcome", outcome);
  for (const [key, value] of Object.entries(attributes)) span.setAttribute(key, value);
  span.end();
}

function fail(span: Span, error: unknown): void {
  const code = LeaseholdError.is(error) ? error.code : "aborted";
  span.setStatus({ code: STATUS_ERROR, message: error instanceof Error ? error.message : String(error) });
  end(span, code);
}
