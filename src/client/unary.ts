/** Single calls outside of a session, for tools: no leases, no retries. */
import type { Client as Channel } from "@grpc/grpc-js";
import { parseTarget } from "./address.js";
import { LeaseholdError } from "./errors.js";
import { openChannel, type Tls } from "./grpc-transport.js";
import { unreachableError } from "./session/failure.js";
import { decode, encode, type leasehold, type MessageType, v1 } from "./wire/index.js";

/** A method and its messages. */
export interface UnaryMethod<Request, Response> {
  readonly path: string;
  readonly request: MessageType<Request, unknown>;
  readonly response: MessageType<never, Response>;
}

export interface UnaryOptions {
  readonly tls?: Tls;
  /** Milliseconds for the whole call, connecting included. Default 5000. */
  readonly timeoutMs?: number;
}

/** Calls one of the addresses: the first that can be reached. Rejects with a `LeaseholdError`. */
export async function callUnary<Request, Response>(
  target: string | readonly string[] | undefined,
  options: UnaryOptions,
  method: UnaryMethod<Request, Response>,
  request: Request,
): Promise<Response> {
  const deadline = performance.now() + (options.timeoutMs ?? 5_000);
  const addresses = parseTarget(target);
  let failure: LeaseholdError | undefined;
  for (const address of addresses) {
    const channel = openChannel(address, options.tls);
    try {
      return await callOnce(channel, deadline - performance.now(), method, request);
    } catch (error) {
      const met = LeaseholdError.from(error);
      failure = met.code === "UNREACHABLE" ? unreachableError(address.text, address.local, met) : met;
      if (met.code !== "UNREACHABLE") throw failure;
    } finally {
      channel.close();
    }
  }
  throw failure ?? new LeaseholdError("UNREACHABLE", "no address to call");
}

function callOnce<Request, Response>(
  channel: Channel,
  timeoutMs: number,
  method: UnaryMethod<Request, Response>,
  request: Request,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const serialize = (message: Request): Buffer => encode(method.request, message);
    const deserialize = (bytes: Buffer): Response => decode(method.response, bytes);
    const call = channel.makeUnaryRequest(method.path, serialize, deserialize, request, (error, response) => {
      clearTimeout(timer);
      if (error) reject(timedOut ? new LeaseholdError("UNREACHABLE", "no answer") : error);
      else resolve(response as Response);
    });
    let timedOut = false;
    const timer = setTimeout(
      () => {
        timedOut = true;
        call.cancel();
      },
      Math.max(1, timeoutMs),
    );
  });
}

/** `AdminService.Status`. */
export const statusMethod: UnaryMethod<leasehold.v1.StatusRequest.$Properties, leasehold.v1.StatusResponse.$Shape> = {
  path: "/leasehold.v1.AdminService/Status",
  request: v1.StatusRequest,
  response: v1.StatusResponse,
};
