import { Aborting } from "../admission/aborting.js";
import { FenceError, invalid } from "../errors.js";
import type { Fence, Floor } from "../fence.js";
import { type Fenced, type Hold, holdsOf } from "../hold.js";
import { checkKeys, checkResource, checkWhole, readToken } from "../token.js";
import { type Fetch, present } from "./fetch.js";
import { isProblem, readText, refusalIn } from "./problem.js";

export interface HttpFenceClientOptions {
  /** Sent with each request: what the service's `authorize` and `admin` want to see. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Default: the global `fetch`. */
  readonly fetch?: Fetch | undefined;
  /** How long to wait for an answer, in milliseconds; then UNREACHABLE. Default: 15,000: it may have to wait for its turn. */
  readonly limitMs?: number | undefined;
}

const LIMIT_MS = 15_000;
const ANSWER_BYTES_MAX = 16_384;

class RemoteFence implements Fence {
  readonly #url: URL;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #fetch: Fetch;
  readonly #limitMs: number;

  constructor(url: URL, options: HttpFenceClientOptions) {
    const { headers = {}, fetch = globalThis.fetch, limitMs = LIMIT_MS } = options;
    if (typeof fetch !== "function") throw invalid("fetch must be a function");
    this.#url = url;
    this.#headers = headers;
    this.#fetch = fetch;
    this.#limitMs = checkWhole(limitMs, "limitMs", 1, 600_000);
  }

  async raise(lock: Fenced): Promise<void> {
    for (const hold of holdsOf(lock)) await this.#raise(hold);
  }

  async #raise(hold: Hold): Promise<void> {
    const { name, resource, token } = hold;
    const headers = new Headers(this.#headers);
    present(hold, headers);
    const slot = resource === name ? {} : { slot: resource.slice(name.length + 1) };
    try {
      const { floor } = await this.#floor({ name, ...slot }, resource, "PUT", headers, new Aborting().withHold(hold));
      // Something in between that answers 200 to everything has raised nothing.
      if (hold.raises ? floor < token : floor > token) throw notAFence(this.#url);
    } finally {
      hold.token; // it may have taken long: whatever else came of it, this throws LOST when the lock is lost
    }
  }

  async inspect(resource: string): Promise<Floor> {
    const query = { name: checkResource(resource) };
    return this.#floor(query, resource, "GET", new Headers(this.#headers), new Aborting());
  }

  async reset(resource: string): Promise<void> {
    await this.#asked({ name: checkResource(resource) }, "DELETE", new Headers(this.#headers), new Aborting());
  }

  async #floor(
    query: Record<string, string>,
    resource: string,
    method: string,
    headers: Headers,
    aborting: Aborting,
  ): Promise<Floor> {
    const text = await this.#asked(query, method, headers, aborting);
    try {
      const answer = JSON.parse(text) as Partial<Record<keyof Floor, unknown>>;
      if (answer.resource === resource) return { resource, floor: readToken(answer.floor) };
    } catch {
      // falls through
    }
    throw notAFence(this.#url);
  }

  /** Resolves with the body of a successful answer. */
  async #asked(query: Record<string, string>, method: string, headers: Headers, aborting: Aborting): Promise<string> {
    const url = new URL(this.#url);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    const late = () => new FenceError("UNREACHABLE", `${this.#url.origin} did not answer within ${this.#limitMs} ms`);
    aborting.after(this.#limitMs, late);
    try {
      const { signal } = aborting;
      const response = await this.#fetch(url, { method, headers, redirect: "error", signal });
      if (response.ok) return await readText(response, ANSWER_BYTES_MAX);
      throw (await refused(response)) ?? unexpected(response);
    } catch (error) {
      throw FenceError.is(error)
        ? error
        : new FenceError("UNREACHABLE", `${this.#url.origin} cannot be reached`, { cause: error });
    } finally {
      aborting.end();
    }
  }
}

async function refused(response: Response): Promise<FenceError | undefined> {
  if (isProblem(response)) return refusalIn(response);
  await response.body?.cancel();
  return undefined;
}

function unexpected({ status, url }: Response): FenceError {
  const message = `${url.split("?", 1)[0]} answered ${status}`;
  if (status === 401 || status === 403) return new FenceError("DENIED", message);
  return status >= 500 || status === 429 ? new FenceError("UNREACHABLE", message) : invalid(message);
}

const notAFence = (url: URL) => invalid(`${url.origin}${url.pathname} does not answer as a fence does`);

/**
 * The fence of a service that has mounted `httpFence(…).endpoint()`: raises its floors at the grant. Rejects, beside what every
 * fence does, DENIED. Throws INVALID.
 *
 * @example
 * const orders = httpFenceClient("http://orders.internal/.well-known/leasehold-fence", {
 *   headers: { authorization: `Bearer ${secret}` },
 * });
 * await client.withLock("orders/42", { fence: orders }, (lock) => work(fencedFetch(lock)));
 */
export function httpFenceClient(url: string | URL, options: HttpFenceClientOptions = {}): Fence {
  checkKeys(options, ["headers", "fetch", "limitMs"], "the options of httpFenceClient()");
  if (!URL.canParse(String(url))) throw invalid("httpFenceClient() needs the URL of a fence's endpoint");
  return new RemoteFence(new URL(url), options);
}
