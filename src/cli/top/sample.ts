/** What `leasehold top` shows, at one moment: fetched with two calls, with the rate since the moment before. */
import { type leasehold, v1 } from "@leasehold/client/wire";
import type { Caller } from "../common.js";
import { holderForJson, waiterForJson } from "../lock-views.js";
import { fetchStatus } from "../status.js";

const method = {
  path: "/leasehold.v1.AdminService/TopLocks",
  request: v1.TopLocksRequest,
  response: v1.TopLocksResponse,
} as const;

export interface Sample {
  readonly address: string;
  readonly atMs: number;
  readonly status: leasehold.v1.StatusResponse;
  readonly top: leasehold.v1.TopLocksResponse;
  /** Tokens handed out per second since the sample before; null for the first, and after another start of the server. */
  readonly tokensPerSecond: number | null;
}

export async function takeSample(server: Caller, limit: number, before: Sample | undefined): Promise<Sample> {
  const status = await fetchStatus(server);
  const atMs = performance.now();
  const top = await server.call(method, { limit });
  return { address: server.address, atMs, status, top, tokensPerSecond: rate(before, status, atMs) };
}

function rate(before: Sample | undefined, status: leasehold.v1.StatusResponse, atMs: number): number | null {
  if (!before || before.status.incarnation !== status.incarnation || before.status.clusterId !== status.clusterId) {
    return null;
  }
  const tokens = status.lastToken - before.status.lastToken;
  return tokens < 0 || atMs <= before.atMs ? null : (1_000 * tokens) / (atMs - before.atMs);
}

// A decoded message has the fields that were not sent on its prototype: JSON is made field by field.
export function sampleForJson({ status, top, tokensPerSecond }: Sample) {
  const { serving, notServingReason, uptimeMs, lastToken, leases, locks, holds, waiters, sessions } = status;
  return {
    timestamp: top.timestamp,
    ...{ serving, notServingReason, uptimeMs, lastToken, tokensPerSecond },
    ...{ leases, locks, holds, waiters, sessions, commandsInFlight: status.commandsInFlight },
    hottest: (top.hottest ?? []).map(({ name, grantsPerSecond }) => ({ name, grantsPerSecond })),
    longestWaits: (top.longestWaits ?? []).map(({ name, waiter }) => ({ name, waiter: waiterForJson(waiter ?? {}) })),
    longestHolds: (top.longestHolds ?? []).map(({ name, holder }) => ({ name, holder: holderForJson(holder ?? {}) })),
  };
}
