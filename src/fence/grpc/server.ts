/**
 * The server's side of a fence over gRPC. The token is in the metadata of a call (`fencing-token`, `fencing-mode`), and what
 * it is checked for is said by the service. The logic is in ../admission/admission.ts, which also says what admission
 * alone does not do.
 *
 * The handler of a call with one request message is started with that message, which often says what is written. So the
 * message is read first, and shown to `resource`. The handler of a request stream is started before any message has come,
 * and the client may be waiting for it to speak first: there the message is waited for only if `streamMessage` says so.
 *
 * Reading is on demand here: who wants a message asks for one. The message that was read ahead answers the first demand of
 * the handler, so that nothing comes twice, or out of its order.
 */
import { ADMISSION_OPTIONS, Admission, type AdmissionOptions, type Admitted } from "../admission/admission.js";
import { isClock, type MessageClock } from "../admission/clock.js";
import { MODE_HEADER, readPresented, TOKEN_HEADER } from "../admission/presented.js";
import { askedOf, type Guarded } from "../admission/target.js";
import type { Presence } from "../admission/turns.js";
import { FenceError, invalid } from "../errors.js";
import { checkKeys } from "../token.js";
import { FencedCall, type Gate } from "./call.js";
import { status, statusOf } from "./refusal.js";
import type { GrpcMetadata, GrpcStatus, MethodDescriptor, ServerCall, ServerModule } from "./types.js";

/** A call, as the service's functions see it before it is admitted. */
export interface CallToAdmit<Metadata> {
  /** `/package.Service/Method`. */
  readonly method: string;
  readonly metadata: Metadata;
  /** The request message, deserialised; undefined for request streams, unless `streamMessage` is set. */
  readonly message: unknown;
}

export interface FenceServerInterceptorOptions<Metadata extends GrpcMetadata, Inner, Outer>
  extends AdmissionOptions<CallToAdmit<Metadata>> {
  /** The module `@grpc/grpc-js`, imported as a whole. */
  readonly grpc: ServerModule<Metadata, Inner, Outer>;
  /**
   * What the call writes to: the name of its lock, or `{ name, slot }` where one permit of a semaphore guards it, or null if
   * it is not fenced. Never take it from metadata that the caller chooses.
   */
  readonly resource: (call: CallToAdmit<Metadata>) => Guarded | Promise<Guarded>;
  /** Whether a fenced call must have a token. Otherwise those without one are let through unchecked. Default: true. */
  readonly required?: boolean | undefined;
  /** With request streams: whether to wait for the first message, and show it to `resource`. Default: false. */
  readonly streamMessage?: boolean | undefined;
  /** `client.clock`: follows the Lamport timestamps of admitted calls, and puts one on their answers. */
  readonly clock?: MessageClock | undefined;
  /**
   * Hears the cause of each answer with UNAVAILABLE or RESOURCE_EXHAUSTED, which the caller does not hear; and of each INTERNAL,
   * which is otherwise a process warning.
   */
  readonly onError?: ((error: unknown) => void) | undefined;
}

const OPTIONS = [...ADMISSION_OPTIONS, "grpc", "resource", "required", "streamMessage", "clock", "onError"];

/** An interceptor for the option `interceptors` of a server. */
export interface FenceServerInterceptor<Inner, Outer> {
  (method: MethodDescriptor, call: Inner): Outer;
  /** What was admitted with a call: give it the handler's `call`. Undefined: it was not fenced. */
  of(call: { readonly metadata: object }): Admitted | undefined;
}

/**
 * An interceptor that refuses calls with stale tokens. Give `authorize` or `validate`, or both. Throws INVALID.
 *
 * Refusals are FAILED_PRECONDITION for a stale token (reason STALE_TOKEN) or one that is not held (LOST), INVALID_ARGUMENT,
 * PERMISSION_DENIED, UNAVAILABLE, RESOURCE_EXHAUSTED.
 *
 * With `serialize` a handler has ended when it calls its callback. The end of a handler that streams its response is not
 * known when its caller has gone, so fenced methods with a response stream are then refused with UNIMPLEMENTED.
 *
 * @example
 * const fence = fenceServerInterceptor({
 *   grpc,
 *   store: levelStore(db),
 *   resource: ({ method, message }) => (method === "/shop.Orders/Pay" ? `orders/${message.order}` : null),
 *   validate: (name, token) => client.validate(name, token),
 *   serialize: true,
 * });
 * const server = new grpc.Server({ interceptors: [fence] });
 */
export function fenceServerInterceptor<Metadata extends GrpcMetadata, Inner extends ServerCall<Metadata>, Outer>(
  options: FenceServerInterceptorOptions<Metadata, Inner, Outer>,
): FenceServerInterceptor<Inner, Outer> {
  const fence = new GrpcFence(options);
  const intercept = (method: MethodDescriptor, call: Inner) => fence.intercept(method, call);
  return Object.assign(intercept, { of: (call: { readonly metadata: object }) => fence.of(call) });
}

class GrpcFence<Metadata extends GrpcMetadata, Inner extends ServerCall<Metadata>, Outer> {
  readonly #admission: Admission<CallToAdmit<Metadata>>;
  readonly #options: FenceServerInterceptorOptions<Metadata, Inner, Outer>;
  /** By the metadata, which is what a handler's call and an interceptor's have in common. */
  readonly #admitted = new WeakMap<object, Admitted>();

  constructor(options: FenceServerInterceptorOptions<Metadata, Inner, Outer>) {
    checkKeys(options, OPTIONS, "the options of fenceServerInterceptor()");
    const { grpc, resource, required = true, streamMessage = false, clock, onError } = options;
    if (typeof grpc?.ServerInterceptingCall !== "function" || typeof grpc.Metadata !== "function") {
      throw invalid("grpc must be the module @grpc/grpc-js, 1.10 or later");
    }
    if (typeof resource !== "function") throw invalid("resource must be a function");
    if (onError !== undefined && typeof onError !== "function") throw invalid("onError must be a function");
    if (typeof required !== "boolean" || typeof streamMessage !== "boolean") {
      throw invalid("required and streamMessage must be true or false");
    }
    if (clock !== undefined && !isClock(clock)) throw invalid("clock must have inject and extract: client.clock has");
    this.#admission = new Admission(options);
    this.#options = options;
  }

  of(call: { readonly metadata: object }): Admitted | undefined {
    return this.#admitted.get(call.metadata);
  }

  intercept(method: MethodDescriptor, call: Inner): Outer {
    const { grpc, streamMessage = false } = this.#options;
    const gate: Gate<Metadata> = {
      readsAhead: !method.requestStream || streamMessage,
      newMetadata: () => new grpc.Metadata(),
      open: (metadata, message, presence) => this.#open(method, { method: method.path, metadata, message }, presence),
      refuse: (error) => this.#refuse(error),
    };
    return new grpc.ServerInterceptingCall(new FencedCall(call, gate).inner());
  }

  /** Resolves with what is to be done with the call; rejects for a refusal. */
  async #open(
    method: MethodDescriptor,
    call: CallToAdmit<Metadata>,
    presence: Presence,
  ): ReturnType<Gate<Metadata>["open"]> {
    const { resource, required = true, clock } = this.#options;
    const guarded = await resource(call);
    if (guarded === null) return undefined;
    const presented = readPresented(oneOf(call.metadata, TOKEN_HEADER), oneOf(call.metadata, MODE_HEADER));
    if (presented === undefined) {
      if (required) throw invalid(`the metadata ${TOKEN_HEADER} is missing`);
      return undefined;
    }
    if (this.#admission.serializes && method.responseStream) throw new StreamInTurns();
    const { admitted, end } = await this.#admission.admit(call, askedOf(guarded, presented), presence);
    this.#admitted.set(call.metadata, admitted);
    return { end, clock };
  }

  #refuse(error: unknown): GrpcStatus<Metadata> {
    const { grpc, onError } = this.#options;
    if (error instanceof StreamInTurns) return statusOf(error, new grpc.Metadata(), status.unimplemented);
    if (!(error instanceof FenceError)) {
      if (onError) onError(error);
      else process.emitWarning(error instanceof Error ? error : String(error));
      return { code: status.internal, details: "internal error" };
    }
    const refusal = statusOf(error, new grpc.Metadata());
    if (refusal.code === status.unavailable || refusal.code === status.resourceExhausted) onError?.(error);
    return refusal;
  }
}

class StreamInTurns extends FenceError {
  constructor() {
    super("INVALID", "a method that streams its response cannot take turns");
  }
}

/** One value of the metadata; all of them in a list, which is no token, if there are several. */
function oneOf(metadata: GrpcMetadata, name: string): string | undefined {
  const values = metadata.get(name);
  return values.length === 0 ? undefined : values.map(String).join(", ");
}
