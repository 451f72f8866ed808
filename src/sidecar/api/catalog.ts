/** Every request that the sidecar answers: the router and the description for programs are both made of this list. */
import type { z } from "zod";
import * as schemas from "./schemas.js";

export type OperationId =
  | ("acquire" | "hold" | "release" | "describe" | "listHolds" | "getHold" | "keepHold" | "releaseHold")
  | ("status" | "tick" | "observe" | "leader" | "openapi" | "health" | "ready" | "metrics");

export interface Resource {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly id: OperationId;
  readonly summary: string;
  readonly input?: z.ZodType;
  /** What a success looks like; text is for people, ndjson a stream of it. */
  readonly output: z.ZodType | "text" | "object";
  readonly stream?: true;
  /** Refusals besides 400 and 500. */
  readonly refusals: readonly number[];
}

const TAKING = [403, 404, 409, 410, 423, 429, 503];

/** A resource of a lock, by its name in the path and, for names that do not survive there, in the query. */
function ofLock(action: string, resource: Omit<Resource, "path">): Resource[] {
  return [
    { ...resource, path: `/v1/locks/{name}${action}` },
    { ...resource, path: `/v1/lock${action}`, summary: `${resource.summary} (the name in the query)` },
  ];
}

export const catalog: readonly Resource[] = [
  ...ofLock("/acquire", {
    method: "POST",
    id: "acquire",
    summary: "Take a lock; it is held until it is released, or its heartbeat or maxHold is over",
    input: schemas.acquireRequest,
    output: schemas.hold,
    refusals: TAKING,
  }),
  ...ofLock("/hold", {
    method: "POST",
    id: "hold",
    summary: "Take a lock and hold it for as long as the connection is open",
    input: schemas.holdRequest,
    output: schemas.streamEvent,
    stream: true,
    refusals: TAKING,
  }),
  ...ofLock("/release", {
    method: "POST",
    id: "release",
    summary: "Release the hold with a token",
    input: schemas.releaseRequest,
    output: schemas.released,
    refusals: [409],
  }),
  ...ofLock("", {
    method: "GET",
    id: "describe",
    summary: "Tell who holds a lock and who waits for it",
    output: schemas.lock,
    refusals: [403, 429, 503],
  }),
  {
    method: "GET",
    path: "/v1/holds",
    id: "listHolds",
    summary: "The locks that the sidecar holds, in the order of their grants, the first 1,000",
    output: schemas.holdList,
    refusals: [],
  },
  {
    method: "GET",
    path: "/v1/holds/{holdId}",
    id: "getHold",
    summary: "A hold; 410 when it is lost",
    output: schemas.hold,
    refusals: [404, 410],
  },
  {
    method: "POST",
    path: "/v1/holds/{holdId}/keep",
    id: "keepHold",
    summary: "Say that the application lives: the next heartbeat is due one heartbeat later",
    output: schemas.hold,
    refusals: [404, 410],
  },
  {
    method: "DELETE",
    path: "/v1/holds/{holdId}",
    id: "releaseHold",
    summary: "Release a hold, or confirm after a loss that its application has stopped",
    output: schemas.released,
    refusals: [404],
  },
  {
    method: "POST",
    path: "/v1/clock/tick",
    id: "tick",
    summary: "Take Lamport timestamps that nobody else gets",
    input: schemas.tickRequest,
    output: schemas.range,
    refusals: [403, 409, 429, 503],
  },
  {
    method: "POST",
    path: "/v1/clock/observe",
    id: "observe",
    summary: "Take note of a timestamp that came with a message; the answer is that of its receipt",
    input: schemas.observeRequest,
    output: schemas.timestamp,
    refusals: [409, 503],
  },
  {
    method: "GET",
    path: "/v1/status",
    id: "status",
    summary: "How the sidecar is",
    output: schemas.status,
    refusals: [],
  },
  {
    method: "GET",
    path: "/leader",
    id: "leader",
    summary: "Who leads; 404 without --elect",
    output: schemas.leader,
    refusals: [404],
  },
  {
    method: "GET",
    path: "/v1/openapi.json",
    id: "openapi",
    summary: "This description",
    output: "object",
    refusals: [],
  },
  { method: "GET", path: "/healthz", id: "health", summary: "The sidecar runs", output: "text", refusals: [] },
  {
    method: "GET",
    path: "/readyz",
    id: "ready",
    summary: "The server answers, or, with --ready-when leader, this sidecar leads",
    output: "text",
    refusals: [503],
  },
  { method: "GET", path: "/metrics", id: "metrics", summary: "Metrics for Prometheus", output: "text", refusals: [] },
];
