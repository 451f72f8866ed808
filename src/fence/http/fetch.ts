import { Aborting } from "../admission/aborting.js";
import { extractFromAnswer, isClock, type MessageClock } from "../admission/clock.js";
import { MODE_HEADER, TOKEN_HEADER } from "../admission/presented.js";
import { invalid, show } from "../errors.js";
import { type Fenced, type Hold, holdOf } from "../hold.js";
import { checkKeys } from "../token.js";
import { isProblem, refusalIn } from "./problem.js";

/** `fetch`, or something like it. */
export type Fetch = (input: string | URL | Request, init?: RequestInit) => Promise<Response>;

export interface FencedFetchOptions {
  /** Default: the global `fetch`. */
  readonly fetch?: Fetch | undefined;
  /** `client.clock`: puts a Lamport timestamp on requests, and follows those of responses. */
  readonly clock?: MessageClock | undefined;
  /** What becomes of a 409 of the fence: an error, or an ordinary response. Default: `throw`. */
  readonly refusals?: "throw" | "return" | undefined;
}

/** Puts the token and the mode into the headers of a request. Throws LOST. */
export function present(hold: Hold, headers: Headers): void {
  headers.set(TOKEN_HEADER, String(hold.token));
  if (hold.raises) headers.delete(MODE_HEADER);
  else headers.set(MODE_HEADER, "shared");
}

/** Whether the request may follow redirects: no. What is at another place was fenced by somebody else, or by nobody. */
function redirectOf(input: string | URL | Request, init: RequestInit): "error" | "manual" {
  if (init.redirect === "follow")
    throw invalid("a fenced request follows no redirects: what is fenced is at its own URL");
  const asked = init.redirect ?? (isRequest(input) ? input.redirect : undefined);
  return asked === "manual" ? "manual" : "error";
}

const isRequest = (input: string | URL | Request): input is Request => typeof input === "object" && "headers" in input;

/**
 * A `fetch` that presents the token of the lock: to a service with `httpFence`, or to any that checks `Fencing-Token`.
 *
 * - Rejects LOST, without sending anything, when the lock is not held any more. When it is lost while the request is under
 *   way the request is aborted, and it rejects with `lock.signal.reason`: the service may have carried it out or not.
 * - Rejects STALE_TOKEN when the service has seen a higher token, and LOST when it finds that the lock is not held. Other
 *   refusals are responses, as with any `fetch`: 400, 403, 428, and 503 with `Retry-After`.
 * - Redirects are errors, since `fetch` would take the headers along to other origins. `redirect: "manual"` is permitted.
 *
 * Throws INVALID for a semaphore with several permits: choose one with `slotOf`.
 *
 * @example
 * await client.withLock("orders/42", async (lock) => {
 *   const send = fencedFetch(lock, { clock: client.clock });
 *   const order = await (await send("http://orders.internal/orders/42")).json();
 *   await send("http://orders.internal/orders/42", { method: "PUT", body: JSON.stringify(paid(order)) });
 * });
 */
export function fencedFetch(lock: Fenced, options: FencedFetchOptions = {}): Fetch {
  checkKeys(options, ["fetch", "clock", "refusals"], "the options of fencedFetch()");
  const { fetch = globalThis.fetch, clock, refusals = "throw" } = options;
  if (typeof fetch !== "function") throw invalid("fetch must be a function");
  if (clock !== undefined && !isClock(clock)) throw invalid("clock must have inject and extract: client.clock has");
  if (refusals !== "throw" && refusals !== "return") {
    throw invalid(`refusals must be throw or return, not ${show(refusals)}`);
  }
  const hold = holdOf(lock);
  return async (input, init = {}) => {
    const redirect = redirectOf(input, init);
    const headers = new Headers(init.headers ?? (isRequest(input) ? input.headers : undefined));
    present(hold, headers);
    clock?.inject(headers);
    const own = init.signal === undefined && isRequest(input) ? input.signal : init.signal;
    const aborting = new Aborting().withHold(hold).with(own);
    const response = await fetch(input, { ...init, headers, redirect, signal: aborting.signal }).catch((error) => {
      aborting.end();
      throw error;
    });
    aborting.endWith(response.body);
    if (clock) extractFromAnswer(clock, response.headers);
    if (refusals === "throw") await throwRefusal(response);
    return response;
  };
}

async function throwRefusal(response: Response): Promise<void> {
  if (response.status !== 409 || !isProblem(response)) return;
  const refusal = await refusalIn(response.clone()); // whoever else's problem it is, the caller reads it
  if (refusal === undefined) return;
  response.body?.cancel().catch(() => {});
  throw refusal;
}
