/** The HTTP/2 stream below a gRPC call, for the cases in which waiting for the client would mean waiting for ever. */
import { constants, type ServerHttp2Stream } from "node:http2";

/**
 * grpc-js has no public way to reset a stream, its way to end one waits until the client has read everything, and it
 * does not tell whether a response has left; so this looks inside. Tests fail when a new version of grpc-js keeps the
 * stream elsewhere.
 */
function streamOf(call: object): ServerHttp2Stream | undefined {
  return (call as { readonly call?: { readonly stream?: ServerHttp2Stream } }).call?.stream;
}

/** The connection that the call came by. */
export function connectionOf(call: object): object | undefined {
  return streamOf(call)?.session;
}

/** Whether the whole response has left: trailers are sent after everything else. */
export function wasAnswered(call: object): boolean {
  return streamOf(call)?.sentTrailers !== undefined;
}

/** Drops what has been written and tells the client so: it takes this code for RESOURCE_EXHAUSTED. */
export function resetNow(call: object): void {
  streamOf(call)?.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
}

/** Resets the stream of a call that has been ended, unless the client lets it close within `ms`. */
export function resetAfter(call: object, ms: number): void {
  const stream = streamOf(call);
  if (stream === undefined || stream.closed) return;
  const timer = setTimeout(() => {
    // NO_ERROR alone would wait for what has not been read.
    stream.close(stream.writableFinished ? constants.NGHTTP2_NO_ERROR : constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }, ms);
  timer.unref();
  stream.once("close", () => clearTimeout(timer));
}
