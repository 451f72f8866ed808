/**
 * The HTTP server for operators: metrics, probes, and the console with its API. Headers, times, connections and bodies
 * are bounded, so that nothing that knocks on this port can hold the lock server up. Here is who answers what; each part
 * has a file of its own.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { type Endpoint, formatEndpoint } from "../config/endpoint.js";
import { type Access, openAccess } from "../security/access.js";
import type { Certificates } from "../security/certificates.js";
import type { Answer } from "./answer.js";
import { API, Api } from "./api/api.js";
import type { ConsoleOptions } from "./api/context.js";
import { consoleAssets } from "./assets.js";
import { createListener } from "./listener.js";
import { type PageSources, pages } from "./pages.js";

export interface OpsOptions extends PageSources {
  readonly endpoint: Endpoint;
  /** Absent: open to everybody. */
  readonly access?: Access;
  /** Absent or null: without encryption. */
  readonly certificates?: Certificates | null;
  /** Absent: metrics and probes only. */
  readonly console?: ConsoleOptions;
  /** Something threw: a bug. */
  readonly onError?: (error: unknown) => void;
}

export interface OpsServer {
  /** Where it listens, with the port that the system chose for port 0. */
  readonly address: string;
  stop(): Promise<void>;
}

const CONNECTIONS_MAX = 64;
const HEADER_BYTES_MAX = 8_192;
const HEADER_MS_MAX = 5_000;
const IDLE_MS_MAX = 10_000;
const TEXT = "text/plain; charset=utf-8";

/** Listens. Rejects when the address cannot be had. */
export async function startOps(options: OpsOptions): Promise<OpsServer> {
  const site = new Site(options);
  const server = createListener(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: HEADER_MS_MAX,
      requestTimeout: HEADER_MS_MAX,
      connectionsCheckingInterval: 1_000,
      keepAliveTimeout: IDLE_MS_MAX,
    },
    (request, response) => void site.handle(request, response),
    options.certificates ?? null,
  );
  server.maxConnections = CONNECTIONS_MAX;
  server.setTimeout(IDLE_MS_MAX, (socket) => socket.destroy());
  await listen(server, options.endpoint);
  const bound = server.address();
  const { endpoint } = options;
  const address =
    bound !== null && typeof bound === "object" && endpoint.kind === "tcp"
      ? { ...endpoint, port: bound.port }
      : endpoint;
  return { address: formatEndpoint(address), stop: () => stop(server) };
}

function listen(server: Server, endpoint: Endpoint): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", () => {
      server.off("error", reject);
      resolve();
    });
    if (endpoint.kind === "unix") server.listen(endpoint.path);
    else server.listen(endpoint.port, endpoint.host);
  });
}

/** A scrape that is under way is cut off: nobody waits for it to shut down. */
function stop(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

class Site {
  readonly #options: OpsOptions;
  readonly #access: Access;
  readonly #api: Api | null;
  readonly #assets: ReadonlyMap<string, Answer>;

  constructor(options: OpsOptions) {
    this.#options = options;
    this.#access = options.access ?? openAccess;
    this.#api = options.console ? new Api(options.console, this.#access, options.endpoint) : null;
    this.#assets = options.console ? consoleAssets() : new Map();
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let answer: Answer | null;
    try {
      answer = await this.#answerTo(request, response);
    } catch (error) {
      // A body that breaks off is the other side's doing.
      if (!request.errored) this.#options.onError?.(error);
      answer = { status: 500, body: "internal error\n" };
    }
    if (answer !== null) write(request, response, answer);
  }

  async #answerTo(request: IncomingMessage, response: ServerResponse): Promise<Answer | null> {
    const url = request.url ?? "";
    const mark = url.indexOf("?");
    const path = mark < 0 ? url : url.slice(0, mark);
    if (this.#api !== null && path.startsWith(API)) {
      return this.#api.answer(path, mark < 0 ? "" : url.slice(mark + 1), request, response);
    }
    const page = pages.get(path);
    const asset = this.#assets.get(path);
    if (page === undefined && asset === undefined) return this.#notFound;
    if (request.method !== "GET" && request.method !== "HEAD") {
      return { status: 405, body: "GET or HEAD only\n", headers: { allow: "GET, HEAD" } };
    }
    return page?.(this.#options, this.#access, request) ?? asset ?? this.#notFound;
  }

  get #notFound(): Answer {
    const there = this.#api === null ? "/metrics, /healthz" : "/console/, /metrics, /healthz";
    return { status: 404, body: `not found; there are ${there} and /readyz\n` };
  }
}

function write(request: IncomingMessage, response: ServerResponse, answer: Answer): void {
  request.resume(); // whatever body there still is goes nowhere
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  const body = Buffer.from(answer.body);
  response.writeHead(answer.status, {
    "content-type": answer.type ?? TEXT,
    "content-length": body.length,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    ...answer.headers,
  });
  response.end(request.method === "HEAD" ? undefined : body);
}
