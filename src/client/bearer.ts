/**
 * The bearer token of a client: shown with every stream, and asked for anew each time where it comes from a function, so
 * that it can be exchanged while the client lives.
 */
import { InterceptingCall, type InterceptingListener, type Interceptor, Metadata, status } from "@grpc/grpc-js";
import type { Address } from "./address.js";
import { show } from "./duration.js";
import { invalid } from "./errors.js";

/** A bearer token, or where to get the one that is good now. */
export type TokenSource = string | (() => string | Promise<string>);

/** What HTTP permits as a bearer token; longer ones no server takes. */
const TOKEN = /^[A-Za-z0-9._~+/=-]{1,8000}$/;

/** Throws INVALID: for what is no token, and where others could read it on its way. The message never contains it. */
export function checkToken(token: unknown, addresses: readonly Address[], encrypted: (address: Address) => boolean) {
  if (token === undefined) return;
  if (typeof token !== "function" && typeof token !== "string") {
    throw invalid(`the token must be text or a function, not ${show(typeof token)}`);
  }
  if (typeof token === "string" && !TOKEN.test(token)) throw invalid("the token is none: see RFC 6750 for what is");
  const open = addresses.find((address) => !address.local && !encrypted(address));
  if (open) throw invalid(`a token is not sent to ${open.text} without encryption; leave out tls: false`);
}

/** Adds the token to every call. A call whose token cannot be had ends UNAUTHENTICATED, and is not made. */
export function bearer(source: TokenSource): Interceptor {
  return (options, nextCall) => {
    let over = false;
    return new InterceptingCall(nextCall(options), {
      start(metadata, listener, next) {
        const go = (token: unknown) => {
          if (over) return;
          if (typeof token !== "string" || !TOKEN.test(token)) {
            fail(listener, "the function that should give a token gave none");
            return;
          }
          metadata.set("authorization", `Bearer ${token}`);
          next(metadata, listener);
        };
        const failed = (error: unknown) => {
          if (!over) fail(listener, `the token could not be had: ${error instanceof Error ? error.message : error}`);
        };
        try {
          const token = typeof source === "string" ? source : source();
          if (typeof token === "string") go(token);
          else Promise.resolve(token).then(go, failed);
        } catch (error) {
          failed(error);
        }
      },
      cancel(next) {
        over = true;
        next();
      },
    });
  };
}

function fail(listener: InterceptingListener, details: string): void {
  // Later, as every status comes: whoever opened the stream does not have it yet.
  setImmediate(() => listener.onReceiveStatus({ code: status.UNAUTHENTICATED, details, metadata: new Metadata() }));
}
