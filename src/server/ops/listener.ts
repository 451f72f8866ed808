/** The listener of the ops port: HTTP, or HTTPS with certificates that can be exchanged while it listens. */
import { createServer, type RequestListener, type Server, type ServerOptions } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { Certificates } from "../security/certificates.js";

/** Somebody who connects and then says nothing is not waited for any longer. */
const HANDSHAKE_MS_MAX = 5_000;

/**
 * `certificates` null: without encryption. A client certificate is asked for where there are authorities for it, and
 * never required: probes have none. Whether it is trusted, the socket tells (`authorized`).
 */
export function createListener(
  options: ServerOptions,
  handler: RequestListener,
  certificates: Certificates | null,
): Server {
  if (certificates === null) return createServer(options, handler);
  const tls = {
    ...certificates.served.context,
    requestCert: certificates.asksClients,
    rejectUnauthorized: false,
    handshakeTimeout: HANDSHAKE_MS_MAX,
  };
  const server = createSecureServer({ ...options, ...tls }, handler);
  const forget = certificates.onChange(({ context, distrust }) => {
    server.setSecureContext(context);
    if (distrust) server.closeAllConnections();
  });
  server.once("close", forget);
  return server;
}
