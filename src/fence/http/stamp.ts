/** Lamport timestamps on requests and responses of a server. */
import type { MessageClock } from "../admission/clock.js";
import { FenceError } from "../errors.js";
import type { HttpRequest, HttpResponse } from "./types.js";

/** Follows the timestamp of a request. Throws INVALID when the header is none. */
export function takeNote(clock: MessageClock, { headers }: HttpRequest): void {
  const get = (name: string) => {
    const value = headers[name];
    return typeof value === "object" ? value.join(", ") : value;
  };
  try {
    clock.extract({ get, set: () => {} });
  } catch (cause) {
    throw new FenceError("INVALID", "the header of the clock is no timestamp", { cause });
  }
}

/**
 * Puts a timestamp on the response at the moment at which its head is written. An earlier one would be lower than those of
 * the events in the handler, and the caller would then number what comes after them before them.
 */
export function stampWhenSent(clock: MessageClock, res: HttpResponse): void {
  const response = res as HttpResponse & { writeHead(...args: unknown[]): unknown };
  const { writeHead } = response;
  response.writeHead = (...args) => {
    clock.inject({ get: () => undefined, set: (name, value) => res.setHeader(name, value) });
    return writeHead.apply(response, args);
  };
}
