/**
 * A holder that stands still with everything checked and its call not yet sent. See holder-process.mjs. What would cancel
 * the call when its time is over is taken out: it is the service that has to refuse it.
 */

import * as grpc from "@grpc/grpc-js";
import { fenceClientInterceptor, fenceErrorOf } from "@leasehold/fence/grpc";

const serialize = (message) => Buffer.from(JSON.stringify(message));
const deserialize = (bytes) => JSON.parse(bytes.toString("utf8"));

export async function open({ target, secret }) {
  const client = new grpc.Client(target, grpc.credentials.createInsecure());
  return (claim, value, inside) => {
    // Nearer to the network than the fence's: it holds the call with its token in it, and does not pass a cancellation on.
    const halting = (options, nextCall) =>
      new grpc.InterceptingCall(nextCall(options), {
        start: (metadata, listener, next) => inside().then(() => next(metadata, listener)),
        cancel: () => {},
      });
    const interceptors = [fenceClientInterceptor({ grpc, lock: claim }), halting];
    const metadata = grpc.Metadata.fromHttp2Headers({ "x-secret": secret });
    return new Promise((resolve, reject) => {
      const done = (error) => (error ? reject(fenceErrorOf(error) ?? error) : resolve());
      const message = { name: claim.name, value };
      client.makeUnaryRequest(
        "/test.Registers/Write",
        serialize,
        deserialize,
        message,
        metadata,
        { interceptors },
        done,
      );
    });
  };
}
