/** Probes and metrics: pages that machines read. */
import type { IncomingMessage } from "node:http";
import type { Access } from "../security/access.js";
import { isIdentity } from "../security/access.js";
import type { Answer } from "./answer.js";
import { peerOf } from "./peer.js";

export type Readiness = { readonly ready: true } | { readonly ready: false; readonly reason: string };

export interface PageSources {
  readonly metrics: { render(): Promise<string>; readonly contentType: string };
  /** Recovered, the store takes writes, not draining. */
  readonly readiness: () => Readiness;
}

type Page = (sources: PageSources, access: Access, request: IncomingMessage) => Answer | Promise<Answer>;

/** Metrics name principals and what they do: whoever reads them must be known, and need not be permitted anything. */
const metricsPage: Page = async ({ metrics }, access, request) => {
  if (access.authentication) {
    const who = await access.authenticate(peerOf(request));
    if (!isIdentity(who)) {
      return { status: 401, body: `${who.message}\n`, headers: { "www-authenticate": "Bearer" } };
    }
  }
  return { status: 200, body: await metrics.render(), type: metrics.contentType };
};

/** Says that the event loop turns, and nothing about the disk: a restart would not mend a disk. */
const healthPage: Page = () => ({ status: 200, body: "ok\n" });

const readyPage: Page = ({ readiness }) => {
  const state = readiness();
  return state.ready ? { status: 200, body: "ready\n" } : { status: 503, body: `not ready: ${state.reason}\n` };
};

export const pages: ReadonlyMap<string, Page> = new Map([
  ["/metrics", metricsPage],
  ["/healthz", healthPage],
  ["/readyz", readyPage],
]);
