/**
 * etcd's JSON gateway (etcd 3.4 or later), by `fetch`: no driver is needed.
 *
 * What matters is what is known of a transaction whose answer did not come. If no connection could be made, nothing was
 * sent: UNREACHABLE, and another member is tried. From the moment it may have been sent it may have been carried out, or
 * still be: OUTCOME_UNKNOWN. The same goes for answers by which a member says that it does not know, such as "request
 * timed out" or "leader changed". It is never sent twice.
 */
import { FenceError, invalid, show } from "../errors.js";
import { checkKeys, checkWhole } from "../token.js";
import type { EtcdKv, EtcdRangeRequest, EtcdRangeResponse, EtcdTxnRequest, EtcdTxnResponse } from "./messages.js";

/** More than etcd takes in a transaction; what it returns for ranges of keys may be more. */
const RESPONSE_BYTES_MAX = 32 * 1024 * 1024;
const MEMBERS_MAX = 32;
/** The system's and undici's words for connections that were not made. */
const NOT_CONNECTED: ReadonlySet<unknown> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);
/** Codes of gRPC by which etcd says that it has refused, and so has done nothing. */
const REFUSED = {
  3: "INVALID", // INVALID_ARGUMENT: too large, too many operations, a key twice
  5: "NOT_FOUND", // the lease of a put
  7: "DENIED",
  8: "LIMIT", // RESOURCE_EXHAUSTED: the quota of the database, too many requests
  9: "INVALID", // FAILED_PRECONDITION
  11: "INVALID", // OUT_OF_RANGE: a revision that is compacted
  12: "INVALID", // UNIMPLEMENTED
  16: "DENIED", // UNAUTHENTICATED
} as const;

export interface EtcdGatewayOptions {
  /** Default: that of Node. For TLS with certificates of one's own, for proxies and tests. */
  readonly fetch?: typeof fetch | undefined;
  /** How long an answer may take. In milliseconds, default 5,000. */
  readonly timeoutMs?: number | undefined;
  /** Sent with every request, such as `authorization`. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

/**
 * The key-value service of an etcd cluster, given by the URL of a member or those of several, which are tried in turn when
 * no connection can be made. Throws INVALID for wrong URLs and options.
 *
 * @example
 * const fence = etcdFence(etcdGateway("http://127.0.0.1:2379"));
 */
export function etcdGateway(url: string | readonly string[], options: EtcdGatewayOptions = {}): EtcdKv {
  const gateway = new Gateway(typeof url === "string" ? [url] : url, options);
  return {
    txn: (request: EtcdTxnRequest) => gateway.post<EtcdTxnResponse>("v3/kv/txn", request, "OUTCOME_UNKNOWN"),
    range: (request: EtcdRangeRequest) => gateway.post<EtcdRangeResponse>("v3/kv/range", request, "UNREACHABLE"),
  };
}

type Unanswered = "OUTCOME_UNKNOWN" | "UNREACHABLE";

class Gateway {
  readonly #members: readonly string[];
  readonly #fetch: typeof fetch;
  readonly #timeoutMs: number;
  readonly #headers: Readonly<Record<string, string>>;
  /** The member that was reached last. */
  #current = 0;

  constructor(urls: readonly string[], options: EtcdGatewayOptions) {
    checkKeys(options, ["fetch", "timeoutMs", "headers"], "the options of the gateway");
    if (!Array.isArray(urls) || urls.length === 0 || urls.length > MEMBERS_MAX) {
      throw invalid(`1 to ${MEMBERS_MAX} URLs of members of etcd are needed, not ${show(urls)}`);
    }
    this.#members = urls.map(memberUrl);
    this.#fetch = options.fetch ?? fetch;
    this.#timeoutMs = checkWhole(options.timeoutMs ?? 5_000, "timeoutMs", 1, 600_000);
    this.#headers = { ...options.headers, "content-type": "application/json" };
  }

  async post<T extends object>(path: string, request: object, unanswered: Unanswered): Promise<T> {
    const signal = AbortSignal.timeout(this.#timeoutMs);
    const init = { method: "POST", headers: this.#headers, body: JSON.stringify(request), signal } as const;
    const response = await this.#reach(path, init, unanswered);
    const silent = (why: string, cause?: unknown) => new FenceError(unanswered, `etcd: ${why}`, { cause });
    let text: string;
    try {
      text = await readText(response);
    } catch (error) {
      throw silent("the connection broke, or the time was over, before the whole answer had come", error);
    }
    const answer = parse(text);
    if (response.ok && answer !== undefined) return answer as T;
    const { code, message } = (answer ?? {}) as { code?: unknown; message?: unknown };
    const why = `status ${response.status}, ${show(typeof message === "string" ? message : text)}`;
    const refused = typeof code === "number" ? REFUSED[code as keyof typeof REFUSED] : undefined;
    if (refused !== undefined) throw new FenceError(refused, `etcd has refused: ${why}`);
    if (response.status === 404) throw invalid(`there is no gateway of etcd 3.4 or later at this URL: ${why}`);
    throw silent(why);
  }

  async #reach(path: string, init: RequestInit, unanswered: Unanswered): Promise<Response> {
    let last: unknown;
    for (let tried = 0; tried < this.#members.length; tried++) {
      const member = this.#members[this.#current] as string;
      try {
        return await this.#fetch(`${member}${path}`, { ...init, redirect: "error" });
      } catch (error) {
        this.#current = (this.#current + 1) % this.#members.length; // a member that is silent is not asked next
        last = error;
        if (!notConnected(error)) {
          throw new FenceError(unanswered, `etcd: no answer within ${this.#timeoutMs} ms, or the connection broke`, {
            cause: error,
          });
        }
      }
    }
    throw new FenceError("UNREACHABLE", "etcd: no member could be connected to, nothing was sent", { cause: last });
  }
}

function memberUrl(url: unknown): string {
  const parsed = typeof url === "string" && URL.canParse(url) ? new URL(url) : undefined;
  const fits = parsed !== undefined && /^https?:$/.test(parsed.protocol) && parsed.search === "" && parsed.hash === "";
  if (!fits) throw invalid(`the URL of a member of etcd is needed, such as http://127.0.0.1:2379, not ${show(url)}`);
  return parsed.href.endsWith("/") ? parsed.href : `${parsed.href}/`;
}

function notConnected(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const codes = [error, error.cause].map((one) => (one as { code?: unknown } | undefined)?.code);
  return codes.some((code) => NOT_CONNECTED.has(code));
}

async function readText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > RESPONSE_BYTES_MAX) throw new Error(`the answer has more than ${RESPONSE_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function parse(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined; // a proxy's page
  }
}
