/**
 * The caller's side: metadata with the token on each call, and no call that outlives its lock.
 *
 * A lock that is lost before the call is refused here, without a call. When it is lost during the call, the call is
 * cancelled; the server may have carried it out or not.
 */
import { whenLost } from "../admission/aborting.js";
import { extractFromAnswer, type HeaderCarrier, isClock, type MessageClock } from "../admission/clock.js";
import { MODE_HEADER, TOKEN_HEADER } from "../admission/presented.js";
import { FenceError, invalid } from "../errors.js";
import { type Fenced, type Hold, holdOf } from "../hold.js";
import { checkKeys } from "../token.js";
import { status, statusOf } from "./refusal.js";
import type { ClientListener, ClientModule, GrpcMetadata } from "./types.js";

export interface FenceClientInterceptorOptions<Metadata extends GrpcMetadata, Inner, Outer> {
  /** The module `@grpc/grpc-js`, imported as a whole. */
  readonly grpc: ClientModule<Metadata, Inner, Outer>;
  readonly lock: Fenced;
  /** `client.clock`: puts a Lamport timestamp on calls, and follows those of answers. */
  readonly clock?: MessageClock | undefined;
}

/** What is used of a call to cancel it. */
interface Cancellable {
  cancelWithStatus(code: number, details: string): void;
}

export function carrierOf(metadata: GrpcMetadata): HeaderCarrier {
  return {
    get(name) {
      const values = metadata.get(name);
      return values.length === 0 ? undefined : values.map(String).join(", ");
    },
    set: (name, value) => metadata.set(name, value),
  };
}

/**
 * An interceptor that presents the token of the lock with each call: to a server with `fenceServerInterceptor`, or to any
 * that checks `fencing-token`.
 *
 * A lost lock: the call ends with FAILED_PRECONDITION and the reason LOST, and nothing is sent. A lock that is lost during
 * the call: the call is cancelled, and ends with ABORTED and the reason LOST. `fenceErrorOf` reads the reason of an error.
 *
 * Interceptors that are given for one call take the place of those of its client: give all of them. Throws INVALID; LOST when
 * the lock is lost already.
 *
 * @example
 * await client.withLock("orders/42", async (lock) => {
 *   const interceptors = [fenceClientInterceptor({ grpc, lock, clock: client.clock })];
 *   await pay({ order: 42 }, { interceptors });
 * });
 */
export function fenceClientInterceptor<Metadata extends GrpcMetadata, Inner, Outer extends Cancellable>(
  options: FenceClientInterceptorOptions<Metadata, Inner, Outer>,
): <Options>(options: Options, nextCall: (options: Options) => Inner) => Outer {
  checkKeys(options, ["grpc", "lock", "clock"], "the options of fenceClientInterceptor()");
  const { grpc, lock, clock } = options;
  if (typeof grpc?.InterceptingCall !== "function" || typeof grpc.Metadata !== "function") {
    throw invalid("grpc must be the module @grpc/grpc-js");
  }
  if (clock !== undefined && !isClock(clock)) throw invalid("clock must have inject and extract: client.clock has");
  const hold = holdOf(lock);
  return (callOptions, nextCall) => {
    let token: number;
    try {
      token = hold.token;
      hold.signal?.throwIfAborted();
    } catch (error) {
      return new grpc.InterceptingCall(refusedCall(lost(hold, error), new grpc.Metadata()) as unknown as Inner);
    }
    return fencedCall(grpc, nextCall(callOptions), hold, token, clock);
  };
}

function lost({ resource }: Hold, cause: unknown): FenceError {
  return new FenceError("LOST", `the lock of ${JSON.stringify(resource)} is lost`, { resource, cause });
}

/**
 * A call that ends at once and was never one of the channel's: a call that is made and not started would leave its timers
 * behind. It takes the place of the inner call, of which more methods may be called than are typed here.
 */
function refusedCall<Metadata extends GrpcMetadata>(error: FenceError, metadata: Metadata) {
  const ignore = () => {};
  return {
    start(_metadata: Metadata, listener?: { onReceiveStatus?(status: unknown): void }) {
      process.nextTick(() => listener?.onReceiveStatus?.(statusOf(error, metadata)));
    },
    sendMessageWithContext: ignore,
    sendMessage: ignore,
    startRead: ignore,
    halfClose: ignore,
    cancelWithStatus: ignore,
    getPeer: () => "unknown",
    getAuthContext: () => null,
  };
}

function fencedCall<Metadata extends GrpcMetadata, Inner, Outer extends Cancellable>(
  grpc: ClientModule<Metadata, Inner, Outer>,
  inner: Inner,
  hold: Hold,
  token: number,
  clock: MessageClock | undefined,
): Outer {
  let loss: FenceError | undefined;
  let stop: (() => void) | undefined;
  const listener: ClientListener<Metadata> = {
    onReceiveMetadata(metadata, next) {
      if (clock) extractFromAnswer(clock, carrierOf(metadata));
      next(metadata);
    },
    onReceiveStatus(ended, next) {
      stop?.();
      if (clock) extractFromAnswer(clock, carrierOf(ended.metadata));
      // The status of a cancelled call has no trailers: its reason is put there.
      next(loss && ended.code === status.aborted ? statusOf(loss, new grpc.Metadata(), status.aborted) : ended);
    },
  };
  const call = new grpc.InterceptingCall(inner, {
    start(metadata, _listener, next) {
      const presented = metadata.clone(); // the caller may use its own for other calls, under other locks
      presented.set(TOKEN_HEADER, String(token));
      if (hold.raises) presented.remove(MODE_HEADER);
      else presented.set(MODE_HEADER, "shared");
      clock?.inject(carrierOf(presented));
      next(presented, listener);
    },
  });
  stop = whenLost(hold, (reason) => {
    loss = lost(hold, reason);
    call.cancelWithStatus(status.aborted, loss.message);
  });
  return call;
}
