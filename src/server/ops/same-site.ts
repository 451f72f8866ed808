/**
 * What other web pages may make a browser ask of this port: nothing.
 *
 * A page of any site can let the browser of whoever visits it call a port of that person's own machine. It cannot read
 * the answer, unless its name is made to point to that machine meanwhile (DNS rebinding); then the request carries that
 * name as its host. So where callers need not say who they are the host must be an address, this machine's own name for
 * itself, or the host that this server listens at. And browsers tell where a request comes from: whatever comes from
 * another site is refused, also where a client certificate would be shown without anybody being asked.
 */
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import type { Endpoint } from "../config/endpoint.js";
import type { Refusal } from "../core/types.js";

const denied = (message: string): Refusal => ({ kind: "refused", reason: "DENIED", message });

/** Why this host is none of ours; null: it is. */
export function foreignHost(request: IncomingMessage, endpoint: Endpoint): Refusal | null {
  if (endpoint.kind === "unix") return null; // no browser can reach it
  const host = hostName(request.headers.host ?? "");
  const known = isIP(host) > 0 || host === "localhost" || host.endsWith(".localhost") || host === endpoint.host;
  if (known) return null;
  const message =
    `the host "${host.slice(0, 100)}" is not the address of this server; without authentication it answers only under ` +
    "an IP address, localhost, or the host in opsListen";
  return denied(message);
}

/** Of "name:port" and "[IPv6]:port"; without a final dot. */
function hostName(host: string): string {
  const [, v6, name] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(host.toLowerCase()) ?? [];
  return v6 ?? (name ?? "").replace(/\.$/, "");
}

/** Why this comes from another site; null: it does not, or not from a browser. */
export function foreignSite(request: IncomingMessage): Refusal | null {
  const { origin, host, "sec-fetch-site": site } = request.headers;
  const foreign = denied("the request comes from the page of another site");
  if (site !== undefined && site !== "same-origin" && site !== "none") return foreign;
  if (origin === undefined) return null;
  return URL.canParse(origin) && new URL(origin).host === host?.toLowerCase() ? null : foreign;
}
