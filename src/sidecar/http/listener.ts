/**
 * The sidecar's sockets. There is no authentication: whoever can connect is trusted. So it listens on a unix socket, whose
 * file mode says who can, or on a loopback address, and nowhere else. (The page for probes and metrics, which changes and
 * tells nothing, may listen anywhere.)
 *
 * On loopback there is one stranger who can connect although nobody let him in: a web page in a browser on this machine.
 * Browsers say so: in `Origin` and `Sec-Fetch-Site`, and, when a host name of the page's was pointed at 127.0.0.1, in
 * `Host`. Such requests are refused.
 */
import { lstatSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { isIPv4 } from "node:net";
import { type Endpoint, formatEndpoint } from "../../server/config/endpoint.js";
import { removeStaleSocket } from "../../server/rpc/unix-socket.js";
import { HttpProblem } from "./problem.js";

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export interface ListenOptions {
  readonly endpoint: Endpoint;
  /** Of the file of a unix socket. */
  readonly socketMode: number;
  readonly connectionsMax: number;
  /** For a whole request, its body included, to arrive; 0: the handler sees to that. */
  readonly requestMsMax: number;
}

export interface Listener {
  /** With the port that the system chose for port 0. */
  readonly address: string;
  /** No more connections and requests. Resolves when those that are open have ended. */
  close(): Promise<void>;
  /** Cuts off what is still open. */
  destroy(): void;
}

const HEADER_BYTES_MAX = 16_384;
const HEADERS_MAX = 100;
/** From the connection to the end of a head: who says nothing is cut off as well. */
const HEADER_MS_MAX = 5_000;
const IDLE_MS_MAX = 30_000;
/** From one look for requests that take too long to the next. */
const CHECK_MS = 1_000;

/** Listens. Rejects when the address cannot be had. */
export async function listen(options: ListenOptions, handler: Handler): Promise<Listener> {
  const server = createServer(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: HEADER_MS_MAX,
      requestTimeout: options.requestMsMax,
      keepAliveTimeout: IDLE_MS_MAX,
      connectionsCheckingInterval: CHECK_MS,
    },
    handler,
  );
  server.maxHeadersCount = HEADERS_MAX;
  server.maxConnections = options.connectionsMax;
  const { endpoint } = options;
  if (endpoint.kind === "unix") await bindUnix(server, endpoint.path, options.socketMode);
  else await bound(server, () => server.listen(endpoint.port, endpoint.host));
  const found = server.address();
  const port = found !== null && typeof found === "object" ? found.port : 0;
  return {
    address: formatEndpoint(endpoint.kind === "tcp" ? { ...endpoint, port } : endpoint),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeIdleConnections();
      }),
    destroy: () => server.closeAllConnections(),
  };
}

function bound(server: Server, start: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", () => {
      server.off("error", reject);
      resolve();
    });
    start();
  });
}

/** With its mode from the first moment on: a mode set later would leave a moment in which anybody may connect. */
async function bindUnix(server: Server, path: string, mode: number): Promise<void> {
  await removeStaleSocket(path);
  const before = process.umask(0o777 & ~mode);
  try {
    await bound(server, () => {
      server.listen(path); // binds in this call
      process.umask(before);
    });
  } finally {
    process.umask(before);
  }
  const found = lstatSync(path).mode & 0o777;
  if (found !== mode) throw new Error(`the socket ${path} has the mode ${found.toString(8)}, not ${mode.toString(8)}`);
}

/** Refuses what a browser sends on behalf of a page. Throws DENIED. */
export function refusePages(request: IncomingMessage, overTcp: boolean): void {
  const { origin, host, "sec-fetch-site": site } = request.headers;
  if (origin !== undefined || site !== undefined) {
    throw new HttpProblem(403, "DENIED", "requests of web pages (with Origin or Sec-Fetch-Site) are refused");
  }
  if (overTcp && (host === undefined || !isLoopbackName(host))) {
    throw new HttpProblem(403, "DENIED", "the Host must be localhost or a loopback address");
  }
}

function isLoopbackName(host: string): boolean {
  const name = host.replace(/:\d{1,5}$/, "").toLowerCase();
  return name === "localhost" || name === "[::1]" || (isIPv4(name) && name.startsWith("127."));
}
