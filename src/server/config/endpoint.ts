import { isIPv4, isIPv6 } from "node:net";

/** Where to listen, or whom to call. */
export type Endpoint =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** What fits into a socket address on Linux, less the final zero; other systems allow a little less. */
const UNIX_PATH_BYTES_MAX = 107;

const HOST = /^(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$/;

/** "host:port", "[IPv6]:port" or "unix:/path". Undefined: none of these. */
export function parseEndpoint(text: string): Endpoint | undefined {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length).replace(/^\/\/(?=\/)/, "");
    const fits = path !== "" && !path.includes("\0") && Buffer.byteLength(path) <= UNIX_PATH_BYTES_MAX;
    return fits ? { kind: "unix", path } : undefined;
  }
  const match = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text);
  if (!match) return undefined;
  const [, v6, name, digits] = match;
  const port = Number(digits);
  if (port > 65_535) return undefined;
  if (v6 !== undefined) return isIPv6(v6) ? { kind: "tcp", host: v6, port } : undefined;
  const host = name ?? "";
  const numeric = /^[\d.]+$/.test(host);
  return (numeric ? isIPv4(host) : HOST.test(host)) ? { kind: "tcp", host, port } : undefined;
}

export function formatEndpoint(endpoint: Endpoint): string {
  if (endpoint.kind === "unix") return `unix:${endpoint.path}`;
  return endpoint.host.includes(":") ? `[${endpoint.host}]:${endpoint.port}` : `${endpoint.host}:${endpoint.port}`;
}

/** Whether only this machine can reach it. */
export function isLocal(endpoint: Endpoint): boolean {
  if (endpoint.kind === "unix") return true;
  const { host } = endpoint;
  if (isIPv4(host)) return host.startsWith("127.");
  return host === "::1" || host.toLowerCase() === "localhost";
}
