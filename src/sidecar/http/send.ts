/** Writes an answer. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Answer } from "./problem.js";

/** An answer that comes when another has begun breaks the connection off. */
export function send(request: IncomingMessage, response: ServerResponse, { status, body, headers = {} }: Answer): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const text = typeof body === "string" ? body : `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    // What was not read of a body would be taken for the next request.
    ...(request.complete ? {} : { connection: "close" }),
    ...headers,
  });
  response.end(request.method === "HEAD" ? undefined : text);
}
