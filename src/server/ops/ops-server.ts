/**
 * The small HTTP server for operators: metrics and probes. It answers GET and HEAD, reads no bodies and bounds headers,
 * times and connections, so that nothing that knocks on this port can hold the lock server up.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { type Endpoint, formatEndpoint } from "../config/endpoint.js";
import type { Certificates } from "../security/certificates.js";
import { createListener } from "./listener.js";

type Readiness = { readonly ready: true } | { readonly ready: false; readonly reason: string };

export interface OpsOptions {
  readonly endpoint: Endpoint;
  readonly metrics: { render(): Promise<string>; readonly contentType: string };
  /** Recovered, the store takes writes, not draining. */
  readonly readiness: () => Readiness;
  /** Absent or null: without encryption. */
  readonly certificates?: Certificates | null;
  /** The metrics could not be rendered: a bug. */
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

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly type?: string;
}

/** Listens. Rejects when the address cannot be had. */
export async function startOps(options: OpsOptions): Promise<OpsServer> {
  const server = createListener(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: HEADER_MS_MAX,
      requestTimeout: HEADER_MS_MAX,
      connectionsCheckingInterval: 1_000,
      keepAliveTimeout: IDLE_MS_MAX,
    },
    (request, response) => void handle(options, request, response),
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

async function handle(options: OpsOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  request.resume(); // whatever body there is goes nowhere
  let answer: Answer;
  try {
    answer = await answerTo(options, request);
  } catch (error) {
    options.onError?.(error);
    answer = { status: 500, body: "internal error\n" };
  }
  const body = Buffer.from(answer.body);
  response.writeHead(answer.status, {
    "content-type": answer.type ?? TEXT,
    "content-length": body.length,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    ...(answer.status === 405 ? { allow: "GET, HEAD" } : {}),
  });
  response.end(request.method === "HEAD" ? undefined : body);
}

async function answerTo(options: OpsOptions, request: IncomingMessage): Promise<Answer> {
  const url = request.url ?? "";
  const query = url.indexOf("?");
  const page = pages.get(query < 0 ? url : url.slice(0, query));
  if (page === undefined) return { status: 404, body: "not found; there are /metrics, /healthz and /readyz\n" };
  if (request.method !== "GET" && request.method !== "HEAD") return { status: 405, body: "GET or HEAD only\n" };
  return page(options);
}

type Page = (options: OpsOptions) => Answer | Promise<Answer>;

const metricsPage: Page = async ({ metrics }) => ({
  status: 200,
  body: await metrics.render(),
  type: metrics.contentType,
});

/** Says that the event loop turns, and nothing about the disk: a restart would not mend a disk. */
const healthPage: Page = () => ({ status: 200, body: "ok\n" });

const readyPage: Page = ({ readiness }) => {
  const state = readiness();
  return state.ready ? { status: 200, body: "ready\n" } : { status: 503, body: `not ready: ${state.reason}\n` };
};

const pages: ReadonlyMap<string, Page> = new Map([
  ["/metrics", metricsPage],
  ["/healthz", healthPage],
  ["/readyz", readyPage],
]);
