/** What the console reads of the core: locks, leases, what is hot and what takes long, how the server is. */
import type { Outcome, Refusal, Request } from "../../core/types.js";
import { badRange } from "../../rpc/check.js";
import type { ServerStatus } from "../../rpc/status.js";
import { type Answer, failed, json, refused } from "../answer.js";
import { ask } from "./ask.js";
import type { ApiContext, ApiRequest, ApiRoute } from "./context.js";
import { badParameters, readLimit, readPage } from "./query.js";
import * as views from "./views.js";

type OutcomeOf<K extends Outcome["kind"]> = Extract<Outcome, { kind: K }>;

/** Asks, and shows an outcome of the kind that belongs to the question. */
async function answerOf<K extends Outcome["kind"]>(
  context: ApiContext,
  { identity }: ApiRequest,
  request: Request | Refusal,
  kind: K,
  show: (outcome: OutcomeOf<K>) => object,
): Promise<Answer> {
  if (request.kind === "refused") return refused(request);
  const asked = await ask(context.sink, identity, request);
  if ("failure" in asked) return failed(asked.failure);
  const { outcome, timestamp } = asked;
  if (outcome.kind !== kind) throw new Error(`${request.kind} was answered with ${outcome.kind}`);
  return json({ ...show(outcome as OutcomeOf<K>), timestamp });
}

export const listLocks: ApiRoute = (context, request) => {
  const { limits, coreLimits } = context;
  const page = readPage(request.query, coreLimits.nameBytesMax, limits.pageSizeDefault, limits.pageSizeMax);
  const asks: Request | Refusal =
    badParameters(request.query, ["prefix", "after", "limit"]) ??
    ("kind" in page ? page : { kind: "listLocks", ...page, wallMs: Date.now() });
  return answerOf(context, request, asks, "locks", (o) => views.locks(o.locks, o.next, limits.listBytesMax));
};

export const describeLock: ApiRoute = (context, request) => {
  const { limits } = context;
  const waitersMax = readLimit(request.query, limits.waitersListedDefault);
  const asks: Request | Refusal = badParameters(request.query, ["name", "limit"]) ??
    badRange("limit", waitersMax, 1, limits.waitersListedMax) ?? {
      kind: "describeLock",
      name: request.name,
      waitersMax,
      wallMs: Date.now(),
    };
  return answerOf(context, request, asks, "lock", (o) => ({ lock: views.lock(o.lock, limits.listBytesMax) }));
};

export const listLeases: ApiRoute = (context, request) => {
  const { limits } = context;
  const page = readPage(request.query, limits.idBytesMax, limits.pageSizeDefault, limits.pageSizeMax);
  const asks: Request | Refusal =
    badParameters(request.query, ["after", "limit"]) ??
    ("kind" in page ? page : { kind: "listLeases", after: page.after, limit: page.limit });
  return answerOf(context, request, asks, "leases", (o) => ({ leases: o.leases.map(views.lease), next: o.next }));
};

/** Known to the transport, not to the core; whoever may see all leases may see these. */
export const listSessions: ApiRoute = (context, { identity, query }) => {
  const { limits } = context;
  const limit = readLimit(query, limits.pageSizeDefault);
  const bad =
    badParameters(query, ["limit"]) ??
    badRange("limit", limit, 1, limits.pageSizeMax) ??
    identity.permits({ verb: "observe", name: "", prefix: true });
  if (bad !== null) return refused(bad);
  const sessions = context.sessions(limit).map((one) => ({ ...one, connectedMs: Math.floor(one.connectedMs) }));
  return json({ sessions });
};

export const topLocks: ApiRoute = (context, request) => {
  const { limits } = context;
  const limit = readLimit(request.query, limits.topDefault);
  const asks: Request | Refusal = badParameters(request.query, ["limit"]) ??
    badRange("limit", limit, 1, limits.topMax) ?? { kind: "topLocks", limit, wallMs: Date.now() };
  return answerOf(context, request, asks, "top", (o) => ({
    hottest: context.hottest(limit),
    longestHolds: o.holds.map(({ name, holder }) => ({ name, holder: views.holder(holder) })),
    longestWaits: o.waits.map(({ name, waiter }) => ({ name, waiter: views.waiter(waiter) })),
  }));
};

/** Answers even when the core cannot: an operator needs it most when the store is down. */
export const status: ApiRoute = async (context, request) => {
  const bad = badParameters(request.query, []);
  if (bad !== null) return refused(bad);
  const { identity } = request;
  const asked = await ask(context.sink, identity, { kind: "status" });
  if ("failure" in asked && ["INVALID", "DENIED", "INTERNAL"].includes(asked.failure.reason)) {
    return failed(asked.failure);
  }
  const counts = "outcome" in asked && asked.outcome.kind === "status" ? asked.outcome.counts : null;
  const why = "failure" in asked ? asked.failure.message : (counts?.halted ?? "");
  const { authentication } = context.access;
  const you = { principal: identity.principal.name, authentication };
  return json({ ...serverBody(context.serverStatus(), why), counts, watchers: context.watch.size, you });
};

function serverBody(server: ServerStatus, why: string): object {
  const notServingReason = server.notServingReason || why;
  const { version, clusterId, store, uptimeMs, commandsInFlight, journalLogBytes, clockSkew } = server;
  const { measured, skewed, serverAheadMs } = clockSkew;
  return {
    serving: notServingReason === "",
    notServingReason,
    version,
    clusterId,
    store,
    uptimeMs: Math.floor(uptimeMs),
    commandsInFlight,
    journalLogBytes,
    journalCheckpointLagRecords: server.journalCheckpointLagRecords,
    clocks: { measured, skewed, serverAheadMs },
  };
}
